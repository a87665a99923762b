"""The pages of the documentation as code: their fenced blocks, in order, and how each kind is run.

A block that cannot run here is preceded by a comment that no reader sees: `<!-- not run: the reason -->`.
A block of TOML or CSV is a file, named behind its language: ```toml my_model.toml.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from child import CORE, ENVIRONMENT
from neuralreg import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"<!-- not run: ((?:(?!-->).)*) -->\n\Z", re.DOTALL)
FENCE = re.compile(r"^```(\w*)(?: ([\w.]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROSE = ("text", "json")  # shown, not run
FILES = ("toml", "csv")
SHELL = set("|&;<>$`(){}")  # a block with one of these in a command is for a shell


@dataclass(frozen=True)
class Block:
    """A fenced block. `file`: its name, if it is one. `reason`: why it is not run; empty when it is."""

    language: str
    file: str
    code: str
    line: int
    reason: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in FENCE.finditer(text):
        mark = MARK.search(text[: fence.start()])
        line = text[: fence.start()].count("\n") + 2
        reason = " ".join(mark[1].split()) if mark else ""
        found.append(Block(fence[1], fence[2] or "", fence[3], line, reason))
    return found


def commands(block: Block) -> list[str]:
    """The command lines of a bash block: comments away, continued lines joined."""
    joined = block.code.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def run(block: Block, page: Path, folder: Path, names: dict) -> None:
    """Do what the block says, in `folder`, the current one; `names` are those of the page's earlier Python blocks."""
    if block.language == "python":
        exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
    elif block.language in FILES:
        (folder / block.file).write_text(block.code, encoding="utf-8")
    elif block.language == "bash":
        lines = commands(block)
        if all(line.startswith("neuralreg ") and not SHELL & set(line) for line in lines):
            for line in lines:
                _command(shlex.split(line), folder)
        else:
            _script(block.code, folder)


def _command(words: list[str], folder: Path) -> None:
    """`neuralreg …` in this process, as its script would call it, so that torch is imported once."""
    assert cli.main(words[1:]) == 0, words
    for option in ("-o", "--output", "--json"):
        if option in words:
            assert (folder / words[words.index(option) + 1]).exists(), f"{words} wrote nothing"


def _script(code: str, folder: Path) -> None:
    done = subprocess.run(["bash", "-ec", code], cwd=folder, env=_shell(folder), capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"


def _shell(folder: Path) -> dict[str, str]:
    """An environment in which `neuralreg` and `python` are this checkout and this interpreter."""
    scripts = folder / ".scripts"
    scripts.mkdir(exist_ok=True)
    for name, call in (("python", '"$@"'), ("neuralreg", '-m neuralreg "$@"')):
        script = scripts / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call}\n', encoding="utf-8")
        script.chmod(0o755)
    paths = os.pathsep.join((str(scripts), ENVIRONMENT["PATH"]))
    # Passive: threads that wait for each other on busy cores must not burn them.
    return {**ENVIRONMENT, "PATH": paths, "PYTHONPATH": str(CORE), "OMP_WAIT_POLICY": "PASSIVE"}
