"""A process of its own that reads what a user gives: `python -m NeuralRegistrationApp.reading TARGET SOURCE…`.

Every source (a file of any format that the command line takes, a DICOM folder) becomes a plain NRRD in the folder
TARGET. A file that takes its reader down takes this process down, not the page. Exit code 2 with one sentence on the
standard error for what the user can put right, as the command line does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from neuralreg import io
from neuralreg.job import RegistrationError


def main(target: str, *sources: str) -> int:
    """Returns the exit code."""
    try:
        for index, source in enumerate(sources):
            image = io.read_image(source, lambda warning: print(warning, flush=True))
            io.write_image(image, Path(target) / f"{index}.nrrd", np.float32)
    except RegistrationError as error:
        print(f"neuralreg: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
