"""Kinds of volumes that clinics have: parts of a body, thick slices, stacks, fine and coarse grids, lost tissue."""

import numpy as np
import pytest
import torch
from neuralreg import pipeline
from neuralreg.image import Grid, Image
from neuralreg.metrics import tre
from neuralreg.phantom import Phantom, make_phantom

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
def test_half_a_head_and_a_whole_one(head, part):
    found = register(head, **{part: upper_half(getattr(head, part))}, affine="affine")
    inside = float(head.fixed.grid.center[2]) + 16.0  # the deformation carries points across the cut
    before, after = errors(found, head, lambda points: points[2] > inside)
    assert after < 0.8 * before and no_folds(found)


def with_blob(image: Image, value: float, radius_mm: float = 15.0) -> Image:
    """A bright tumour, or a cavity, painted into the white matter of one side."""
    place = torch.tensor([26.0, -12.0, 22.0], dtype=torch.float64).view(3, 1, 1, 1)
    distance = (image.grid.points() - place).norm(dim=0)
    return Image(torch.where(distance < radius_mm, torch.tensor(value), image.data), image.grid)


@pytest.fixture(scope="module")
def healthy(head) -> pipeline.Registration:
    return register(head)


@pytest.fixture(scope="module", params=["fixed", "moving"])
def where(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=[0.0, 1800.0], ids=["resection", "tumour"])
def lesion(request, head, where) -> Image:
    """The image of one side with a lesion in it."""
    return with_blob(getattr(head, where), request.param)


@pytest.fixture(scope="module")
def bare(head, where, lesion) -> pipeline.Registration:
    """Registered with a lesion in one image, without a mask."""
    return register(head, **{where: lesion})


def test_tissue_that_one_image_lacks_does_not_tear_the_field(head, bare):
    """Without any mask the volume of no voxel changes more than fivefold, and the rest of the brain fits."""
    jacobian = bare.jacobian.data
    assert float(jacobian.min()) > 0.2 and float(jacobian.max()) < 5.0 and no_folds(bare)
    before, after = errors(bare, head, lambda points: points[0] < 0)
    assert after < 0.6 * before


def test_a_mask_around_lost_tissue_spares_what_lies_beside_it(head, where, lesion, bare, healthy):
    """With the mask the neighbourhood fits nearly as well as if nothing were lost; without it, it does not."""
    mask = Image(torch.ones_like(lesion.data), lesion.grid)
    mask.data[with_blob(mask, 0.0).data == 0] = 0
    place = torch.tensor([26.0, -12.0, 22.0], dtype=torch.float64).view(3, 1)
    beside = lambda points: (points - place).norm(dim=0) < 32.0  # noqa: E731
    masked = register(head, **{where: lesion, f"{where}_mask": mask})
    of_masked, of_bare, of_healthy = (errors(found, head, beside)[1] for found in (masked, bare, healthy))
    assert of_masked < 0.75 * of_bare and of_masked < 1.5 * of_healthy


def test_masks_restrict_the_metric_not_the_field(head):
    """Where the mask ends the field goes on, smoothly: it is no field that stops at the mask's border."""
    mask = Image(torch.zeros_like(head.fixed.data), head.fixed.grid)
    mask.data[0, :, :, : head.fixed.grid.shape[2] // 2] = 1
    found = register(head, fixed_mask=mask)
    moved = (found.transform(head.fixed.grid.points()) - head.fixed.grid.points()).norm(dim=0)
    beyond = moved[:, :, head.fixed.grid.shape[2] // 2 + 2]
    assert float(beyond.max()) > 1.0 and no_folds(found)
    assert found.jacobian.data.shape == head.fixed.data.shape
