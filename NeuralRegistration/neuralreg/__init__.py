"""Neural deformable registration of medical images: DNVF, VoxelMorph and FNOReg.

Importing costs nothing: torch and SimpleITK are imported when something of the core is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Affine": "transform",
    "Composite": "transform",
    "DisplacementField": "transform",
    "VelocityField": "transform",
    "Grid": "image",
    "Image": "image",
    "resample": "image",
    "RegistrationError": "job",
    "RegistrationJob": "job",
    "Result": "job",
    "Monitor": "job",
    "read_image": "io",
    "read_labels": "io",
    "read_mask": "io",
    "read_transform": "io",
    "write_image": "io",
    "write_transform": "io",
    "register": "api",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    """The public name, imported from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
