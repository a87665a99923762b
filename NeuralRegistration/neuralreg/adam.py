"""Adam for the fit to one pair. The first optimiser that torch.optim builds imports torch's compiler: over a second."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

LAST = 0.1  # of the first learning rate


class Adam:
    """Adam (Kingma and Ba, ICLR 2015) in the order of operations of torch.optim.Adam, so that the numbers agree.

    Every operation runs over all parameters at once (one kernel on a GPU) and nothing waits for the device.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], betas: tuple[float, float] = (0.9, 0.999)):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.betas, self.steps, self.epsilon = betas, 0, 1e-8
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every parameter by about `rate`, then forget the gradients. Every parameter must have one."""
        gradients = [p.grad for p in self.parameters]
        self.steps += 1
        (first, second), corrections = self.betas, [1 - beta**self.steps for beta in self.betas]
        torch._foreach_lerp_(self.means, gradients, 1 - first)
        torch._foreach_mul_(self.squares, second)
        torch._foreach_addcmul_(self.squares, gradients, gradients, 1 - second)
        scales = torch._foreach_sqrt(self.squares)
        torch._foreach_div_(scales, math.sqrt(corrections[1]))
        torch._foreach_add_(scales, self.epsilon)
        torch._foreach_addcdiv_(self.parameters, self.means, scales, -rate / corrections[0])
        for parameter in self.parameters:
            parameter.grad = None


def cosine(start: float, share: float) -> float:
    """A learning rate that falls from `start` (at share 0) along half a cosine to LAST times it (at share 1)."""
    return start * (LAST + (1 - LAST) * (1 + math.cos(math.pi * share)) / 2)
