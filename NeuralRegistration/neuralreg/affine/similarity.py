"""How alike a level's fixed and moving values are under a matrix; lower is better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .level import Level

BINS = 32
ROUNDING = 1e-6

Cost = Callable[[Level, Tensor], Tensor]


def local_correlation(level: Level, matrix: Tensor) -> Tensor:  # -> ()
    """−mean squared correlation within blocks, over what lies in both images: precise for any contrast that is linear
    within a block, of either sign. To descend: an image that is cut off is not stretched to cover more blocks."""
    squared, overlap = _block_correlations(level, matrix)
    weight = overlap * level.certainty
    return -(squared * weight).sum() / (weight.sum() + 1e-6)


def covered_correlation(level: Level, matrix: Tensor) -> Tensor:  # -> ()
    """The same over all blocks, 0 where they leave the moving image. To judge: a small overlap never looks good."""
    squared, overlap = _block_correlations(level, matrix)
    all_of_it = level.weights.sum(1) @ level.certainty
    return -(squared * overlap) @ level.certainty / (all_of_it + 1e-6)


def _block_correlations(level: Level, matrix: Tensor) -> tuple[Tensor, Tensor]:  # -> (blocks,) ×2
    """Squared correlation of fixed and warped in each block, and the weight of the block's overlap.

    Noise is kept down by `certainty`, which only the fixed image decides: a constant added to the moving variance as
    well would reward motion that brings more contrast into a block, and shrinks a head by one per cent.
    """
    values, weights = level.warped(matrix)
    total = weights.sum(1, keepdim=True) + 1e-6
    share = weights / total
    f = level.fixed - (share * level.fixed).sum(1, keepdim=True)
    m = values - (share * values).sum(1, keepdim=True)
    ff, mm, fm = ((share * a * b).sum(1) for a, b in ((f, f), (m, m), (f, m)))
    return fm * fm / ((ff + ROUNDING) * (mm + ROUNDING)), total[:, 0]


def mutual_information(level: Level, matrix: Tensor) -> Tensor:  # -> ()
    """−normalised mutual information (Studholme 1999) of the points inside both images, linear Parzen windows."""
    values, weights = level.warped(matrix)
    bins = torch.arange(BINS, dtype=values.dtype)
    f, m = ((1 - (v.reshape(-1, 1) * (BINS - 1) - bins).abs()).clamp(min=0) for v in (level.fixed, values))
    joint = (f * weights.reshape(-1, 1)).T @ m
    joint = joint / (joint.sum() + 1e-6)
    together = _entropy(joint)
    return -(_entropy(joint.sum(0)) + _entropy(joint.sum(1)) - together) / (together + 1e-3)


def covered_information(level: Level, matrix: Tensor) -> Tensor:  # -> ()
    """The same times the share of the points that it was measured on. To judge starts: of a few points that happen to
    lie in both images the grey values always seem to depend on each other."""
    _, weights = level.warped(matrix)
    return mutual_information(level, matrix) * weights.sum() / (level.weights.sum() + ROUNDING)


def _entropy(probability: Tensor) -> Tensor:
    return -(probability * torch.log(probability + 1e-8)).sum()


def evaluate(cost: Cost, level: Level, moving_from_fixed: np.ndarray) -> float:
    """The cost of a matrix, 4×4 in LPS mm, without its gradient."""
    with torch.no_grad():
        return float(cost(level, level.matrix(moving_from_fixed)))
