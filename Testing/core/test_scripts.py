"""demo.sh and test.sh: what they share (setup.sh) ends when the user wants it to."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from child import PATIENCE, Child, interruptible

SETUP = Path(__file__).resolve().parents[1] / "setup.sh"
# As pip does: Ctrl-C is caught, and the program ends by itself with a code of its own.
POLITE = """import time
try:
    print("ready", flush=True)
    time.sleep(300)
except KeyboardInterrupt:
    raise SystemExit(1)"""


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="needs bash")
def test_ctrl_c_ends_the_script_and_not_only_the_program_that_it_runs():
    script = 'source "$0"; ("$1" -c "$2" && true) || echo "went on"'
    command = ["bash", "-c", script, str(SETUP), sys.executable, POLITE]
    with interruptible():
        process = Child(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "went on" not in rest
