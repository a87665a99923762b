"""What the README says can be typed and is there."""

import re
import shlex
from pathlib import Path

import neuralreg
import pytest
from neuralreg import cli, qa
from neuralreg.pipeline import Registration

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("neuralreg ")])
def test_every_command_is_one_that_the_program_takes(line):
    assert callable(cli.parser().parse_args(shlex.split(line)[1:]).function)


def test_scripts_and_files_that_it_names_exist():
    scripts = [line for line in LINES if line.startswith("./")]
    assert {"./demo.sh", "./test.sh"} <= set(scripts)
    assert all((ROOT / script).stat().st_mode & 0o111 for script in scripts)
    named = set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README)) | set(re.findall(r"`(Testing/[\w/.]+)`", README))
    assert named and all((ROOT / name).exists() for name in named)


def test_python_example_uses_names_that_exist():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    compile(example, "README.md", "exec")
    used = set(re.findall(r"found\.(\w+)", example))
    assert callable(neuralreg.register) and used <= set(Registration.__dataclass_fields__)


def test_it_promises_no_compliance():
    assert "adapted from AAPM TG-132" in README and "Not a medical device" in README
    assert not re.search(r"compliant|certified|approved", README + qa.NOTE, re.IGNORECASE)
