"""The implicit velocity networks: sizes, start, and that they are functions of position, not of a lattice."""

import pytest
import torch
import torch.nn.functional as F
from neuralreg.networks import siren
from neuralreg.networks.siren import EncodedSiren, Siren


def test_siren_of_the_paper_has_its_size():
    network = Siren(hidden=512, layers=5)
    expected = (3 * 512 + 512) + 3 * (512 * 512 + 512) + (512 * 3 + 3)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_siren_initialisation_bounds():
    network = Siren(hidden=64, layers=4, omega=30.0)
    assert network.layers[0].weight.abs().max() <= 1 / 3
    assert network.layers[1].weight.abs().max() <= (6 / 64) ** 0.5 / 30


def test_encoded_siren_starts_at_exactly_zero_with_gradients():
    network = EncodedSiren((9, 10, 11))
    velocity = network((9, 10, 11))
    assert velocity.shape == (1, 3, 9, 10, 11) and not velocity.any()
    velocity[..., 4, 5, 5].sum().backward()
    assert all(grid.grad.abs().max() > 0 for grid in network.grids)


@pytest.mark.parametrize("name", ["siren", "encoded"])
def test_velocity_is_one_function_whatever_the_lattice(name):
    """Every second voxel of a finer lattice with the same corners is a voxel of the coarser one."""
    torch.manual_seed(0)
    network = Siren(32, 4) if name == "siren" else EncodedSiren((9, 9, 9))
    if name == "encoded":
        for grid in network.grids:
            torch.nn.init.normal_(grid, std=0.3)
    coarse, fine = network((9, 9, 9)), network((17, 17, 17))[..., ::2, ::2, ::2]
    if name == "siren":  # its velocities are in voxels of the lattice; the encoded ones in voxels of their own
        coarse, fine = coarse / 9, fine / 17
    assert torch.allclose(coarse, fine, atol=1e-4)


def test_siren_can_learn_a_smooth_velocity():
    torch.manual_seed(0)
    network, shape = Siren(64, 3, omega=10.0), (8, 8, 8)
    z = torch.linspace(-1, 1, 8)
    target = torch.zeros(1, 3, *shape)
    target[0, 0] = torch.sin(3 * z)[:, None, None] * 0.3
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(150):
        loss = (network(shape) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.02 * target.square().mean()


@pytest.mark.parametrize("points", [1, 3 * 8 * 6, 10**6])
@pytest.mark.parametrize("shape", [(11, 8, 6), (17, 9, 5), (7, 6, 12)])
def test_slabs_have_the_values_and_gradients_of_the_formula(shape, points, monkeypatch):
    """V sin(W e(x) + b) with torch's trilinear interpolation and its gradients, in one slab or in many."""
    monkeypatch.setattr(siren, "SLAB_POINTS", points)
    torch.manual_seed(0)
    network = EncodedSiren((11, 8, 6)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    grids = [F.interpolate(grid, size=shape, mode="trilinear", align_corners=True) for grid in network.grids]
    phase = network.sine(torch.cat(grids, dim=1).flatten(2)[0].T)
    expected = network.out(torch.sin(phase)).T.view(1, 3, *shape)
    towards = torch.randn(1, 3, *shape, dtype=torch.float64)
    values = network(shape)
    assert torch.allclose(values, expected)
    ours, theirs = (torch.autograd.grad((y * towards).sum(), network.parameters()) for y in (values, expected))
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))
