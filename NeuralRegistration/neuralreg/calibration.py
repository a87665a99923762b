"""How fast this computer is: a standard piece of registration work, by which estimates of time are scaled."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

from .devices import one_thread
from .sampling import identity, sample

SIDE = 48  # voxels of the cube that is resampled and averaged
REPEATS = 8  # the shortest counts: the others were disturbed by other programs


@one_thread()
def calibrate() -> float:
    """CPU seconds of the work on one thread; takes about a tenth of a second."""
    image = torch.linspace(0, 1, SIDE**3).reshape(1, 1, SIDE, SIDE, SIDE)
    coordinates = identity((SIDE, SIDE, SIDE), image) + 0.5
    return min(_seconds(image, coordinates) for _ in range(REPEATS))


def _seconds(image: torch.Tensor, coordinates: torch.Tensor) -> float:
    begun = time.thread_time()
    F.avg_pool3d(sample(image, coordinates), 5, 1, 2)
    return time.thread_time() - begun
