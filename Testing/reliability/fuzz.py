"""Mutated NIfTI, NRRD, MetaImage and FreeSurfer files, transforms and point files: a sentence each, or read.

    python Testing/reliability/fuzz.py [--images 500] [--others 500] [--seed 1]

The suite runs the same mutations with another seed (test_bad_input.py). A traceback, a crash, more than 1.5 GB or
20 seconds for one file end the run with code 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = "a.nii,a.nii.gz,a.nrrd,a.nhdr,a.mha,a.mhd,a.mgz"
OTHERS = "t.h5,t.tfm,u.nii.gz,p.csv,p.fcsv,p.mrk.json"


def tried(names: str, count: int, seed: int) -> bool:
    """Whether all mutations of these files ended well; what happened is printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "NeuralRegistration"), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        command = [sys.executable, ROOT / "Testing/core/fuzz_images.py", folder, str(count), str(seed), names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    sys.stdout.write(f"{names}: {done.stdout or 'failed'}")
    if done.returncode:
        sys.stdout.write("\n".join(done.stderr.splitlines()[-20:]) + "\n")
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--others", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    good = [tried(IMAGES, options.images, options.seed), tried(OTHERS, options.others, options.seed)]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
