"""The affine stage: known maps come back, in any contrast and on any grid, and nothing gets worse."""

import dataclasses

import numpy as np
import pytest
import torch
from neuralreg import qa
from neuralreg.affine import level as one_level
from neuralreg.affine import register_affine, search, similarity, stage
from neuralreg.image import Grid, Image, canonical, resample
from neuralreg.job import Cancelled, Monitor, RegistrationError
from neuralreg.pyramid import gaussian
from neuralreg.transform import Affine

CENTER = np.array([10.0, -20.0, 5.0])
OBLIQUE = np.array([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])
AXES = {
    "LPS": np.eye(3),
    "flipped and permuted": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "oblique, left-handed": OBLIQUE @ np.diag([1.0, 1.0, -1.0]),
}


def head(points: torch.Tensor) -> torch.Tensor:
    """Intensity of an asymmetric head-like body at LPS points (3, …) mm: 0 outside, about 60 to 200 inside."""
    x, y, z = points - torch.from_numpy(CENTER).view(3, *[1] * (points.ndim - 1))
    edge = ((x / 62) ** 2 + (y / 78) ** 2 + (z / 55) ** 2).sqrt()
    tissue = 120 + 40 * torch.sin(x / 9 + 1) * torch.cos(y / 11) + 35 * torch.sin(z / 8 + y / 25)
    lump = ((x - 25) ** 2 + (y + 30) ** 2 + (z - 15) ** 2).sqrt()
    return (tissue + 60 * torch.sigmoid((32 - lump) / 2)) * torch.sigmoid((1 - edge) * 25)


def grid(axes: str = "LPS", spacing=(4.0, 4.0, 4.0), extent=(190.0, 210.0, 180.0), center=CENTER) -> Grid:
    size = np.round(np.array(extent) / spacing).astype(int)
    direction = AXES[axes]
    origin = center - direction @ (np.array(spacing) * (size - 1) / 2)
    return Grid.from_parts(size, origin, spacing, direction)


def body(on: Grid, fixed_from_world: Affine | None = None) -> Image:
    points = on.points()
    return Image(head(points if fixed_from_world is None else fixed_from_world(points)).float()[None], on)


def motion(degrees: float, shift, scales=(1.0, 1.0, 1.0), axis=(1.0, 2.0, -1.5)) -> Affine:
    """moving_from_fixed: turn about the head's centre, scale, shift (mm)."""
    x, y, z = np.array(axis) / np.linalg.norm(axis) * np.deg2rad(degrees)
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = torch.linalg.matrix_exp(cross).numpy() @ np.diag(scales)
    matrix[:3, 3] = CENTER + np.array(shift) - matrix[:3, :3] @ CENTER
    return Affine(matrix)


def pair(true: Affine, fixed_grid: Grid, moving_grid: Grid | None = None) -> tuple[Image, Image]:
    """The head, and the head moved by `true`, drawn on a grid around where it went."""
    around = true(torch.from_numpy(CENTER)).numpy()
    moving_grid = moving_grid or grid(center=around, extent=(220.0, 220.0, 220.0))
    return body(fixed_grid), body(moving_grid, true.inverse())


def error_mm(found: Affine, true: Affine) -> float:
    points = torch.from_numpy(CENTER).view(3, 1) + 50 * torch.tensor(list(np.ndindex(3, 3, 3))).double().T - 50
    return float((found(points) - true(points)).norm(dim=0).mean())


@pytest.mark.parametrize("axes", AXES)
def test_a_known_affine_comes_back_on_every_kind_of_grid(axes):
    spacing = (4.0, 4.0, 4.0) if axes == "LPS" else (3.0, 3.0, 7.0)  # thick slices, whichever way they lie
    true = motion(12, (9, -6, 4), (1.06, 0.95, 1.03))
    fixed, moving = pair(true, grid(axes, spacing))
    found = register_affine(fixed, moving)
    assert error_mm(found.moving_from_aligned, true) < 0.6
    assert found.warning is None


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (-1, 1, 1)])
def test_25_degrees_and_40_mm_are_found(axis):
    true = motion(25, (25, -24, 20), axis=axis)
    found = register_affine(*pair(true, grid()), "rigid").moving_from_aligned
    assert error_mm(found, true) < 0.5
    turn = found.matrix[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)


def lumps(on: Grid) -> Image:
    """An ellipsoid of tissue that looks different from every side."""
    coarse = torch.randn(1, 1, 14, 16, 14, generator=torch.Generator().manual_seed(5))
    tissue = torch.nn.functional.interpolate(coarse, on.shape, mode="trilinear")[0]
    z, y, x = torch.meshgrid(*(torch.linspace(-1.4, 1.4, n) for n in on.shape), indexing="ij")
    return Image(60 * tissue * torch.sigmoid((1 - (x**2 + y**2 + z**2).sqrt()) * 25), on)


@pytest.mark.parametrize(("degrees", "axis"), [(90, (1, 0, 0)), (120, (1, 1, 1)), (180, (0, 0, 1))])
@pytest.mark.parametrize("axes", ["LPS", "oblique, left-handed"])
def test_a_volume_that_lies_turned_is_found_and_said(degrees, axis, axes):
    fixed = lumps(grid(axes))
    true = motion(degrees + 8, (12, -8, 15), axis=AXES[axes] @ axis)
    moving = Image(fixed.data, Grid(fixed.grid.shape, true.matrix @ fixed.grid.world_from_index))
    found = register_affine(fixed, moving)
    assert error_mm(found.moving_from_aligned, true) < 0.5
    assert f"turned by about {180 - abs(degrees - 172)} degrees" in found.warning


def test_the_other_turns_of_a_box():
    turns = np.array(stage._turns_of_a_cube())
    assert len(np.unique(turns, axis=0)) == 23
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(turns), 1)
    assert not any(np.array_equal(turn, np.eye(3)) for turn in turns)


def test_two_volumes_that_have_nothing_in_common_are_not_turned():
    noise = Image(torch.rand(1, 40, 45, 42, generator=torch.Generator().manual_seed(3)), grid(extent=(168, 180, 160)))
    found = register_affine(body(grid()), noise)
    assert found.alike < stage.LOST and "turned" not in (found.warning or "")


def test_a_turn_that_was_not_taken_is_not_spoken_of(monkeypatch):
    monkeypatch.setattr(stage, "_anywhere", lambda *_: ([motion(90, (0, 0, 0)).matrix], "It is turned."))
    image = body(grid())
    assert register_affine(image, image).warning == stage.KEPT


def hill(values: torch.Tensor) -> torch.Tensor:
    """A contrast that rises and falls again within the tissue of the head: as hard as contrasts get."""
    return 900 * torch.exp(-(((values - 110) / 45) ** 2)) * (values > 8)


@pytest.mark.parametrize(("contrast", "limit_mm"), [(lambda v: 255 - v, 0.5), (hill, 2.0)], ids=["inverted", "hill"])
def test_another_contrast_is_no_obstacle(contrast, limit_mm):
    true = motion(14, (12, 8, -15), (0.96, 1.04, 1.0))
    fine = (3.0, 3.0, 3.0)
    fixed, moving = pair(true, grid(spacing=fine), grid(spacing=fine, extent=(230.0, 230.0, 230.0)))
    found = register_affine(fixed, Image(contrast(moving.data), moving.grid))
    assert error_mm(found.moving_from_aligned, true) < limit_mm


def test_an_image_lies_best_on_itself():
    """Neither noise terms nor masks may make a slightly smaller or larger image look better."""
    true = motion(10, (8, 8, 8))
    fine = (3.0, 3.0, 3.0)
    fixed, moving = pair(true, grid(spacing=fine), grid(spacing=fine, extent=(230.0, 230.0, 230.0)))
    found = register_affine(fixed, moving).moving_from_aligned
    np.testing.assert_allclose(np.linalg.svd(found.matrix[:3, :3])[1], 1.0, atol=0.003)


def test_half_a_head_finds_its_place_in_a_whole_one():
    true = motion(8, (10, -5, 8))
    whole, moving = pair(true, grid())
    d, h, w = whole.grid.shape
    half = Image(whole.data[:, : d // 2], whole.grid.cropped((0, 0, 0), (w, h, d // 2)))
    assert error_mm(register_affine(half, moving, "rigid").moving_from_aligned, true) < 1.0


def test_a_small_overlap_does_not_look_good():
    """Where the moving image ends the blocks of the fixed one count as unlike, for whoever judges a result."""
    whole = body(grid())
    d, h, w = whole.grid.shape
    half = Image(whole.data[:, : d // 2], whole.grid.cropped((0, 0, 0), (w, h, d // 2)))
    descended, judged = [], []
    for moving in (whole, half):
        level = stage._Pair.prepare(whole, moving, None, None, lambda: None).levels()[0]
        descended.append(similarity.evaluate(similarity.local_correlation, level, np.eye(4)))
        judged.append(similarity.evaluate(similarity.covered_correlation, level, np.eye(4)))
    assert max(descended) < -0.9 and judged[0] < -0.9 and -0.6 < judged[1] < -0.4


@pytest.mark.parametrize("overlap_mm", [8, 14, 28])
def test_volumes_that_hardly_overlap_as_stored_are_brought_together(overlap_mm):
    """In a corner that holds a few points of both grey values always seem to depend on each other."""
    extent = np.array((80.0, 100.0, 64.0))  # within the head: there is no background to hold them together
    true = motion(6, extent - overlap_mm)
    fixed, moving = pair(true, grid(extent=extent), grid(center=CENTER + extent - overlap_mm, extent=extent))
    noise = 30 * torch.randn(moving.data.shape, generator=torch.Generator().manual_seed(0))
    found = register_affine(fixed, Image(250 - moving.data + noise, moving.grid), "rigid")
    assert error_mm(found.moving_from_aligned, true) < 2.5 and found.warning is None


def test_the_result_says_how_alike_the_two_are():
    true = motion(5, (4, 4, 4))
    fixed, moving = pair(true, grid())
    assert register_affine(fixed, Image(300 - moving.data, moving.grid)).alike > 0.9, "in any contrast"
    noise = torch.rand(1, *fixed.grid.shape, generator=torch.Generator().manual_seed(0))
    found = register_affine(fixed, Image(gaussian(noise[None], [1.0] * 3)[0], fixed.grid))
    assert found.alike < qa.ALIKE, "something else"


def test_masks_restrict_what_is_compared():
    """A large bright object that moved otherwise decides the result, unless the masks leave it out."""
    true = motion(0, (6, 0, 0))
    fixed, moving = pair(true, grid(), grid(extent=(220.0, 220.0, 220.0)))
    fixed_mask, moving_mask = (Image((i.data > 30).float(), i.grid) for i in (fixed, moving))
    fixed, moving = _with_bar(fixed, -85.0), _with_bar(moving, -70.0)
    masked = register_affine(fixed, moving, "rigid", fixed_mask=fixed_mask, moving_mask=moving_mask)
    assert error_mm(masked.moving_from_aligned, true) < 0.5
    coarse = fixed_mask.grid.with_shape((15, 17, 16))
    coarse_mask = resample(fixed_mask, lambda points: points, coarse, "nearest")
    assert error_mm(register_affine(fixed, moving, "rigid", fixed_mask=coarse_mask).moving_from_aligned, true) < 2.0


@pytest.mark.parametrize("masked", ["fixed", "moving"])
def test_a_mask_that_holds_nothing_but_noise_keeps_the_start_and_says_so(masked):
    """Noise too has a best match somewhere: it sent the head 90 mm away without a word."""
    generator = torch.Generator().manual_seed(0)
    pair_of = pair(motion(10, (6, -5, 4)), grid())
    fixed, moving = (Image(i.data + 3 * torch.randn(i.data.shape, generator=generator), i.grid) for i in pair_of)
    image = fixed if masked == "fixed" else moving
    air = torch.zeros_like(image.data)
    air[..., :4] = 1
    found = register_affine(fixed, moving, **{f"{masked}_mask": Image(air, image.grid)})
    assert f"{masked} mask" in found.warning and "start was kept" in found.warning
    np.testing.assert_array_equal(found.moving_from_aligned.matrix, np.eye(4))


def test_where_the_affine_descent_is_lost_the_rigid_result_stays(monkeypatch):
    """As within masks of a corner of the anatomy, out of which it drifts: rotation and shift went with it."""
    descend = search.descend

    def drifting(cost, level, start, kind, *arguments, **named):
        found = descend(cost, level, start, kind, *arguments, **named)
        return found if kind == "rigid" else (motion(0, (40, 0, 0)).matrix @ found[0], found[1])

    monkeypatch.setattr(stage, "descend", drifting)
    true = motion(8, (6, -5, 4))
    found = register_affine(*pair(true, grid(), grid(extent=(220.0, 220.0, 220.0))))
    assert error_mm(found.moving_from_aligned, true) < 1.0 and found.warning is None


def test_an_unlikely_stretch_is_said_unless_the_start_had_it():
    fixed, moving = pair(motion(0, (0, 0, 0), (1.0, 1.0, 1.5)), grid(), grid(extent=(220.0, 220.0, 280.0)))
    found = register_affine(fixed, moving)
    assert "1.5" in found.warning and "stretches" in found.warning
    start = motion(0, (3, 0, 0), (1.0, 1.0, 1.5))
    assert register_affine(fixed, moving, initial=start).warning is None
    assert register_affine(*pair(motion(0, (0, 0, 0), (1.0, 1.1, 1.2)), grid())).warning is None


def _with_bar(image: Image, at: float) -> Image:
    x, _, z = image.grid.points() - torch.from_numpy(CENTER).view(3, 1, 1, 1)
    bar = ((x - at).abs() < 12) & (z.abs() < 60)
    return Image(torch.where(bar, 400.0, image.data[0])[None], image.grid)


PERIOD_MM = 16.0


def column(on: Grid) -> Image:
    """A trunk that is longer than its field of view and repeats along the body, but for a lump."""
    x, y, z = on.points() - torch.from_numpy(CENTER).view(3, 1, 1, 1)
    edge = ((x / 60) ** 2 + (y / 50) ** 2).sqrt()
    lump = ((x - 20) ** 2 + (y + 15) ** 2 + (z - 10) ** 2).sqrt()
    tissue = 120 + 50 * torch.cos(2 * torch.pi * z / PERIOD_MM) + 60 * torch.sigmoid((32 - lump) / 2)
    return Image((tissue * torch.sigmoid((1 - edge) * 25)).float()[None], on)


@pytest.mark.parametrize("kind", ["rigid", "affine"])
@pytest.mark.parametrize("looks", [True, False], ids=["looks beside", "does not"])
def test_a_trunk_that_starts_a_vertebra_too_far_up_finds_its_place(kind, looks, monkeypatch):
    monkeypatch.setattr(stage, "_start", lambda *_: motion(0, (30, 20, 40 + PERIOD_MM)).matrix)
    if not looks:
        monkeypatch.setattr(stage, "_elsewhere", lambda *_: [])
    fixed, longer = column(grid()), column(grid(extent=(190, 210, 240), center=CENTER + (0, 0, 30)))
    moving = Image(longer.data, grid(extent=(190, 210, 240), center=CENTER + (30, 20, 70)))
    error = error_mm(register_affine(fixed, moving, kind).moving_from_aligned, motion(0, (30, 20, 40)))
    assert error < 0.5 if looks else error > 0.6 * PERIOD_MM  # without looking it stays where it started


def test_no_other_place_is_taken_where_the_first_is_right():
    true = motion(10, (8, -6, 5), (1.05, 0.97, 1.0))
    fixed, moving = pair(true, grid())
    pair_of = stage._Pair.prepare(fixed, moving, None, None, lambda: None)
    assert stage._elsewhere(pair_of.levels(), true.matrix, "affine", true.matrix, Monitor()) == []


def test_an_initial_transform_is_the_start():
    true = motion(60, (80, -70, 60))  # farther than the search for a start reaches
    fixed, moving = pair(true, grid())
    found = register_affine(fixed, moving, initial=motion(6, (5, -4, 3)) @ true)
    assert error_mm(found.moving_from_aligned, true) < 0.6


def test_a_perfect_start_is_not_made_worse():
    true = motion(10, (8, 8, 8))
    fixed, moving = pair(true, grid())
    found = register_affine(fixed, moving, initial=true)
    assert error_mm(found.moving_from_aligned, true) < 0.3


def test_a_search_that_went_wrong_keeps_the_start_and_says_so(monkeypatch):
    fixed, moving = pair(motion(0, (1, 0, 0)), grid())
    astray = motion(50, (30, 30, 30)).matrix
    monkeypatch.setattr("neuralreg.affine.stage.descend", lambda *args, **kwargs: (astray, 0.0))
    found = register_affine(fixed, moving, initial=Affine.identity())
    np.testing.assert_array_equal(found.moving_from_aligned.matrix, np.eye(4))
    assert "start was kept" in found.warning


@pytest.mark.parametrize("value", [0.0, 7.0, float("nan")])
def test_flat_images_keep_the_start(value):
    flat = Image(torch.full((1, 12, 12, 12), value), Grid.from_parts((12, 12, 12)))
    found = register_affine(flat, flat)
    np.testing.assert_array_equal(found.moving_from_aligned.matrix, np.eye(4))
    assert found.warning


def test_nan_is_background():
    true = motion(6, (5, 0, -5))
    fixed, moving = pair(true, grid())
    holes = torch.where(fixed.data < 1, torch.nan, fixed.data)
    assert error_mm(register_affine(Image(holes, fixed.grid), moving).moving_from_aligned, true) < 1.0


def test_what_a_scanner_writes_outside_its_bore_does_not_set_the_scale():
    tissue, bore = np.linspace(0, 1000, 10_000), np.full(1000, -3024.0)
    low, high = stage._intensity_range(np.concatenate((bore, tissue)))
    assert low == pytest.approx(0, abs=10) and high == pytest.approx(1000, abs=10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("hot", ["fixed", "moving"])
def test_a_hot_spot_in_one_image_does_not_hide_the_rest_of_it(hot, masked):
    """A bladder in PET, beside a CT, which does not show it."""
    true = motion(12, (9, -6, 4))
    images = dict(zip(("fixed", "moving"), pair(true, grid()), strict=True))
    masks = {f"{name}_mask": Image((i.data > 20).float(), i.grid) for name, i in images.items()} if masked else {}
    data, on = images[hot].data, images[hot].grid
    spot = torch.from_numpy(CENTER + [0, -40, -25]).view(3, 1)
    spot = (spot if hot == "fixed" else true(spot)).view(3, 1, 1, 1)
    data[0][(on.points() - spot).norm(dim=0) < 22] *= 100
    found = register_affine(images["fixed"], images["moving"], **masks).moving_from_aligned
    assert error_mm(found, true) < 1.5


def test_a_body_that_is_small_in_a_noisy_field_of_view_is_no_hot_spot():
    """A foot, a mouse, a brain in PET: 4 % of the voxels, and the rest is noise."""
    true, large = motion(12, (9, -6, 4)), (320.0, 320.0, 320.0)
    around = true(torch.from_numpy(CENTER)).numpy()
    images = pair(true, grid(extent=large), grid(center=around, extent=large))
    generator = torch.Generator().manual_seed(0)
    for image in images:
        image.data.add_(2 * torch.rand(image.data.shape, generator=generator))
    assert error_mm(register_affine(*images).moving_from_aligned, true) < 0.6


def test_noise_alone_cannot_collapse_the_scales():
    generator = torch.Generator().manual_seed(3)
    fixed, moving = (Image(torch.rand(1, 20, 24, 18, generator=generator), Grid.from_parts((18, 24, 20))) for _ in "ab")
    scales = np.linalg.svd(register_affine(fixed, moving).moving_from_aligned.matrix[:3, :3], compute_uv=False)
    low, high = search.SCALES
    assert low <= scales.min() and scales.max() <= high


def test_the_order_of_storage_does_not_matter():
    true = motion(15, (10, 12, -8), (1.04, 0.97, 1.0))
    fixed, moving = pair(true, grid("flipped and permuted"), grid("oblique, left-handed", extent=(240.0, 240.0, 240.0)))
    stored = register_affine(fixed, moving).moving_from_aligned
    other = register_affine(canonical(fixed), canonical(moving)).moving_from_aligned
    assert error_mm(stored, other) < 1e-6


def test_a_turned_world_gives_the_turned_result():
    fixed, moving = pair(motion(10, (6, 7, -8)), grid())
    found = register_affine(fixed, moving).moving_from_aligned
    for turn in (motion(30, (15, -40, 22)), motion(90, (0, 0, 0), axis=(0, 0, 1))):
        turned = [Image(i.data, Grid(i.grid.shape, turn.matrix @ i.grid.world_from_index)) for i in (fixed, moving)]
        again = register_affine(*turned).moving_from_aligned
        assert error_mm(turn.inverse() @ again @ turn, found) < 0.02


def test_the_same_input_gives_the_same_bytes_with_any_number_of_threads():
    fixed, moving = pair(motion(10, (6, 7, -8)), grid(spacing=(6.0, 6.0, 6.0)))
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(register_affine(fixed, moving).moving_from_aligned.matrix.tobytes())
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["local_correlation", "covered_correlation", "mutual_information"])
def test_slopes_match_finite_differences(name):
    cost, generator = getattr(similarity, name), torch.Generator().manual_seed(0)
    points = (torch.rand(1, 3, 2, 3, 64, generator=generator) - 0.5).double() * 6
    fixed = torch.rand(6, 64, generator=generator).double()
    moving = torch.rand(1, 2, 9, 10, 11, generator=generator).double() * 0.5 + 0.4
    volume = one_level.Volume(moving, Grid.from_parts((11, 10, 9)))
    level = one_level.Level(points, fixed, torch.ones_like(fixed), fixed[:, 0], np.zeros(3), volume, 1.0)
    matrix = torch.tensor([[1.02, 0.03, 0, 5.13], [0, 0.97, 0.02, 4.61], [0.01, 0, 1, 4.27]]).double()
    matrix.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda m: cost(level, m), matrix, eps=1e-7, atol=1e-5)


def test_an_unknown_kind_is_named():
    with pytest.raises(RegistrationError, match="rigid"):
        register_affine(body(grid(spacing=(9.0, 9.0, 9.0))), body(grid(spacing=(9.0, 9.0, 9.0))), "rigidd")


def test_progress_rises_and_a_cancel_ends_it():
    fixed = body(grid(spacing=(9.0, 9.0, 9.0)))
    watch = _Watch([])
    register_affine(fixed, fixed, monitor=watch)
    assert watch.fractions == sorted(watch.fractions) and watch.fractions[-1] == 1.0
    with pytest.raises(Cancelled):
        register_affine(fixed, fixed, monitor=_Watch([], limit=2))


@dataclasses.dataclass
class _Watch(Monitor):
    fractions: list
    limit: int = 1000

    def report(self, progress):
        self.fractions.append(progress.fraction)

    def cancelled(self):
        return len(self.fractions) >= self.limit
