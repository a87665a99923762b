"""The painted CT of the benchmark across contrasts, on a small phantom."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from neuralreg import pipeline
from neuralreg.image import Grid, resample
from neuralreg.phantom import make_phantom
from neuralreg.preprocess import make_pair, working_grid
from neuralreg.transform import Affine

# By its path: with the folder Testing on sys.path, slicer-core would take Testing/slicer for a part of itself.
FILE = Path(__file__).parents[1] / "benchmark" / "painted_ct.py"
SPEC = importlib.util.spec_from_file_location("painted_ct", FILE)
painted_ct = importlib.util.module_from_spec(SPEC)
sys.modules["painted_ct"] = painted_ct
SPEC.loader.exec_module(painted_ct)

TISSUES = {painted_ct.WHITE: (2, 8), painted_ct.FLUID: (3,)}  # of the phantom
GRID = Grid.from_parts((34, 44, 32), (-66, -86, -62), (4.0, 4.0, 4.0))


@pytest.fixture(scope="module")
def pair():
    """A T1, the CT of the same head bent by 11 mm, with room for the skull, and the phantom of both."""
    phantom = make_phantom(GRID, amplitude_mm=11.0)
    around = GRID.cropped((-6, -6, -6), np.array(GRID.size) + 6)
    labels = resample(phantom.moving_labels, lambda points: points, around, "nearest")
    return phantom, labels, painted_ct.painted_ct(labels, TISSUES, seed=0)


def test_tissues_bone_skin_and_air_lie_where_they_belong(pair):
    _, labels, ct = pair
    names, values = labels.data[0], ct.data[0]
    deep = torch.nn.functional.max_pool3d((names != 2).float()[None], 3, 1, 1)[0] == 0
    assert float(values[deep].mean()) == pytest.approx(painted_ct.WHITE, abs=2)
    assert 5 < float(values[deep].std()) < 15
    edge = torch.cat([values[[0, -1]].flatten(), values[:, [0, -1]].flatten(), values[:, :, [0, -1]].flatten()])
    assert float(edge.mean()) == pytest.approx(painted_ct.AIR, abs=5)
    middle = [n // 2 for n in values.shape]
    outwards = (values[middle[0], middle[1], middle[2] :], values[middle[0] :, middle[1], middle[2]])
    for line in outwards:
        first = {name: int(torch.nonzero(line > 400)[0]) if name == "bone" else int(torch.nonzero(line < -400)[0])
                 for name in ("bone", "air")}  # fmt: skip
        assert 0 < first["bone"] < first["air"], "a ray from the brain meets bone before it meets air"


def test_auto_tells_it_from_an_mr_and_its_tissues_keep_apart(pair):
    phantom, labels, ct = pair
    grid = working_grid(phantom.fixed, 10**6)
    together = make_pair(phantom.fixed, ct, Affine.identity(), grid)
    assert pipeline._similarity("auto", together, [])[0] == "nmi"
    seen = make_pair(phantom.fixed, ct, Affine.identity(), ct.grid).moving.data[0]
    levels = {label: float(seen[labels.data[0] == label].median()) for label in (1, 2, 3)}  # grey, white, fluid
    assert levels[1] - levels[2] > 0.02 and levels[2] - levels[3] > 0.02, "linearly 0.005 and 0.012"
