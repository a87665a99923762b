"""`slicer.parameterNodeWrapper` for slicer-core, which lacks it: the types this project stores, stored the same way.

A subset, written anew: node references, bool, int, float, str, Path and Enum, with bounds and choices; no parameter
packs, no containers. What it does not know it refuses, so that nothing passes here that Slicer would not take.
"""

from .annotations import Choice, Decimals, Default, Maximum, Minimum, SingleStep, WithinRange
from .wrapper import parameterNodeWrapper

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Maximum",
    "Minimum",
    "SingleStep",
    "WithinRange",
    "parameterNodeWrapper",
]
