"""The linear stage: two images brought together by a rigid or affine matrix, in any contrast, on any two grids."""

from .stage import AffineResult, register_affine

__all__ = ["AffineResult", "register_affine"]
