"""Run these tests inside a real Slicer:

    Slicer --testing --python-script Testing/slicer/run_in_slicer.py            all tests that need no timers
    Slicer --python-script Testing/slicer/run_in_slicer.py                      all tests (closes Slicer at the end)
    Slicer --python-script Testing/slicer/run_in_slicer.py -k scene             a selection, as pytest takes it

pytest must be in Slicer's Python once: `PythonSlicer -m pip install pytest`. With `--testing` Slicer ends as soon as
this script does; timers still fire, because the tests themselves let the event loop run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import slicer

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    try:
        import pytest
    except ImportError:
        sys.stderr.write("These tests need pytest: PythonSlicer -m pip install pytest\n")
        return 1
    sys.dont_write_bytecode = True
    config = FOLDER.parents[1] / "pyproject.toml"
    arguments = [a for a in sys.argv[1:] if a != str(Path(__file__))]
    return int(pytest.main(["-c", str(config), "-p", "no:cacheprovider", str(FOLDER), *arguments]))


slicer.util.exit(main())
