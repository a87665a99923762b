"""The whole flow: what goes in, what comes out, and that it does not depend on how the patient lies in the world."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from neuralreg import api, methods, pipeline
from neuralreg.image import Grid, Image, resample
from neuralreg.job import Cancelled, Monitor, RegistrationError
from neuralreg.metrics import tre
from neuralreg.phantom import make_phantom, rotation
from neuralreg.transform import Affine, Composite, DisplacementField
from test_methods import SMALL

SETTINGS = {"options": SMALL["DNVF"], "threads": 1}


@pytest.fixture(scope="module")
def phantom():
    """A head that lies 12 mm and 9° away on a lattice of its own; both images axis-aligned (LPS)."""
    grid = Grid.from_parts((36, 42, 36), (-68, -90, -70), (4.0, 4.4, 4.2))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation([0.1, 0.4, 1.0], 9.0), (12.0, -7.0, 5.0)
    moving = Grid.from_parts((40, 44, 38), (-68, -104, -68), (4.2, 4.6, 4.4))
    return make_phantom(grid, moving, pose=Affine(pose), amplitude_mm=10.0)


@pytest.fixture(scope="module")
def expected(phantom):
    return pipeline.register(phantom.fixed, phantom.moving, **SETTINGS)


def test_affine_and_deformation_together_find_the_truth(phantom, expected):
    fixed, moving = phantom.landmarks(80)
    before, after = float((fixed - moving).norm(dim=0).mean()), float(tre(expected.transform, fixed, moving).mean())
    assert before > 10 and after < 1.5


def test_transform_is_affine_after_one_field(expected):
    first, last = expected.transform.transforms
    assert isinstance(first, Affine) and isinstance(last, DisplacementField)
    assert isinstance(expected.inverse, Composite)


def test_warped_is_the_moving_image_resampled_once(phantom, expected):
    again = resample(phantom.moving, expected.transform, phantom.fixed.grid, default=float(phantom.moving.data.min()))
    assert torch.equal(again.data, expected.warped.data) and expected.warped.grid.same_as(phantom.fixed.grid)


def test_what_the_moving_volume_does_not_show_is_as_dark_as_its_darkest_voxel(phantom):
    """Air around a CT, where 0 would be water."""
    fixed, moving = (Image(image.data.float() - 1000, image.grid) for image in (phantom.fixed, phantom.moving))
    still = {"image_factors": [4.0], "velocity_factors": [4.0], "iterations": [0], "windows": [5], "strides": [1]}
    away = np.eye(4)
    away[0, 3] = 60.0
    got = pipeline.register(fixed, moving, affine="none", initial_transform=Affine(away), options=still, threads=1)
    face = got.warped.data[0, :, :, -1]
    torch.testing.assert_close(face, torch.full_like(face, float(moving.data.min())))


def test_a_large_volume_is_registered_coarsely_said_so_and_answered_at_full_size(phantom, expected, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_VOXELS", expected.grid.points()[0].numel() // 4)
    got, grid = pipeline.register(phantom.fixed, phantom.moving, **SETTINGS), phantom.fixed.grid
    (note,) = [warning for warning in got.warnings if "registered at" in warning]
    spacing = got.grid.spacing
    assert spacing.min() > 1.4 * grid.spacing.min() and f"{spacing[0]:.2f} × {spacing[1]:.2f}" in note
    assert got.warped.grid.same_as(grid) and got.jacobian.grid.same_as(grid)
    points, _ = phantom.landmarks(80)
    apart = (got.transform(points) - expected.transform(points)).norm(dim=0).mean()
    assert float(apart) < spacing.min() / 2
    whole = got.transform.displacement(grid)
    assert whole.grid.same_as(grid) and torch.allclose(whole(points), got.transform(points), atol=1.0)


def test_a_turned_world_turns_the_result(phantom, expected):
    """Both headers made oblique by one rotation R: the transform becomes R ∘ φ ∘ R⁻¹. Rounding makes the affine stages
    differ by 0.01 mm, which a fit with few iterations on voxels of 4 mm carries on, most where nothing drives it."""
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = rotation([1.0, -0.5, 0.7], 25.0), (30.0, 10.0, -50.0)
    volumes = (phantom.fixed, phantom.moving)
    oblique = [Image(v.data, Grid(v.grid.shape, turn @ v.grid.world_from_index)) for v in volumes]
    got = pipeline.register(*oblique, **SETTINGS)
    points, _ = phantom.landmarks(200)
    turned = Affine(turn)
    error = (got.transform(turned(points)) - turned(expected.transform(points))).norm(dim=0)
    assert float(error.mean()) < 0.12 and float(error.quantile(0.9)) < 0.3


def test_metrics_say_what_happened(expected):
    values = expected.metrics
    for measure in ("ncc", "mutual_information"):
        assert values[f"{measure}_after"] > values[f"{measure}_before"]
    assert values["folds_in_view"] == 0 and values["non_diffeomorphic_volume_voxels"] == 0
    assert 0 < values["jacobian_min"] < values["jacobian_max"]
    assert values["inverse_consistency_mean_mm"] < 0.2
    assert set(expected.timings) == {"affine", "prepare", "deformable", "outputs", "metrics"}


def test_linear_initial_transform_starts_the_affine_stage(phantom):
    fixed, moving = phantom.landmarks(50)
    truth = phantom.moving_from_fixed.transforms[0]
    got = pipeline.register(phantom.fixed, phantom.moving, affine="none", initial_transform=truth, **SETTINGS)
    assert np.array_equal(got.transform.transforms[0].matrix, truth.matrix)
    assert float(tre(got.transform, fixed, moving).mean()) < 1.5


def test_deformable_initial_transform_is_composed_not_resampled(phantom, expected):
    quick = {**SETTINGS, "options": {**SMALL["DNVF"], "iterations": (10, 10)}}
    got = pipeline.register(phantom.fixed, phantom.moving, affine="none", initial_transform=expected.transform, **quick)
    fixed, moving = phantom.landmarks(50)
    assert got.transform.transforms[:2] == expected.transform.transforms
    assert float(tre(got.transform, fixed, moving).mean()) < 1.5


@pytest.mark.parametrize("folding", [True, False])
def test_a_folding_initial_transform_is_told(phantom, folding):
    """A shear of neighbouring slices against each other: central differences would not see it."""
    grid, mm = phantom.fixed.grid, torch.zeros(3, *phantom.fixed.grid.shape)
    mm[2, 10:20, 10:20, 10:20] = 1.3 * grid.spacing[2] * (torch.arange(10) % 2).view(-1, 1, 1) * (1 if folding else 0.1)
    start, given = Affine.identity() @ DisplacementField(mm, grid), pipeline._Given(phantom.fixed, phantom.moving)
    assert pipeline._align(given, "none", start) is start
    assert [("folds space" in w and "smooth it" in w) for w in given.warnings] == [True] * folding


@pytest.mark.parametrize("ends", ["beyond", "within", "at zero"])
def test_an_initial_field_that_ends_within_the_fixed_volume_is_told(phantom, ends):
    """Outside a field points stay where they are, so a shift that ends there tears or folds space: here it takes half
    of the fixed volume, or all of it."""
    fixed = phantom.fixed.grid
    grid = fixed.cropped((0, 0, 0), (fixed.size[0] // 2, *fixed.size[1:])) if ends == "within" else fixed
    mm = torch.full((3, *grid.shape), 0.0 if ends == "at zero" else -6.0)
    given = pipeline._Given(phantom.fixed, phantom.moving)
    pipeline._check_ends(Affine.identity() @ DisplacementField(mm, grid), fixed, given.warnings)
    assert [("ends within the fixed volume" in w and "10.4 mm" in w) for w in given.warnings] == [True] * (
        ends == "within"
    )


def test_a_mirroring_initial_transform_is_refused(phantom):
    """Left would become right. Two reflections are none."""
    given = pipeline._Given(phantom.fixed, phantom.moving)
    mirror, field = (
        Affine(np.diag([-1.0, 1.0, 1.0, 1.0])),
        DisplacementField(torch.zeros(3, 4, 4, 4), Grid((4, 4, 4), np.eye(4))),
    )
    for start in (mirror, mirror @ field):
        with pytest.raises(RegistrationError, match="left would become right"):
            pipeline._align(given, "none", start)
    assert pipeline._align(given, "none", mirror @ field @ mirror)


@pytest.mark.parametrize("name", ["fixed", "moving"])
def test_a_mask_of_a_lesion_that_was_meant_the_other_way_round_is_told(phantom, name):
    volume = getattr(phantom, name)
    lesion = Image(torch.zeros_like(volume.data), volume.grid)
    lesion.data[0, 14:22, 14:22, 14:22] = 1  # 512 voxels, near the middle of the head
    still = {"image_factors": [4.0], "velocity_factors": [4.0], "iterations": [0], "windows": [5], "strides": [1]}
    settings = {"affine": "none", "options": still, "threads": 1, f"{name}_mask": lesion}
    got = pipeline.register(phantom.fixed, phantom.moving, **settings)
    assert any(f"The {name} mask holds only" in note and "invert it" in note for note in got.warnings)
    lesion.data[0, 14:22, 14:22, 14] = 0
    with pytest.raises(RegistrationError, match=f"The {name} mask holds 448 voxels"):
        pipeline.register(phantom.fixed, phantom.moving, **settings)


def test_masks_restrict_the_comparison_not_the_field(phantom):
    """A bright artefact in the fixed image would pull the field; a mask without it does not."""
    fixed = Image(phantom.fixed.data.clone(), phantom.fixed.grid)
    fixed.data[0, 14:20, 18:24, 14:20] = 3000.0
    mask = Image(torch.ones_like(fixed.data), fixed.grid)
    mask.data[0, 12:22, 16:26, 12:22] = 0
    points, truth = phantom.landmarks(80)
    start = {"affine": "none", "initial_transform": phantom.moving_from_fixed.transforms[0], **SETTINGS}
    with_mask = pipeline.register(fixed, phantom.moving, fixed_mask=mask, **start)
    without = pipeline.register(fixed, phantom.moving, **start)
    errors = [float(tre(r.transform, points, truth).mean()) for r in (with_mask, without)]
    assert errors[0] < errors[1] and errors[0] < 1.6


def test_other_contrast_is_noticed_and_registered(phantom):
    other = make_phantom(phantom.fixed.grid, amplitude_mm=14.0, contrasts=("T1", "T2"))
    got = pipeline.register(other.fixed, other.moving, affine="none", **SETTINGS)
    assert got.similarity == "nmi" and any("contrast" in w for w in got.warnings)
    assert "different contrasts" in got.similarity_reason and "without a linear stage" in got.similarity_reason
    fixed, moving = other.landmarks(80)
    assert float(tre(got.transform, fixed, moving).mean()) < 0.8 * float((fixed - moving).norm(dim=0).mean())


@pytest.mark.parametrize("method", ["VoxelMorph", "FNOReg", "Cas-DNVF"])
def test_a_model_that_cannot_be_used_is_refused_before_any_work(phantom, tmp_path, monkeypatch, method):
    monkeypatch.setattr(pipeline, "register_affine", None)  # not to be called
    model = tmp_path / "model.pt"
    model.write_bytes(b"no model")
    with pytest.raises(RegistrationError, match=r"model\.pt"):
        pipeline.register(phantom.fixed, phantom.moving, method, threads=1, options={"model": str(model)})


class StopSoon(Monitor):
    """Keeps what there is as soon as the optimisation has begun."""

    def stop_and_keep(self):
        return True


def test_two_cts_get_a_smoother_deformation_unless_the_user_said_how_smooth(phantom, monkeypatch):
    monkeypatch.setattr(methods, "SMALL_VOXELS", 0)
    scans = [Image(v.data / v.data.max() * 1000 - 950, v.grid) for v in (phantom.fixed, phantom.moving)]
    soon = {"threads": 1, "monitor": StopSoon()}
    smooth = pipeline.register(*scans, **soon)
    assert smooth.options["bending"] > 0 and pipeline.SUITED["ct"] in smooth.warnings
    usual = pipeline.register(scans[0], phantom.moving, similarity="lncc", **soon)
    assert usual.options["bending"] == 0 and pipeline.SUITED["ct"] not in usual.warnings
    told = pipeline.register(*scans, options={"smoothness": 2.0}, **soon)
    assert told.options["smoothness"] == 2 and told.options["iterations"] == smooth.options["iterations"]


def test_identical_images_stay_where_they_are(phantom):
    got = pipeline.register(phantom.fixed, phantom.fixed, **SETTINGS)
    points, _ = phantom.landmarks(50)
    moved = (got.transform(points) - points).norm(dim=0)
    voxel = float(phantom.fixed.grid.spacing.max())
    assert float(moved.mean()) < 0.08 * voxel and float(moved.max()) < 0.25 * voxel


class CancelIn(Monitor):
    """Cancels as soon as a stage has begun."""

    def __init__(self, stage):
        self.stage, self.seen = stage, []

    def report(self, progress):
        self.seen.append((progress.stage, progress.fraction))

    def cancelled(self):
        return any(stage == self.stage for stage, _ in self.seen)


@pytest.mark.parametrize("stage", ["affine", "prepare", "deformable", "outputs", "metrics"])
def test_every_stage_can_be_cancelled(phantom, stage):
    quick = {**SETTINGS, "options": {**SMALL["DNVF"], "iterations": (1, 1)}, "affine": "rigid"}
    monitor = CancelIn(stage)
    with pytest.raises(Cancelled):
        pipeline.register(phantom.fixed, phantom.moving, monitor=monitor, **quick)
    assert monitor.seen[-1][0] == stage
    assert monitor.seen == sorted(monitor.seen, key=lambda seen: seen[1])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "VoxelMorf"}, "Unknown method"),
        ({"preset": "quick"}, "Unknown preset"),
        ({"similarity": "lnc"}, 'did you mean "lncc"'),
        ({"device": "gpu"}, "choices are auto, cpu, cuda, mps"),
        ({"affine": "afine"}, 'did you mean "affine"'),
        ({"device": "cuda"}, "cannot be used because"),
    ],
)
def test_wrong_settings_are_refused_with_a_sentence(phantom, settings, sentence):
    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this computer has a GPU, so asking for it is no mistake")
    with pytest.raises(RegistrationError, match=sentence):
        pipeline.register(phantom.fixed, phantom.moving, **settings)


@pytest.mark.parametrize(
    ("where", "said"), [("_fit", "use the preset fast"), ("_outputs", "for volumes of this size; resample or crop")]
)
def test_memory_that_ends_is_a_sentence_on_what_helps_at_that_stage(phantom, where, said, monkeypatch):
    """The preset decides about the fit only; a caller from Python hears it too."""

    def ends(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(pipeline, where, ends)
    quick = {"affine": "none", "options": {**SMALL["DNVF"], "iterations": [0] * len(SMALL["DNVF"]["iterations"])}}
    with pytest.raises(RegistrationError, match=said):
        api.register(phantom.fixed, phantom.moving, threads=1, **quick)


HABITS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "another device": lambda: torch.device("meta"),
}


TWO = {"threads": 1, "affine": "none", "options": {**SMALL["DNVF"], "iterations": (2, 2)}}


@pytest.fixture(scope="module")
def by_default(phantom):
    return api.register(phantom.fixed, phantom.moving, **TWO)


@pytest.mark.parametrize("habit", [*HABITS, "float64", "gradients of the image", "numpy's numbers"])
def test_what_a_caller_has_set_in_torch_changes_nothing(phantom, by_default, habit):
    fixed, settings = phantom.fixed, TWO
    if habit == "gradients of the image":
        fixed = Image(fixed.data.clone().requires_grad_(), fixed.grid)
    if habit == "numpy's numbers":
        of_numpy = {"iterations": np.array([2, 2]), "strides": [np.int64(1)] * 2}
        settings = {**TWO, "options": {**TWO["options"], **of_numpy}}
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if habit == "float64" else usual)
    try:
        with HABITS.get(habit, nullcontext)():
            got = api.register(fixed, phantom.moving, **settings)
    finally:
        torch.set_default_dtype(usual)
    assert torch.equal(got.warped.data, by_default.warped.data) and not got.warped.data.requires_grad


def test_a_device_is_understood_as_torch_has_it(phantom):
    quick = {"method": "VoxelMorph", "affine": "none", "threads": 1}
    for device in (torch.device("cpu"), "CPU"):
        assert api.register(phantom.fixed, phantom.moving, device=device, **quick).device == "cpu"
    with pytest.raises(RegistrationError, match='did you mean "cuda"'):
        api.register(phantom.fixed, phantom.moving, device="cuda:1", **quick)


def test_a_registration_leaves_the_random_numbers_and_threads_of_its_caller_alone(phantom):
    """A script that augments its images between two registrations would draw the same numbers again and again."""
    torch.manual_seed(1)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(1)
    torch.set_num_threads(3)
    try:
        api.register(phantom.fixed, phantom.moving, "VoxelMorph", threads=1, affine="none")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("unit", [2.0**-83, 2.0**83])
def test_the_unit_of_the_intensities_does_not_matter(phantom, expected, unit):
    """Maps of quantities in SI units hold very small numbers."""
    images = (Image(volume.data * unit, volume.grid) for volume in (phantom.fixed, phantom.moving))
    got, (points, _) = pipeline.register(*images, **SETTINGS), phantom.landmarks(200)
    assert float((got.transform(points) - expected.transform(points)).norm(dim=0).mean()) < 0.15
    for name in ("ncc_before", "mutual_information_before", "ncc_after", "sdlogj"):
        assert got.metrics[name] == pytest.approx(expected.metrics[name], rel=0.02)
