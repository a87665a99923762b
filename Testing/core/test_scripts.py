"""demo.sh and test.sh: they end when the user wants it, and as the worst of what they have run."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from child import PATIENCE, Child, interruptible

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "Testing" / "setup.sh"
# As pip does: Ctrl-C is caught, and the program ends by itself with a code of its own.
POLITE = """import time
try:
    print("ready", flush=True)
    time.sleep(300)
except KeyboardInterrupt:
    raise SystemExit(1)"""

bash = pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="needs bash")


@bash
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


# What test.sh calls Python for, each in its own words.
GROUPS = {
    "core": "-m pytest --durations=10 --ignore=Testing/slicer --ignore=Testing/app",
    "panel": "-m pytest --durations=10 Testing/slicer",
    "page": "-m pytest --durations=10 Testing/app -rs",
    "style": "-m ruff check .",
}


@bash
@pytest.mark.parametrize("failing", [*GROUPS, None])
def test_all_groups_of_tests_run_and_each_can_fail_them_all(tmp_path, failing):
    """Two of them run beside the others, and are heard all the same."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$*"\n[ "$*" != "{GROUPS.get(failing)}" ] || exit 3\n')
    python.chmod(0o755)
    environment = {**os.environ, "NEURALREG_ENVIRONMENT": str(tmp_path)}
    done = subprocess.run(["bash", str(ROOT / "test.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode == (3 if failing else 0), done.stderr
    assert set(GROUPS.values()) < set(done.stdout.splitlines())
