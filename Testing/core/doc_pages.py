"""The pages of the documentation as code: their fenced blocks, in order.

A block that another test runs is preceded by a comment that no reader sees: `<!-- run by Testing/… -->`.
A block of TOML or CSV is a file, named behind its language: ```toml my_model.toml.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"<!-- run by ([\w/.]+) -->\n\Z")
FENCE = re.compile(r"^```(\w*)(?: ([\w.]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROSE = ("text", "json")  # shown, not run
FILES = ("toml", "csv")


@dataclass(frozen=True)
class Block:
    """A fenced block. `file`: its name, if it is one. `elsewhere`: the test that runs it; empty when it is run here."""

    language: str
    file: str
    code: str
    line: int
    elsewhere: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in FENCE.finditer(text):
        mark = MARK.search(text[: fence.start()])
        line = text[: fence.start()].count("\n") + 2
        found.append(Block(fence[1], fence[2] or "", fence[3], line, mark[1] if mark else ""))
    return found


def commands(block: Block) -> list[str]:
    """The command lines of a bash block: comments away, continued lines joined."""
    joined = block.code.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
