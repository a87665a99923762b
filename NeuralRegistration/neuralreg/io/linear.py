"""Whether a text or MATLAB file of transforms is whole.

ITK takes a text file that ends too early for the identity, fills a MATLAB file up with whatever is in memory, and of
several transforms uses the first (checked with SimpleITK 2.5.7).
"""

from __future__ import annotations

import struct
from pathlib import Path

BYTES = (8, 4, 4, 2, 2, 1)  # of a number, by the tens digit of a variable's type
COMPOSITE = "CompositeTransform"
SEVERAL = "it holds several transforms, and does not say that they are composed"


def check_linear(path: Path) -> None:
    """Raise ValueError for a file that is not whole, or that holds several transforms without composing them."""
    if path.suffix.lower() == ".mat":
        transforms, composed = _in_matlab(path.read_bytes()), False
    else:
        transforms, composed = _in_text(path.read_text(encoding="utf-8", errors="replace"))
    if not transforms:
        raise ValueError("it holds no transform as ITK writes them")
    if transforms > 1 and not composed:
        raise ValueError(SEVERAL)


def _in_text(text: str) -> tuple[int, bool]:
    """How many transforms there are, and whether the first entry composes the others."""
    entries = [line.partition(":") for line in text.splitlines() if not line.lstrip().startswith("#")]
    kinds = [value.strip() for name, _, value in entries if name.strip() == "Transform"]
    plain = sum(not kind.startswith(COMPOSITE) for kind in kinds)
    for wanted in ("Parameters", "FixedParameters"):
        if sum(name.strip() == wanted for name, _, _ in entries) != plain:
            raise ValueError(f"not each of its transforms has its line of {wanted}")
    return plain, bool(kinds) and kinds[0].startswith(COMPOSITE)


def _in_matlab(data: bytes) -> int:
    """How many transforms there are: two variables each, in the format of MATLAB 4."""
    place = variables = 0
    while place < len(data):
        if len(data) < place + 20:
            raise ValueError("it ends too early")
        order = "<" if struct.unpack_from("<I", data, place)[0] < 1000 else ">"
        kind, rows, columns, imaginary, name = struct.unpack_from(f"{order}5I", data, place)
        if kind % 1000 // 10 >= len(BYTES) or imaginary > 1:
            raise ValueError("it is no MATLAB file as ITK writes them")
        place += 20 + name + rows * columns * BYTES[kind % 1000 // 10] * (1 + imaginary)
        variables += 1
    if place > len(data) or variables % 2:
        raise ValueError("it ends too early")
    return variables // 2
