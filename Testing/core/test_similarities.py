"""Similarities across contrasts: plain float64 references, closed forms, and every method that optimises with each."""

import math

import numpy as np
import pytest
import torch
from neuralreg import losses, pipeline
from neuralreg.image import Grid
from neuralreg.losses import similarities
from neuralreg.metrics import tre
from neuralreg.phantom import make_phantom
from scipy.interpolate import BSpline
from scipy.ndimage import uniform_filter


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    fixed, other = (torch.rand(1, 1, 14, 15, 16, generator=random, dtype=torch.float64) for _ in range(2))
    return fixed, 0.6 * other + 0.4 * fixed.square()


def plain_joint_histogram(fixed: np.ndarray, warped: np.ndarray, bins: int = 32) -> np.ndarray:
    """Linear kernels for the fixed image and cubic B-splines for the warped one (Mattes)."""
    places = np.arange(bins)
    linear = np.maximum(1 - np.abs(fixed.ravel()[:, None] * (bins - 1) - places), 0)
    spline = BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)
    cubic = np.nan_to_num(spline(warped.ravel()[:, None] * (bins - 4) + 1.5 - places))
    return linear.T @ cubic / fixed.size


def entropy(probabilities: np.ndarray) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


@pytest.mark.parametrize("normalised", [False, True])
def test_mutual_information_equals_its_definition(images, normalised):
    joint = plain_joint_histogram(*(image.numpy() for image in images))
    apart, together = entropy(joint.sum(0)) + entropy(joint.sum(1)), entropy(joint)
    expected = -apart / together if normalised else together - apart
    assert float(losses.mi(*images, normalised=normalised)) == pytest.approx(expected, rel=1e-4)


def test_mind_equals_its_definition(images):
    """Away from the border, where the two paddings differ."""

    def descriptor(image: np.ndarray) -> np.ndarray:
        steps = [np.array(step) for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])]
        pairs = [(a, b) for i, a in enumerate(steps) for b in steps[:i] if round(((a - b) ** 2).sum()) == 2]
        at = lambda step: np.roll(image, tuple(-2 * step), axis=(0, 1, 2))  # noqa: E731
        distances = np.stack([uniform_filter((at(a) - at(b)) ** 2, 3) for a, b in pairs])[:, 4:-4, 4:-4, 4:-4]
        assert len(pairs) == 12
        distances -= distances.min(axis=0)
        return np.exp(-distances / distances.mean(axis=0))

    for image in images:
        found = similarities.mind_descriptor(image)[0, :, 4:-4, 4:-4, 4:-4].numpy()
        expected = descriptor(image[0, 0].numpy())
        assert np.abs(np.sort(found, axis=0) - np.sort(expected, axis=0)).max() < 1e-6


def test_local_gradient_equals_its_definition(images):
    def direction(image: torch.Tensor) -> np.ndarray:
        summed = np.stack([uniform_filter(part, 7) for part in np.gradient(image[0, 0].numpy())])[:, 4:-4, 4:-4, 4:-4]
        return summed / np.linalg.norm(summed, axis=0)

    expected = np.abs((direction(images[0]) * direction(images[1])).sum(0))
    weight = torch.zeros_like(images[0])
    weight[:, :, 4:-4, 4:-4, 4:-4] = 1
    assert float(losses.local_gradient(*images, weight)) == pytest.approx(-expected.mean(), rel=1e-3)


@pytest.mark.parametrize("degrees", [0, 30, 90, 150, 180])
def test_local_gradient_of_two_ramps_is_the_cosine_between_them(degrees):
    """Without its sign: an edge from dark to bright may be one from bright to dark in another contrast."""
    x, y = torch.meshgrid(*[torch.linspace(0, 1, 18, dtype=torch.float64)] * 2, indexing="ij")
    angle = math.radians(degrees)
    ramps = (x.expand(18, 18, 18)[None, None], (x * math.cos(angle) + y * math.sin(angle)).expand(1, 1, 18, 18, 18))
    assert float(losses.local_gradient(*ramps)) == pytest.approx(-abs(math.cos(angle)), abs=1e-4)


STAGES = {"image_factors": [1], "velocity_factors": [2], "iterations": [24], "windows": [5], "strides": [1]}
METHODS = {
    "DNVF": STAGES,
    "Cas-DNVF": STAGES,
    "VoxelMorph": {"refine": 6, "refine_spacing": 8.0},
    "FNOReg": {"refine": 20, "refine_spacing": 8.0},
}


@pytest.fixture(scope="module")
def pair():
    return make_phantom(Grid.from_parts((24, 26, 22), (-70, -85, -60), (5.8, 6.5, 5.4)), amplitude_mm=10.0)


@pytest.mark.parametrize("similarity", ["nmi", "mind", "local_gradient"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_optimises_takes_every_similarity(pair, method, similarity):
    found = pipeline.register(
        pair.fixed, pair.moving, method, similarity=similarity, affine="none", threads=1, options=METHODS[method]
    )
    assert found.similarity == similarity and np.isfinite([value for _, _, value in found.loss]).all()
    assert found.metrics["folds_in_view"] == 0 and found.metrics["non_diffeomorphic_volume_voxels"] == 0
    fixed, moving = pair.landmarks(100)
    assert float(tre(found.transform, fixed, moving).mean()) < float((fixed - moving).norm(dim=0).mean())
