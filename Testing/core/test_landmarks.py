"""Landmark pairs pull the field: from files to the energy, on phantoms whose deformation is known."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from geometry import tilted_grid
from neuralreg import io, losses, pipeline
from neuralreg import run as run_module
from neuralreg.image import Image
from neuralreg.job import RegistrationError, RegistrationJob, Result
from neuralreg.metrics import tre
from neuralreg.phantom import make_phantom, rotation
from neuralreg.points import Points, read_pairs, write_points
from neuralreg.preprocess import make_pair, with_landmarks, working_grid
from neuralreg.pyramid import Landmarks
from neuralreg.transform import Affine
from test_methods import SMALL


@pytest.fixture(scope="module")
def phantom():
    """A known deformation on an oblique, anisotropic lattice: a swapped axis would pull the wrong way."""
    return make_phantom(tilted_grid((34, 38, 30), (4.6, 4.8, 5.2)), amplitude_mm=14.0)


def blurred(phantom):
    """Both images so noisy that they say little: what is found comes from the landmarks."""
    random = torch.Generator().manual_seed(5)
    noise = lambda image: torch.randn(image.data.shape, generator=random) * 500  # noqa: E731
    images = (phantom.fixed, phantom.moving)
    return [Image((image.data + noise(image) * (image.data > 5)).clamp(min=0), image.grid) for image in images]


def register(images, landmarks=None, weight=0.1, name="DNVF", **options):
    options = {**SMALL[name], "landmark_weight": weight, **options}
    settings = {"affine": "none", "threads": 1, "similarity": "lncc"}
    return pipeline.register(*images, name, landmarks=landmarks, options=options, **settings)


@pytest.mark.parametrize("name", ["DNVF", "VoxelMorph", "Cas-DNVF"])  # FNOReg's refinement is that of VoxelMorph
def test_landmarks_lower_the_error_where_the_images_say_little(phantom, name):
    """At the pairs themselves, and at other points between them, without a fold."""
    images, pairs, others = blurred(phantom), phantom.landmarks(60), phantom.landmarks(60, seed=1)
    without, pulled = register(images, name=name), register(images, pairs, 1.0, name)
    error = lambda found, points: float(tre(found.transform, *points).mean())  # noqa: E731
    assert error(pulled, pairs) < 0.5 * error(without, pairs)
    assert error(pulled, others) < 0.8 * error(without, others)
    assert pulled.metrics["folds_in_view"] == 0 and pulled.metrics["non_diffeomorphic_volume_voxels"] == 0
    before = float((pairs[0] - pairs[1]).norm(dim=0).mean())
    assert pulled.metrics["landmarks_before_mm"] == pytest.approx(before)
    assert pulled.metrics["landmarks_after_mm"] == pytest.approx(error(pulled, pairs))


def test_without_weight_nothing_changes(phantom):
    images, pairs = (phantom.fixed, phantom.moving), phantom.landmarks(20)
    pulled, unmoved, without = (
        register(images, *given, iterations=(3, 3)).warped.data for given in ((pairs, 1.0), (pairs, 0.0), ())
    )
    assert torch.equal(unmoved, without) and not torch.equal(pulled, without)


def test_residuals_are_millimetres_on_every_lattice(phantom):
    """Against the transform itself, and the same at two resolutions."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation([1, 0, 1], 5.0), (3.0, 2.0, -1.0)
    aligned, grid = Affine(pose), working_grid(phantom.fixed, 10**7)
    fixed, moving = phantom.landmarks(30)
    pair = make_pair(phantom.fixed, phantom.moving, aligned, grid)
    placed = with_landmarks(pair, (fixed, aligned(moving)), aligned, []).images("cpu")
    expected = (fixed - moving).norm(dim=0)
    for factor in (1.0, 2.0):
        images = placed.at(factor)
        still = torch.zeros(1, 3, *images.fixed.shape[2:])
        residual = images.landmarks.residual_mm(still, torch.tensor(images.spacing, dtype=torch.float32))
        assert torch.allclose(residual.norm(dim=1).flatten(), expected.float(), atol=1e-3)


def test_distance_is_square_near_and_straight_far():
    residual = torch.tensor([0.01, 100.0]).view(1, 1, 1, 1, 2) * torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1, 1)
    assert float(losses.landmark_distance(residual[..., :1])) == pytest.approx(0.5e-4, rel=2e-2)
    assert float(losses.landmark_distance(residual[..., 1:])) == pytest.approx(99, rel=1e-3)


def test_gradient_equals_finite_differences():
    random = torch.Generator().manual_seed(0)
    displacement = torch.rand(1, 3, 5, 6, 7, generator=random, dtype=torch.float64).requires_grad_(True)
    places = torch.rand(2, 1, 3, 1, 1, 4, generator=random, dtype=torch.float64)
    spacing = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    landmarks = Landmarks(*places)
    assert torch.autograd.gradcheck(
        lambda u: losses.landmark_distance(landmarks.residual_mm(u, spacing)), displacement, atol=1e-6
    )


def test_pairs_that_are_none_are_refused(phantom):
    fixed, moving = phantom.landmarks(5)
    images = (phantom.fixed, phantom.moving)
    for landmarks, words in [
        ((fixed, moving[:, :4]), "as many fixed as moving"),
        ((fixed.T, moving.T), "three coordinates"),
        ((fixed + 5000, moving + 5000), "No landmark pair lies in the images"),
    ]:
        with pytest.raises(RegistrationError, match=words):
            register(images, landmarks)


def test_pairs_outside_are_left_out_and_said(phantom):
    fixed, moving = (points.clone() for points in phantom.landmarks(5))
    fixed[:, 0] += 5000
    moving[:, 1] += 5000
    quick = {**SMALL["DNVF"], "iterations": (2, 2)}
    found = pipeline.register(
        phantom.fixed, phantom.moving, landmarks=(fixed, moving), affine="none", threads=1, options=quick
    )
    assert any(warning.startswith("2 of 5 landmark pairs") for warning in found.warnings)


def test_a_method_that_optimises_nothing_says_so(phantom):
    found = pipeline.register(
        phantom.fixed, phantom.moving, "VoxelMorph", landmarks=phantom.landmarks(5), affine="none", threads=1
    )
    assert any("did not count" in warning for warning in found.warnings)


def write(path, points, labels):
    write_points(Points(np.asarray(points), tuple(labels)), path)


def test_files_pair_by_label_or_by_order(tmp_path):
    fixed = np.arange(9.0).reshape(3, 3)
    write(tmp_path / "f.fcsv", fixed, "abc")
    write(tmp_path / "m.mrk.json", fixed[[2, 0, 1]] + 1, "cab")
    pairs = read_pairs(tmp_path / "f.fcsv", tmp_path / "m.mrk.json")
    np.testing.assert_allclose(pairs[1] - pairs[0], 1.0)
    write(tmp_path / "m.csv", fixed + 2, "xyz")
    pairs = read_pairs(tmp_path / "f.fcsv", tmp_path / "m.csv")
    np.testing.assert_allclose(pairs[0].T, fixed)
    np.testing.assert_allclose(pairs[1] - pairs[0], 2.0)
    write(tmp_path / "short.csv", fixed[:2], "ab")
    with pytest.raises(RegistrationError, match="landmarks are pairs"):
        read_pairs(tmp_path / "f.fcsv", tmp_path / "short.csv")


def test_an_order_with_gaps_pairs_nothing(tmp_path):
    """The second point is missing in one file and the third in the other: two in each, and only labels can tell."""
    for name, gap, labels in (("f", 1, "abc"), ("m", 2, "xyz"), ("n", 1, "abc")):
        control = [{"label": label, "position": [i, 0.0, 0.0]} for i, label in enumerate(labels)]
        control[gap] |= {"position": "", "positionStatus": "missing"}
        (tmp_path / f"{name}.mrk.json").write_text(json.dumps({"markups": [{"controlPoints": control}]}))
    with pytest.raises(RegistrationError, match="not placed"):
        read_pairs(tmp_path / "f.mrk.json", tmp_path / "m.mrk.json")
    pairs = read_pairs(tmp_path / "f.mrk.json", tmp_path / "n.mrk.json")
    np.testing.assert_array_equal(pairs[0], pairs[1])


@pytest.mark.parametrize(
    ("fixed", "moving", "pairs"),
    [
        ("abc", "bad", None),
        ("ppq", "pqp", None),
        ("abc", "abd", "order"),
        ("abc", "cab", "labels"),
        ("123", "342", "order"),
    ],
)
def test_labels_that_contradict_the_order_pair_nothing(tmp_path, fixed, moving, pairs):
    """One label misspelt, and the others in another order: a to b and b to a would pull the wrong way."""
    points = np.arange(9.0).reshape(3, 3)
    for name, labels in (("f", fixed), ("m", moving)):
        write(tmp_path / f"{name}.csv", points, labels)
    if pairs is None:
        with pytest.raises(RegistrationError, match="but at different places in their order"):
            read_pairs(tmp_path / "f.csv", tmp_path / "m.csv")
        return
    found = read_pairs(tmp_path / "f.csv", tmp_path / "m.csv")
    partner = {tuple(a): tuple(b) for a, b in zip(found[0].T.tolist(), found[1].T.tolist(), strict=True)}
    wanted = range(3) if pairs == "order" else [moving.index(label) for label in fixed]
    assert partner == {tuple(points[i]): tuple(points[j]) for i, j in enumerate(wanted)}


def test_job_takes_both_files_or_none(tmp_path, phantom):
    with pytest.raises(RegistrationError, match="give both files"):
        RegistrationJob("f", "m", "o", fixed_landmarks="a.csv")
    for name in ("fixed", "moving"):
        io.write_image(getattr(phantom, name), tmp_path / f"{name}.nii.gz")
    for name, points in zip(("a", "b"), phantom.landmarks(6), strict=True):
        write(tmp_path / f"{name}.csv", points.T, "123456")
    paths = {"fixed": "fixed.nii.gz", "moving": "moving.nii.gz", "output": "out"}
    paths |= {"fixed_landmarks": "a.csv", "moving_landmarks": "b.csv"}
    job = RegistrationJob(**{name: str(tmp_path / value) for name, value in paths.items()}, affine="none", threads=1)
    run_module.run(dataclasses.replace(job, options={**SMALL["DNVF"], "iterations": [3, 3]}))
    assert Result.load(tmp_path / "out" / "result.json").metrics["landmarks_after_mm"] > 0
    assert RegistrationJob.load(tmp_path / "out" / "job.json").moving_landmarks == str(tmp_path / "b.csv")
