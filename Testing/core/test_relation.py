"""Whether two images are of one contrast: laws of what their joint histogram says, and what `auto` makes of it."""

import numpy as np
import pytest
import torch
from neuralreg import metrics, pipeline
from neuralreg.image import Grid, Image
from neuralreg.phantom import make_phantom
from neuralreg.preprocess import make_pair, working_grid
from neuralreg.transform import Affine

SHAPE = (24, 26, 28)
RANDOM = np.random.default_rng(0)
X = torch.from_numpy(RANDOM.random(SHAPE))
NOISE = torch.from_numpy(0.02 * RANDOM.normal(size=SHAPE))
EVERYWHERE = torch.ones(SHAPE, dtype=torch.bool)


def relation(y, x=X, mask=EVERYWHERE):
    return metrics.relation(x, y, mask)


def test_correlation_ratio_and_information_equal_their_definitions():
    y = (2 * X - 1) ** 2 + NOISE
    edges = [np.linspace(*np.quantile(v.numpy(), (0.005, 0.995)), 33)[1:-1] for v in (X, y)]
    rows, columns = (np.digitize(v.numpy().ravel(), e) for v, e in zip((X, y), edges, strict=True))
    spread = [columns[rows == k].var() * (rows == k).sum() for k in range(32)]
    plain = 1 - sum(spread) / (columns.var() * columns.size)
    counts = np.histogram2d(rows, columns, bins=(range(33), range(33)))[0] / rows.size
    entropy = lambda p: -(p[p > 0] * np.log(p[p > 0])).sum()  # noqa: E731
    information = (entropy(counts.sum(0)) + entropy(counts.sum(1))) / entropy(counts)
    found = relation(y)
    assert found.explained == pytest.approx(plain, abs=0.005) and plain > 0.9
    assert found.information == pytest.approx(information, rel=0.01)
    assert found.correlation == pytest.approx(np.corrcoef(rows, columns)[0, 1], abs=0.01)


@pytest.mark.parametrize("change", [lambda v: 40 * v - 7, lambda v: 0.001 * v + 3.0])
def test_neither_scale_nor_order_matters(change):
    y = X.sqrt() + NOISE
    reference, scaled, swapped = relation(y), relation(change(y)), relation(X, x=y)
    for other in (scaled, swapped):
        for name in ("correlation", "explained", "information", "linearity"):
            assert getattr(other, name) == pytest.approx(getattr(reference, name), abs=0.01)


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (lambda x: 0.7 * x + 0.2, 0.99, 1.0), (lambda x: x**0.5, 0.9, 1.0), (lambda x: x**2, 0.9, 1.0),
        (lambda x: (2 * x - 1) ** 2, 0.0, 0.05), (lambda x: torch.sin(8 * x), 0.0, 0.3), (lambda x: 1 - x, 0.0, 0.0),
    ],
)  # fmt: skip
def test_lines_are_told_from_other_functions_however_badly_the_images_fit(function, low, high):
    """A share of voxels that meet a wrong partner, as where two brains are not aligned yet, changes nothing."""
    shuffled = X.flatten()[torch.from_numpy(RANDOM.permutation(X.numel()))].view(SHAPE)
    for share in (0.0, 0.3, 0.6):
        partner = torch.where(torch.from_numpy(RANDOM.random(SHAPE)) < share, shuffled, X)
        found = relation(function(partner) + NOISE)
        assert low <= found.linearity <= high
        assert found.explained >= found.correlation**2 - 0.01
        assert found.explained == pytest.approx((1 - share) ** 2, abs=0.06)


def test_chance_explains_nothing_and_nothing_is_no_relation():
    for seed in range(1, 6):
        y = torch.from_numpy(np.random.default_rng(seed).random(SHAPE))
        few = torch.zeros(SHAPE, dtype=torch.bool)
        few[:8, :8, :8] = True
        assert relation(y).explained < 0.005 and relation(y).linearity == 0
        assert relation(y, mask=few).explained < 0.1
    assert relation(X, mask=~EVERYWHERE) is None and relation(torch.ones(SHAPE)) is None


def test_only_what_the_mask_holds_is_seen():
    y = torch.where(torch.arange(SHAPE[0]).view(-1, 1, 1) < 12, X, 1 - X)
    half = EVERYWHERE.clone()
    half[12:] = False
    assert relation(y, mask=half).linearity > 0.99 > 0.2 > relation(y).linearity
    assert relation(y, mask=~half).linearity == 0


@pytest.fixture(scope="module")
def heads():
    grid = Grid.from_parts((44, 54, 42), (-75, -92, -70), (3.5, 3.5, 3.5))
    one = make_phantom(grid, amplitude_mm=12.0)
    return one.fixed, one.moving, make_phantom(grid, amplitude_mm=12.0, contrasts=("T1", "T2")).moving


def bright_ball(image):
    near = (image.grid.points() - torch.tensor([25.0, 0, 10]).view(3, 1, 1, 1)).norm(dim=0) < 20
    return torch.where(near, 1.7 * image.data, image.data)


CHANGES = {
    "none": lambda image: image.data,
    "bias field": lambda image: image.data * torch.exp(0.4 * torch.sin(image.grid.points()[1] / 40)).float(),
    "gamma": lambda image: 900 * (image.data / 900).clamp(min=0) ** 0.6,
    "enhanced": bright_ball,
    "noise": lambda image: (
        (image.data + 120 * torch.randn(image.data.shape, generator=torch.Generator().manual_seed(0)))
        * (image.data > 5)
    ),
    "scaled": lambda image: 0.01 * image.data - 3,
    "half a head": lambda image: image.data[:, 21:],
}


@pytest.mark.parametrize("change", CHANGES)
def test_auto_sees_one_contrast_through_what_scanners_do_to_it(heads, change):
    fixed, moving, other = heads
    for image, wanted in ((moving, "lncc"), (other, "nmi")):
        data = CHANGES[change](image)
        grid = image.grid if data.shape == image.data.shape else image.grid.cropped((0, 0, 21), image.grid.size)
        pair = make_pair(fixed, Image(data.float(), grid), Affine.identity(), working_grid(fixed, 10**6))
        warnings = []
        compared, why = pipeline._similarity("auto", pair, warnings)
        assert compared == wanted and "joint histogram" in why and bool(warnings) == (wanted == "nmi")


def test_auto_takes_an_inverted_contrast_for_another_one(heads):
    fixed, moving, _ = heads
    turned = Image(torch.where(moving.data > 50, 1000 - moving.data, moving.data * 0), moving.grid)
    pair = make_pair(fixed, turned, Affine.identity(), working_grid(fixed, 10**6))
    assert pipeline._similarity("auto", pair, [])[0] == "nmi"


def test_auto_without_content_compares_locally(heads):
    blank = Image(torch.zeros_like(heads[0].data), heads[0].grid)
    pair = make_pair(heads[0], blank, Affine.identity(), heads[0].grid)
    assert pipeline._similarity("auto", pair, [])[0] == "lncc"
