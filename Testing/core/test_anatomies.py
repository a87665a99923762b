"""Kinds of volumes that clinics have: parts of a body, thick slices, stacks, fine and coarse grids, lost tissue."""

import numpy as np
import pytest
import torch
from neuralreg import pipeline
from neuralreg.image import Grid, Image
from neuralreg.metrics import tre
from neuralreg.phantom import Phantom, make_phantom
from neuralreg.transform import Affine

QUICK = {
    "image_factors": [2, 1],
    "velocity_factors": [2, 2],
    "iterations": [30, 25],
    "windows": [5, 5],
    "strides": [1, 1],
}


def register(phantom: Phantom, fixed=None, moving=None, **settings) -> pipeline.Registration:
    images = (phantom.fixed if fixed is None else fixed, phantom.moving if moving is None else moving)
    return pipeline.register(*images, **{"affine": "none", "threads": 1, "options": QUICK, **settings})


def errors(found: pipeline.Registration, phantom: Phantom, keep=lambda points: points[0] == points[0]) -> list[float]:
    """Mean distance from the truth before and after, of the landmarks that `keep` chooses."""
    fixed, moving = phantom.landmarks(200)
    chosen = keep(fixed)
    after = tre(found.transform, fixed[:, chosen], moving[:, chosen]).mean()
    return [float((fixed - moving)[:, chosen].norm(dim=0).mean()), float(after)]


def no_folds(found: pipeline.Registration) -> bool:
    values = found.metrics
    return values["folds_in_view"] == 0 and values["non_diffeomorphic_volume_voxels"] == 0


GRIDS = {  # size, spacing in mm
    "thick slices": ((72, 88, 22), (2.0, 2.0, 6.0)),
    "stack of few slices": ((64, 76, 9), (2.2, 2.2, 15.0)),
    "coarse": ((28, 34, 26), (5.0, 5.0, 5.0)),
    "fine": ((40, 48, 36), (0.3, 0.3, 0.3)),
}


@pytest.mark.parametrize("kind", GRIDS)
def test_lattices_of_clinics(kind):
    """The error falls whatever the voxels measure; the phantom fills the lattice, its deformation in proportion."""
    size, spacing = GRIDS[kind]
    origin = -(np.array(size) - 1) * spacing / 2
    phantom = make_phantom(Grid.from_parts(size, origin, spacing))
    found = register(phantom)
    before, after = errors(found, phantom)
    assert after < 0.75 * before and no_folds(found)


@pytest.fixture(scope="module")
def head() -> Phantom:
    return make_phantom(Grid.from_parts((36, 44, 34), (-68, -86, -64), (3.9, 4.0, 3.9)), amplitude_mm=12.0)


def upper_half(image: Image) -> Image:
    """What a scan that begins in the middle of the head shows."""
    middle = image.grid.shape[0] // 2
    return Image(image.data[:, middle:], image.grid.cropped((0, 0, middle), image.grid.size))


@pytest.mark.parametrize("part", ["fixed", "moving"])
@pytest.mark.parametrize("affine", ["none", "affine"])
def test_half_a_head_and_a_whole_one(head, part, affine):
    found = register(head, **{part: upper_half(getattr(head, part))}, affine=affine)
    inside = float(head.fixed.grid.center[2]) + 16.0  # the deformation carries points across the cut
    before, after = errors(found, head, lambda points: points[2] > inside)
    assert after < 0.8 * before and no_folds(found)


def with_blob(image: Image, value: float, radius_mm: float = 15.0) -> Image:
    """A bright tumour, or a cavity, painted into the white matter of one side."""
    place = torch.tensor([26.0, -12.0, 22.0], dtype=torch.float64).view(3, 1, 1, 1)
    distance = (image.grid.points() - place).norm(dim=0)
    return Image(torch.where(distance < radius_mm, torch.tensor(value), image.data), image.grid)


@pytest.mark.parametrize("value", [0.0, 1800.0], ids=["resection", "tumour"])
@pytest.mark.parametrize("where", ["fixed", "moving"])
def test_tissue_that_one_image_lacks_does_not_tear_the_field(head, value, where):
    """Without any mask the volume of no voxel changes more than fivefold, and the rest of the brain fits."""
    found = register(head, **{where: with_blob(getattr(head, where), value)})
    jacobian = found.jacobian.data
    assert float(jacobian.min()) > 0.2 and float(jacobian.max()) < 5.0 and no_folds(found)
    before, after = errors(found, head, lambda points: points[0] < 0)
    assert after < 0.6 * before


@pytest.mark.parametrize("value", [0.0, 1800.0], ids=["resection", "tumour"])
@pytest.mark.parametrize("where", ["fixed", "moving"])
def test_a_mask_around_lost_tissue_spares_what_lies_beside_it(head, value, where):
    """With the mask the neighbourhood fits nearly as well as if nothing were lost; without it, it does not."""
    image = getattr(head, where)
    lesion, mask = with_blob(image, value), Image(torch.ones_like(image.data), image.grid)
    mask.data[with_blob(mask, 0.0).data == 0] = 0
    place = torch.tensor([26.0, -12.0, 22.0], dtype=torch.float64).view(3, 1)
    beside = lambda points: (points - place).norm(dim=0) < 32.0  # noqa: E731
    healthy, bare, masked = (
        errors(register(head, **settings), head, beside)[1]
        for settings in ({}, {where: lesion}, {where: lesion, f"{where}_mask": mask})
    )
    assert masked < 0.75 * bare and masked < 1.5 * healthy


def test_masks_restrict_the_metric_not_the_field(head):
    """Where the mask ends the field goes on, smoothly: it is no field that stops at the mask's border."""
    mask = Image(torch.zeros_like(head.fixed.data), head.fixed.grid)
    mask.data[0, :, :, : head.fixed.grid.shape[2] // 2] = 1
    found = register(head, fixed_mask=mask)
    moved = (found.transform(head.fixed.grid.points()) - head.fixed.grid.points()).norm(dim=0)
    beyond = moved[:, :, head.fixed.grid.shape[2] // 2 + 2]
    assert float(beyond.max()) > 1.0 and no_folds(found)
    assert found.jacobian.data.shape == head.fixed.data.shape


def test_initial_transforms_are_composed_not_resampled(head):
    """A grid transform as the start stays as it was given, number by number, at the head of the result."""
    truth = head.moving_from_fixed
    part = truth.displacement(head.fixed.grid)
    start = Affine(np.diag([1.01, 0.99, 1.0, 1.0])) @ part
    found = register(head, initial_transform=start, options={**QUICK, "iterations": [3, 3]})
    assert found.transform.transforms[:2] == start.transforms
    assert torch.equal(found.transform.transforms[1].mm, part.mm)
