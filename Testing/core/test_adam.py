"""The optimiser of the pair-wise fit: torch's own is the oracle."""

import pytest
import torch
from neuralreg.adam import Adam, cosine
from neuralreg.optimise import BETAS
from torch import nn

STEPS, RATE = 20, 0.05


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((1, 4, 5, 6, 7), (3, 4), (2,))
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def energy(values: list[nn.Parameter]) -> torch.Tensor:
    return sum(((v - 0.3).square() * (1 + v.sin())).sum() for v in values)


def descended(schedule: bool = True) -> list[nn.Parameter]:
    ours = parameters()
    optimiser = Adam(ours, BETAS)
    for step in range(STEPS):
        energy(ours).backward()
        optimiser.step(cosine(RATE, step / STEPS) if schedule else RATE)
    return ours


@pytest.mark.parametrize("schedule", [False, True])
def test_twenty_steps_are_those_of_torch(schedule):
    theirs = parameters()
    optimiser = torch.optim.Adam(theirs, lr=RATE, betas=BETAS)
    cosine_annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS, 0.1 * RATE)
    for _ in range(STEPS):
        optimiser.zero_grad()
        energy(theirs).backward()
        optimiser.step()
        if schedule:
            cosine_annealing.step()
    for a, b in zip(descended(schedule), theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-13)


def test_the_same_start_gives_the_same_bytes():
    for a, b in zip(descended(), descended(), strict=True):
        assert torch.equal(a, b)


def test_a_step_forgets_the_gradients_and_leaves_frozen_parameters_alone():
    free, frozen = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3), requires_grad=False)
    optimiser = Adam([free, frozen])
    free.sum().backward()
    optimiser.step(0.1)
    assert free.grad is None and torch.equal(frozen, torch.ones(3))
    assert torch.allclose(free, torch.full((3,), 0.9))
