"""Examples that are what they say: known deformations, poses, contrasts, and the terms that judge them."""

import dataclasses

import numpy as np
import torch
from neuralreg import losses
from neuralreg.feedforward import displacements
from neuralreg.image import Grid
from neuralreg.sampling import warp
from neuralreg.training import data
from neuralreg.training.augment import Augmentation, random_appearance, random_poses, random_tone
from neuralreg.training.examples import Source
from neuralreg.training.objective import Objective, measure
from neuralreg.training.synth import known_pair, painted, random_velocity
from training_setup import STILL, blob


def test_known_velocity_explains_its_pair():
    """The oracle of supervised training: moving ∘ exp(velocity) is the fixed image."""
    image = torch.nn.functional.avg_pool3d(torch.from_numpy(blob(0, 48)).float()[None, None] / 200, 5, 1, 2)
    velocity = random_velocity((24, 24, 24), 2.0, torch.Generator().manual_seed(1))
    moving = known_pair(image, velocity)
    there, back = displacements(velocity, (48, 48, 48), 6)
    restored, inside = warp(moving, there), (slice(None), slice(None), *[slice(8, -8)] * 3)
    before = losses.mse(image[inside], moving[inside])
    assert losses.mse(image[inside], restored[inside]) < 0.1 * before
    assert there.norm(dim=1).max() > 2
    assert warp(there, back).add(back)[inside].abs().max() < 0.5


def test_poses_are_shared_by_the_pair_up_to_the_residual():
    fixed, moving = random_poses(Augmentation(), torch.Generator().manual_seed(0))
    residual = torch.linalg.inv(fixed) @ moving
    assert (residual - torch.eye(4)).abs()[:3, :3].max() < 0.2
    assert (fixed - torch.eye(4)).abs().max() > 0.2
    assert all(torch.equal(p, torch.eye(4, dtype=torch.float64)) for p in random_poses(STILL, torch.Generator()))


def test_a_flip_mirrors_both_images_left_and_right_and_nothing_else():
    always = dataclasses.replace(STILL, flip=1.0)
    fixed, moving = random_poses(always, torch.Generator())
    assert torch.equal(fixed, torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]).double()))
    assert torch.equal(fixed, moving)
    half = [random_poses(dataclasses.replace(STILL, flip=0.5), torch.Generator().manual_seed(s))[0] for s in range(40)]
    assert 10 < sum(bool(pose[0, 0] < 0) for pose in half) < 30


def test_appearance_changes_tone_strength_and_shading_as_much_as_asked():
    image = torch.linspace(0, 1, 20).view(1, 1, 1, 1, 20).expand(1, 1, 20, 20, 20)
    seen = {"none": random_appearance(image, STILL, torch.Generator().manual_seed(1))}
    for name in ("gamma", "gain", "bias"):
        options = dataclasses.replace(STILL, **{name: 0.3})
        seen[name] = random_appearance(image, options, torch.Generator().manual_seed(1))
    assert torch.equal(seen["none"], image)
    inside = slice(1, 19)
    ratio = {name: seen[name][..., inside] / image[..., inside] for name in ("gamma", "gain", "bias")}
    exponent = seen["gamma"][..., inside].log() / image[..., inside].log()
    assert (exponent - exponent.mean()).abs().max() < 1e-3 and abs(exponent.mean() - 1) > 0.01
    assert (ratio["gain"] - ratio["gain"].mean()).abs().max() < 1e-3 and abs(ratio["gain"].mean() - 1) > 0.01
    shading = ratio["bias"].log()
    assert shading.std() > 0.01
    steps = torch.cat([shading.diff(dim=axis).abs().flatten() for axis in (2, 3, 4)])
    assert steps.max() < 0.2  # smooth: what varies by that much takes many voxels


def test_a_view_in_the_mean_pose_is_the_subject_itself(pack):
    loaded = data.Pack.load(pack)
    subject = dataclasses.replace(loaded.subjects[0], subject_from_reference=np.eye(4))
    matrix = subject.grid.world_from_index.copy()
    matrix[:3, 3] -= loaded.centre
    view = loaded.view(subject.image, subject, torch.eye(4).double(), Grid(tuple(subject.image.shape[2:]), matrix))
    torch.testing.assert_close(view, subject.image.float(), atol=0.02, rtol=0)


def test_examples_depend_on_their_generator_alone(pack):
    loaded = data.Pack.load(pack)
    source = Source(loaded, (17, 17, 17), 2.0, Augmentation(), known=0.5, painted=0.5, label_values=(1,))
    first, again, other = (source.example(loaded.subjects, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first.fixed_seen, again.fixed_seen)
    assert torch.equal(first.moving, again.moving)
    assert not torch.equal(first.fixed, other.fixed)
    assert set(first.fixed_labels.unique().tolist()) <= {0.0, 1.0}


def test_labels_count_where_both_images_have_some(pack):
    """Label maps are optional for every subject: a pair of one with and one without is compared by its images."""
    loaded, objective = data.Pack.load(pack), Objective({"lncc": 1.0, "dice": 1.0}, scales=1, squarings=2)
    some = tuple(dataclasses.replace(s, labels=None) if n % 2 else s for n, s in enumerate(loaded.subjects))
    source, seen = Source(loaded, (17, 17, 17), 2.0, STILL, label_values=(1,)), set()
    for seed in range(20):
        example = source.example(some, torch.Generator().manual_seed(seed))
        assert (example.fixed_labels is None) == (example.moving_labels is None)
        terms = objective(example, torch.zeros(1, 3, 9, 9, 9))[1]
        measured = measure(objective, example, torch.zeros(1, 3, 9, 9, 9))
        assert ("dice" in terms) == ("dice" in measured) == (example.fixed_labels is not None)
        seen.add("dice" in terms)
    assert seen == {True, False}


def test_validation_says_how_well_the_images_and_labels_matched_before(pack):
    """A field of nothing changes neither: what a Dice is worth shows beside the one before."""
    loaded, objective = data.Pack.load(pack), Objective({"lncc": 1.0}, scales=1, squarings=2)
    source = Source(loaded, (17, 17, 17), 2.0, STILL, label_values=(1,))
    example = source.example(loaded.subjects, torch.Generator().manual_seed(0))
    measured = measure(objective, example, torch.zeros(1, 3, 9, 9, 9))
    assert measured["dice before"] == measured["dice"] < 1.0
    assert measured["lncc before"] == measured["lncc"] < 1.0
    moved = measure(objective, example, torch.full((1, 3, 9, 9, 9), 3.0))
    assert moved["dice before"] == measured["dice"] and moved["dice"] < measured["dice"]


def test_painted_images_change_contrast_but_not_anatomy():
    labels = torch.zeros(1, 1, 12, 12, 12)
    labels[..., 2:10, 2:10, 2:10] = 7
    one, two = (painted(labels, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for image in (one, two):
        assert image.min() >= 0 and image.max() <= 1
        assert image[labels == 7].std() < 0.15
    assert abs(one[labels == 7].mean() - two[labels == 7].mean()) > 0.01


def test_a_tone_curve_changes_the_contrast_and_nothing_else():
    image = torch.rand(1, 1, 9, 9, 9, generator=torch.Generator().manual_seed(0))
    image[:, :, :3] = 0.0
    image[:, :, 3:5] = 0.5
    toned = random_tone(image, torch.Generator().manual_seed(1))
    assert not toned[:, :, :3].any()
    assert toned[:, :, 3:5].unique().numel() == 1  # what was one tissue is one tissue
    assert toned.min() >= 0 and toned.max() <= 1
    assert not torch.allclose(toned, image, atol=0.1)
    shuffled = image.flatten()[torch.randperm(image.numel())].view_as(image)
    again = random_tone(shuffled, torch.Generator().manual_seed(1))
    assert torch.allclose(again.flatten().sort().values, toned.flatten().sort().values)  # a matter of grey values alone


def test_every_term_is_a_finite_number_with_a_gradient(pack):
    loaded = data.Pack.load(pack)
    source = Source(loaded, (17, 17, 17), 2.0, Augmentation(), known=1.0, label_values=(1,))
    example = source.example(loaded.subjects, torch.Generator().manual_seed(0))
    names = ("lncc", "mse", "mind", "local_gradient", "smoothness", "bending", "folding", "dice", "known")
    for name in names:
        field = (0.3 * torch.randn(1, 3, 9, 9, 9, generator=torch.Generator().manual_seed(1))).requires_grad_()
        total, values = Objective({name: 1.0}, scales=1)(example, field)
        total.backward()
        assert np.isfinite(values[name])
        assert torch.isfinite(field.grad).all()
        assert name == "folding" or field.grad.abs().max() > 0
