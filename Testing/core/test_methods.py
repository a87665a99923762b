"""Every method through the same contract: it finds a known deformation, never folds, obeys, and repeats itself."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from geometry import tilted_grid
from neuralreg import methods, optimise, pipeline
from neuralreg.image import Grid
from neuralreg.job import Cancelled, Monitor, RegistrationError
from neuralreg.methods import METHODS, PRESETS, describe, make_method, suited, work
from neuralreg.methods.start import FreeVelocity
from neuralreg.metrics import tre
from neuralreg.networks.siren import EncodedSiren
from neuralreg.optimise import Energy, Fit, Level, Stage, _Side
from neuralreg.phantom import make_phantom
from neuralreg.preprocess import make_pair
from neuralreg.pyramid import Images
from neuralreg.transform import Affine

STAGES = {
    "iterations": (40, 40),
    "image_factors": (2.0, 1.0),
    "velocity_factors": (2.0, 2.0),
    "windows": (5, 5),
    "strides": (1, 1),
}
SMALL = {  # options that make a method quick enough for a phantom of 40³
    "DNVF": STAGES,
    "VoxelMorph": {"refine": 60, "refine_spacing": 4.0, "smoothness": 3.0},
    "FNOReg": {"refine": 60, "refine_spacing": 4.0, "smoothness": 3.0},
    "Cas-DNVF": STAGES,
}
DEFORMING = [name for name in METHODS if name != "Linear"]  # of which test_linear.py has the laws
each_method = pytest.mark.parametrize("name", DEFORMING)


@pytest.fixture(scope="module")
def phantom():
    """A known deformation on an oblique, anisotropic lattice: a swapped axis or direction cannot lower its TRE."""
    return make_phantom(tilted_grid((40, 44, 34), (4.0, 4.2, 4.6)), amplitude_mm=14.0)


def register(phantom, name, **settings):
    settings = {"affine": "none", "threads": 1, "options": SMALL[name], **settings}
    return pipeline.register(phantom.fixed, phantom.moving, name, **settings)


@pytest.fixture(scope="module")
def results(phantom):
    return {name: register(phantom, name) for name in DEFORMING}


@each_method
def test_lowers_the_error_of_a_known_deformation(phantom, results, name):
    fixed, moving = phantom.landmarks(80)
    before = float((fixed - moving).norm(dim=0).mean())
    after = float(tre(results[name].transform, fixed, moving).mean())
    assert before > 2.0 and after < 0.4 * before


@pytest.mark.parametrize("name", ["VoxelMorph", "FNOReg"])
def test_one_pass_of_a_shipped_network_lowers_the_error_by_itself(phantom, name):
    """The refinement would mend a network that is shown the images in the wrong order."""
    fixed, moving = phantom.landmarks(80)
    before = float((fixed - moving).norm(dim=0).mean())
    alone = register(phantom, name, options={"refine": 0})
    assert float(tre(alone.transform, fixed, moving).mean()) < 0.8 * before


@each_method
def test_result_is_a_diffeomorphism_with_its_inverse(results, name):
    metrics = results[name].metrics
    assert metrics["folds_in_view"] == 0 and metrics["non_diffeomorphic_volume_voxels"] == 0
    assert metrics["inverse_consistency_mean_mm"] < 0.1
    assert metrics["ncc_after"] > metrics["ncc_before"] + 0.02


@each_method
def test_field_falls_to_zero_at_its_border(results, name):
    field = next(part for part in results[name].transform.transforms if hasattr(part, "mm"))
    for dim in (1, 2, 3):
        for end in (0, -1):
            assert field.mm.select(dim, end).abs().max() < 1e-5  # mm: rounding of a composition


def test_inputs_are_left_alone(phantom, results):
    fresh = make_phantom(phantom.fixed.grid, amplitude_mm=14.0)
    assert torch.equal(fresh.fixed.data, phantom.fixed.data) and torch.equal(fresh.moving.data, phantom.moving.data)


class Watching(Monitor):
    def __init__(self, cancel_at=2.0, stop_at=2.0):
        self.cancel_at, self.stop_at, self.seen, self.previews = cancel_at, stop_at, [], []

    def report(self, progress):
        self.seen.append(progress)

    def cancelled(self):
        return bool(self.seen) and self.seen[-1].fraction >= self.cancel_at

    def stop_and_keep(self):
        return bool(self.seen) and self.seen[-1].fraction >= self.stop_at

    def preview(self, warped):
        self.previews.append(warped)


@each_method
def test_same_seed_same_bytes_and_being_watched_changes_nothing(phantom, results, name):
    """Progress and previews are for whoever watches."""
    monitor = Watching()
    watched = register(phantom, name, monitor=monitor)
    for ours, theirs in ((watched.warped, results[name].warped), (watched.jacobian, results[name].jacobian)):
        assert torch.equal(ours.data, theirs.data)
    fractions = [p.fraction for p in monitor.seen]
    assert fractions == sorted(fractions) and fractions[-1] <= 1.0
    assert any(p.loss is not None for p in monitor.seen)
    assert monitor.previews and np.allclose(monitor.previews[0].grid.direction, phantom.fixed.grid.direction)


@each_method
def test_cancel_ends_without_a_result(phantom, name):
    with pytest.raises(Cancelled):
        register(phantom, name, monitor=Watching(cancel_at=0.3))


@each_method
def test_stop_and_keep_returns_what_was_reached(phantom, name, results):
    stopped = register(phantom, name, monitor=Watching(stop_at=0.4))
    assert stopped.stopped_early and len(stopped.loss) < len(results[name].loss)
    assert stopped.metrics["ncc_after"] > stopped.metrics["ncc_before"]


def test_stop_keeps_the_best_field_and_not_the_last(monkeypatch):
    """A rate that grows far too large spoils the fit; what is kept has the lowest loss that was seen."""
    monkeypatch.setattr(optimise, "cosine", lambda rate, share: 0.3 if share < 0.3 else 100.0)
    grid = Grid.from_parts((24, 26, 22), (0.0, 0.0, 0.0), (6.0, 6.0, 6.0))
    phantom = make_phantom(grid, amplitude_mm=10.0)
    fit = Fit(make_pair(phantom.fixed, phantom.moving, Affine.identity(), grid).images("cpu"), Energy())
    fit.monitor = Watching(stop_at=0.5)
    level = Level(1.0, 2.0, 60)
    fit.run([Stage(FreeVelocity, [level])])
    mm = torch.full((3,), 12.0)
    looks = [value for _, iteration, value in fit.curve if (iteration + 1) % 5 == 0]
    assert fit.stopped and looks[-1] > min(looks)
    forward, backward = _Side(fit.images, fit.energy, level, mm), _Side(fit.images.swapped(), fit.energy, level, mm)
    kept = (forward(fit.chain.forward, 0)[0] + backward(fit.chain.inverse, 0)[0]) / 2
    assert float(kept) == pytest.approx(min(looks), abs=0.02)


def test_stop_after_a_divergence_keeps_the_map_before_it(monkeypatch):
    """A rate that makes the very first look at a level not a number: there is nothing of that level to keep."""
    monkeypatch.setattr(optimise, "cosine", lambda rate, share: math.nan)
    grid = Grid.from_parts((24, 26, 22), (0.0, 0.0, 0.0), (6.0, 6.0, 6.0))
    phantom = make_phantom(grid, amplitude_mm=10.0)
    fit = Fit(make_pair(phantom.fixed, phantom.moving, Affine.identity(), grid).images("cpu"), Energy())
    fit.monitor = Watching(stop_at=0.0)
    level = Level(1.0, 2.0, 10)
    fit.run([Stage(FreeVelocity, [level])])
    assert fit.stopped and float(fit.chain.forward.abs().max()) == 0.0


def test_the_fit_and_dnvf_have_the_same_defaults():
    options = make_method("DNVF", "balanced")
    defaults = {field.name: field.default for kind in (Fit, Stage) for field in dataclasses.fields(kind)}
    for name in ("knots", "squarings", "rate"):
        assert defaults[name] == getattr(options, name)


def test_coefficients_of_thick_slices_are_no_thicker():
    thick = torch.zeros(1, 1, 9, 31, 41)
    fit = Fit(Images(thick, thick, None, None, (1.0, 1.0, 4.0)), Energy())
    assert fit.coefficients(Level(1.0, 1.0, 1)) == (9, 21, 28)


def fitted(images: Images, directions: str) -> Fit:
    torch.manual_seed(0)
    return Fit(images, Energy()).run([Stage(EncodedSiren, [Level(1.0, 2.0, 40, directions=directions)])])


def test_a_fit_imports_neither_the_compiler_of_torch_nor_sympy():
    """Some functions of torch import them when they are first used: the user would wait for them in every run."""
    code = (
        "import sys, torch; from neuralreg.optimise import Energy, Fit, Images, Level, Stage;"
        "from neuralreg.networks.siren import EncodedSiren; image = torch.rand(1, 1, 8, 8, 8);"
        "fit = Fit(Images(image, image.flip(4), None, None, (1.0, 1.0, 1.0)), Energy());"
        "fit.run([Stage(EncodedSiren, [Level(1, 1, 2)])]);"
        "print(len(fit.curve), {'sympy', 'torch._dynamo'} & sys.modules.keys())"
    )
    folder = str(methods.__file__).rsplit("neuralreg", 1)[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 set()"


@pytest.mark.parametrize("directions", ["both", "alternate", "forward"])
def test_swapping_the_images_swaps_the_map_and_its_inverse(directions):
    """Symmetric registration: which image is called fixed makes no difference, exactly so with `both`."""
    grid = Grid.from_parts((24, 26, 22), (0.0, 0.0, 0.0), (6.0, 6.0, 6.0))
    phantom = make_phantom(grid, amplitude_mm=10.0)
    images = make_pair(phantom.fixed, phantom.moving, Affine.identity(), grid).images("cpu")
    one, other = fitted(images, directions).chain, fitted(images.swapped(), directions).chain
    size = float(one.forward.square().sum(1).sqrt().max())
    difference = float((one.forward - other.inverse).square().sum(1).sqrt().max())
    assert size > 0.3  # voxels of 12 mm
    if directions == "both":
        assert difference < 0.01 * size
    else:
        assert difference > 0.01 * size  # so the law above is one that can be broken


@pytest.mark.parametrize("factor", [1.0, 1.5, 4.0])
def test_no_level_sees_what_a_mask_hides(factor):
    """Values behind the mask mix into no voxel, neither when an image is read between voxels nor when it is shrunk."""
    image, weight = torch.rand(1, 1, 20, 20, 20), torch.zeros(1, 1, 20, 20, 20)
    weight[..., 3:16, :, 8:] = 1
    levels = []
    for hidden in (0.0, 9.0):
        seen = torch.where(weight > 0, image, torch.tensor(hidden))
        levels.append(Images(seen, seen.flip(4), weight, weight.flip(4), (1.0, 1.0, 1.0)).at(factor))
    assert torch.equal(levels[0].fixed, levels[1].fixed) and torch.equal(levels[0].moving, levels[1].moving)


@pytest.mark.parametrize(("similarity", "finest"), [("mind", 2.0), ("lncc", 1.0)])
@each_method
def test_no_method_compares_more_descriptors_than_fit_into_memory(phantom, name, similarity, finest, monkeypatch):
    factors, at = [], Images.at
    monkeypatch.setattr(Images, "at", lambda images, factor: factors.append(factor) or at(images, factor))
    monkeypatch.setattr(optimise, "MIND_VOXELS", 10_000, raising=False)
    options = {key: (1, 1) if key == "iterations" else value for key, value in SMALL[name].items()}
    options |= {"refine": 1} if "refine" in options else {}
    register(phantom, name, similarity=similarity, options=options)
    assert min(factors) == finest


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_method(name, preset):
    assert dataclasses.is_dataclass(make_method(name, preset))


@pytest.mark.parametrize("name", METHODS)
def test_every_option_says_what_it_is(name):
    described = next(m for m in describe() if m["name"] == name)
    assert described["summary"].endswith(".")
    for option in described["options"]:
        assert option["help"] and option["type"] in ("int", "float", "str", "bool", "tuple", "choice")


def test_small_volumes_get_more_iterations_unless_the_user_said_how_many():
    small = suited("DNVF", "balanced", {"smoothness": 2.0}, "small")
    chosen = make_method("DNVF", "balanced", {"smoothness": 2.0, **small})
    assert sum(chosen.iterations) > sum(make_method("DNVF", "balanced").iterations) and chosen.smoothness == 2.0
    for name, preset, options, kind in [
        ("DNVF", "balanced", {"iterations": [1, 2, 3]}, "small"),
        ("DNVF", "balanced", {}, ""),
        ("DNVF", "fast", {"windows": [5, 5]}, "ct"),
        ("VoxelMorph", "balanced", {}, "small"),
    ]:
        assert suited(name, preset, options, kind) == {}


@pytest.mark.parametrize("kind", ["small", "ct"])
@pytest.mark.parametrize("preset", PRESETS)
def test_what_suits_a_kind_of_pair_makes_a_method(kind, preset):
    assert make_method("DNVF", preset, suited("DNVF", preset, None, kind)) != make_method("DNVF", preset)


@pytest.mark.parametrize("kind", ["", "small", "ct"])
def test_a_preset_that_takes_longer_does_not_do_less(kind):
    """The order that the names promise holds for every kind of pair."""
    costs = [work("DNVF", preset, None, kind) for preset in PRESETS]
    assert costs == sorted(costs) and costs[0] < costs[1]


def test_small_volumes_get_of_best_what_balanced_does():
    best, balanced = (make_method("DNVF", p, suited("DNVF", p, None, "small")) for p in ("best", "balanced"))
    assert best == balanced


def test_the_same_penalties_suit_two_cts_whatever_the_preset():
    chosen = [suited("DNVF", preset, None, "ct") for preset in PRESETS]
    assert len({(c["smoothness"], c["bending"], c["volume"]) for c in chosen}) == 1
    assert all(set(c["windows"]) == {7} for c in chosen)


@pytest.mark.parametrize("kind", ["", "small", "ct"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.4, 1.4, 2.5)])
def test_work_is_known_before_there_is_a_pair(kind, spacing):
    """What the estimate of time reckons with is what the fit counts on real lattices."""
    chosen = make_method("DNVF", "balanced", suited("DNVF", "balanced", None, kind))
    blank = torch.zeros(1, 1, 60, 90, 80)
    fit = Fit(Images(blank, blank, None, None, spacing), Energy())
    counted = sum(fit.cost(level) for stage in fit.suited(chosen._stages()) for level in stage.levels)
    assert work("DNVF", "balanced", None, kind, spacing) * blank.numel() == pytest.approx(counted, rel=0.1)
    longer = {"iterations": [2 * n for n in chosen.iterations]}
    assert work("DNVF", "balanced", longer) == pytest.approx(
        2 * work("DNVF", "balanced", {"iterations": chosen.iterations})
    )


def test_work_of_networks_is_that_of_their_refinement():
    assert work("VoxelMorph", "balanced") == 0 < work("VoxelMorph", "balanced", {"refine": 30})
    assert work("Linear", "best") == 0
    assert work("Cas-DNVF", "fast") < work("Cas-DNVF", "balanced") < work("DNVF", "best")


def test_the_table_needs_no_torch():
    code = "import sys, neuralreg.methods as m; m.describe(); m.make_method('DNVF', 'fast'); "
    code += "sys.exit('torch' in sys.modules)"
    folder = str(methods.__file__).rsplit("neuralreg", 1)[0]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("DNFV", {}, 'did you mean "DNVF"'),
        ("DNVF", {"smoothnes": 1.0}, 'did you mean "smoothness"'),
        ("DNVF", {"smoothness": "much"}, "must be a number"),
        ("DNVF", {"smoothness": -1.0}, "must lie between"),
        ("DNVF", {"smoothness": float("nan")}, "must lie between"),
        ("DNVF", {"iterations": [10]}, "one entry per stage"),
        ("DNVF", {"networks": ["unet"]}, "encoded"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(name, options, sentence):
    with pytest.raises(RegistrationError, match=sentence):
        make_method(name, "balanced", options)
