"""Training: examples that are what they say, losses that fall, and an interruption that changes nothing."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from child import start
from neuralreg import losses, train, weights
from neuralreg.feedforward import displacements
from neuralreg.image import Grid
from neuralreg.job import RegistrationError
from neuralreg.metrics import tre
from neuralreg.networks.unet import UNet
from neuralreg.phantom import make_phantom
from neuralreg.sampling import warp
from neuralreg.train import TrainingConfig, load_config
from neuralreg.training import data
from neuralreg.training.augment import Augmentation, random_poses, random_tone
from neuralreg.training.examples import Example, Source, _two
from neuralreg.training.loop import Schedule
from neuralreg.training.objective import Objective
from neuralreg.training.packing import Packing, build_pack, find_subjects, save_pack
from neuralreg.training.synth import known_pair, painted, random_velocity
from neuralreg.transform import DisplacementField

SMALL = {"size": "voxelmorph-1", "half_resolution": True, "width": 0.5}


def blob(seed: int, n: int = 20) -> np.ndarray:
    """A lumpy bright ball with an inner one, as (n, n, n) in 0 … 200."""
    generator = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n)] * 3, indexing="ij")
    shift = generator.normal(0, 0.08, 3)
    radius = np.sqrt((x - shift[0]) ** 2 + (y - shift[1]) ** 2 * 1.1 + (z - shift[2]) ** 2)
    bumps = 0.1 * np.sin(4 * x + seed) * np.cos(3 * y)
    return 120.0 * (radius + bumps < 0.75) + 80.0 * (radius - bumps < 0.4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subjects")
    for number in range(5):
        image = sitk.GetImageFromArray(blob(number).astype(np.float32))
        image.SetSpacing((2.0, 2.0, 2.0))
        sitk.WriteImage(image, str(folder / f"s{number}_T1w.nii.gz"))
        labels = sitk.GetImageFromArray((blob(number) > 100).astype(np.uint8))
        labels.SetSpacing((2.0, 2.0, 2.0))
        sitk.WriteImage(labels, str(folder / f"s{number}_labels.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def pack(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "pack.npz"
    save_pack(path, build_pack(find_subjects(folder), Packing(2.0, align=False), lambda text: None))
    return path


def config(pack, output, **changes) -> TrainingConfig:
    values = {
        "data": str(pack),
        "output": str(output),
        "network": SMALL,
        "spacing": 2.0,
        "lattice": (17, 17, 17),
        "objective": Objective({"lncc": 1.0, "smoothness": 0.1}, {"lncc": {"window": 3}}, scales=1, squarings=4),
        "schedule": Schedule(iterations=6, validate_every=3, warmup=1, checkpoint_minutes=0.0),
        "validation_subjects": 2,
        "validation_pairs": 1,
    }
    return TrainingConfig(**values | changes)


def state_of(output):
    return torch.load(output / train.CHECKPOINT, weights_only=True)


def flat(state):
    if isinstance(state, dict):
        return [item for key in sorted(state, key=str) if key != "seconds" for item in flat(state[key])]
    if isinstance(state, list):
        return [item for value in state for item in flat(value)]
    return [state]


def test_training_resumes_bit_for_bit(pack, tmp_path):
    train.train(config(pack, tmp_path / "whole", known=0.5))
    half = config(pack, tmp_path / "halves", known=0.5)
    train.train(half, hours=0.0)  # stops before the first iteration, with a checkpoint
    assert state_of(tmp_path / "halves")["iteration"] == 0
    interrupt = InterruptAfter(4)
    with pytest.raises(KeyboardInterrupt):
        train.train(half, tick=interrupt)
    assert state_of(tmp_path / "halves")["iteration"] in (3, 4)
    train.train(half)
    whole, halves = state_of(tmp_path / "whole"), state_of(tmp_path / "halves")
    assert whole["iteration"] == halves["iteration"] == 6
    for a, b in zip(flat(whole["network"]), flat(halves["network"]), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(flat(whole["optimiser"]), flat(halves["optimiser"]), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_train_one_network(pack, tmp_path):
    """Started by torchrun: other examples in each process, the same weights in both, one checkpoint."""
    script = tmp_path / "two.py"
    script.write_text(
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import os, torch; torch.set_num_threads(1)\n"
        "from test_training import config\n"
        "from neuralreg import train\nfrom neuralreg.training import data\n"
        f"settings = config({str(pack)!r}, {str(tmp_path / 'out')!r})\n"
        "seen = []\n"
        f"trainer = train.trainer_of(settings, data.Pack.load({str(pack)!r}))\n"
        "values = [trainer.step()['lncc'] for _ in range(2)]\n"
        f"torch.save((trainer.network.state_dict(), values), {str(tmp_path)!r} + f'/rank{{trainer.crew.rank}}.pt')\n"
        "train.train(settings)\n"
    )
    # A fixed meeting point on this computer: `--standalone` looks up the computer's own name, which not every network
    # resolves, and takes a process that gets no time for a while on a busy computer for dead.
    meeting = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command = [sys.executable, "-m", "torch.distributed.run", *meeting, "--nproc_per_node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    if sys.platform.startswith("linux"):
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    (one, values_one), (two, values_two) = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert values_one != values_two
    for name, value in one.items():
        assert torch.equal(value, two[name])
    assert state_of(tmp_path / "out")["iteration"] == 6


class InterruptAfter:
    """Ctrl-C after a number of iterations."""

    def __init__(self, iterations):
        self.left = iterations

    def __call__(self, iteration):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_training_writes_a_model_that_says_what_it_is(pack, tmp_path):
    path = train.train(config(pack, tmp_path, about={"contrast": "T1", "licence": "CC0"}))
    manifest = weights.load(path).manifest
    assert (manifest.method, manifest.contrast, manifest.licence) == ("VoxelMorph", "T1", "CC0")
    assert manifest.training["validation"]["folds %"] == 0.0
    rows = [json.loads(line) for line in (tmp_path / train.LOG).read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [3, 6]


def test_a_network_trained_on_one_subject_pair_brings_it_together(pack, tmp_path):
    schedule = Schedule(iterations=60, rate=3e-3, validate_every=60, warmup=1, average=0.5, last_rate=1.0)
    still = Augmentation((0.0,) * 3, *[0.0] * 10)
    settings = config(pack, tmp_path, schedule=schedule, augmentation=still, validation_subjects=3)
    before = train.train(dataclasses.replace(settings, schedule=dataclasses.replace(schedule, iterations=0)))
    assert not before.exists()
    loaded = data.Pack.load(pack)
    trainer = train.trainer_of(settings, loaded)
    values = [trainer.step()["lncc"] for _ in range(60)]
    assert np.mean(values[-5:]) < np.mean(values[:5]) - 0.1


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
    still = Augmentation((0.0,) * 3, *[0.0] * 10)
    assert all(torch.equal(p, torch.eye(4, dtype=torch.float64)) for p in random_poses(still, torch.Generator()))


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


def test_painted_images_change_contrast_but_not_anatomy():
    labels = torch.zeros(1, 1, 12, 12, 12)
    labels[..., 2:10, 2:10, 2:10] = 7
    one, two = (painted(labels, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for image in (one, two):
        assert image.min() >= 0 and image.max() <= 1
        assert image[labels == 7].std() < 0.15
    assert abs(one[labels == 7].mean() - two[labels == 7].mean()) > 0.01


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


@pytest.mark.parametrize("name", sorted(p.name for p in train.CONFIGS.glob("*.toml")))
def test_configurations_that_come_along_are_valid(name):
    loaded = load_config(name, output="elsewhere")
    assert loaded.output == "elsewhere"
    assert loaded.about["licence"]
    for forbidden in ("brain_labelled", "hippocampus", "multimodal", "lung_ct"):
        assert forbidden not in (train.CONFIGS / name).read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data = 'a'\noutput = 'b'\niteratons = 3", "entry in the configuration"),
        ("data = 'a'\noutput = 'b'\n[schedule]\niteratons = 3", 'did you mean "iterations"'),
        ("data = 'a'\noutput = 'b'\n[objective]\nterms = {lncd = 1}", 'did you mean "lncc"'),
        ("data = 'a'", "missing"),
        ("data = ", "cannot be read"),
    ],
)
def test_wrong_configurations_get_a_sentence(tmp_path, text, words):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(RegistrationError, match=words):
        load_config(tmp_path / "c.toml")
    with pytest.raises(RegistrationError, match="no configuration"):
        load_config(tmp_path / "d.toml")


TENSORBOARD_CONFIG = """
data = {data!r}
output = {output!r}
network = {{size = "voxelmorph-1", half_resolution = true, width = 0.5}}
spacing = 2.0
lattice = [17, 17, 17]
validation_subjects = 2
validation_pairs = 1
[objective]
terms = {{lncc = 1.0, smoothness = 0.1}}
options = {{lncc = {{window = 3}}}}
scales = 1
squarings = 2
[schedule]
iterations = 2
validate_every = 1
"""


def test_tensorboard_log_holds_every_validation(pack, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "c.toml").write_text(TENSORBOARD_CONFIG.format(data=str(pack), output=str(tmp_path / "out")))
    process = start("train", tmp_path / "c.toml", "--tensorboard", cwd=tmp_path)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    log = accumulators.EventAccumulator(str(tmp_path / "out")).Reload()
    assert {"lncc", "train lncc", "folds %"} <= set(log.Tags()["scalars"])
    rows = [json.loads(line) for line in (tmp_path / "out" / train.LOG).read_text().splitlines()]
    assert [(event.step, pytest.approx(event.value)) for event in log.Scalars("lncc")] == [
        (row["iteration"], row["lncc"]) for row in rows
    ]


def test_wrong_data_get_a_sentence(tmp_path, pack):
    with pytest.raises(RegistrationError, match="at least two"):
        find_subjects(tmp_path)
    with pytest.raises(RegistrationError, match="no training data"):
        find_subjects(tmp_path / "nowhere")
    (tmp_path / "t.csv").write_text("picture\na.nii\n")
    with pytest.raises(RegistrationError, match='column "image"'):
        find_subjects(tmp_path / "t.csv")
    (tmp_path / "p.npz").write_bytes(b"nothing")
    with pytest.raises(RegistrationError, match="not a training pack"):
        data.Pack.load(tmp_path / "p.npz")
    with pytest.raises(RegistrationError, match="need two each"):
        train.train(config(pack, tmp_path / "out", validation_subjects=4))


def test_a_table_of_images_is_understood(tmp_path):
    (tmp_path / "t.csv").write_text("image,labels\na.nii,a_seg.nii\nb.nii,\n")
    first, second = find_subjects(tmp_path / "t.csv")
    assert (first.image, first.labels) == (tmp_path / "a.nii", tmp_path / "a_seg.nii")
    assert second.labels is None


def test_alignment_makes_the_subjects_share_a_space(tmp_path):
    """Shifted copies: their affines must undo the shift, whoever is the reference."""
    for number, shift in enumerate((0.0, 12.0, -8.0)):
        image = sitk.GetImageFromArray(blob(0, 32).astype(np.float32))
        image.SetSpacing((3.0, 3.0, 3.0))
        image.SetOrigin((shift, 0.0, -shift))
        sitk.WriteImage(image, str(tmp_path / f"{number}.nii.gz"))
    arrays = build_pack(find_subjects(tmp_path), Packing(3.0), lambda text: None)
    offsets = [arrays[f"affine/{n}"][:3, 3] for n in range(3)]
    np.testing.assert_allclose(offsets[1] - offsets[0], (12, 0, -12), atol=1.0)
    np.testing.assert_allclose(offsets[2] - offsets[0], (-8, 0, 8), atol=1.0)


def test_a_small_network_over_trained_on_a_phantom_recovers_its_deformation():
    phantom = make_phantom(Grid.from_parts((25, 25, 25), spacing=(7.0, 7.0, 7.0)), amplitude_mm=11.0)
    fixed, moving = (
        image.data[None].float() / float(phantom.fixed.data.max()) for image in (phantom.fixed, phantom.moving)
    )
    example = Example(fixed, moving, fixed, moving)
    objective = Objective({"lncc": 1.0, "smoothness": 0.05}, {"lncc": {"window": 5}}, scales=1, squarings=5)
    torch.manual_seed(0)
    network = UNet("voxelmorph-1", half_resolution=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(60):
        total, _ = objective(example, network(fixed, moving))
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.3)
        optimiser.step()
    with torch.no_grad():
        there, _ = displacements(network(fixed, moving), (25, 25, 25), 5)
    found = DisplacementField.from_voxels(there, phantom.fixed.grid)
    on_fixed, on_moving = phantom.landmarks(60)
    before = float((on_fixed - on_moving).norm(dim=0).mean())
    assert before > 1.9  # mm, on voxels of 7 mm
    assert float(tre(found, on_fixed, on_moving).mean()) < 0.7 * before


def test_label_maps_alone_are_subjects_and_the_skull_can_be_cut_away(tmp_path):
    for number in range(2):
        labels = np.where(blob(number) > 150, 3, np.where(blob(number) > 0, 500, 0)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / f"label_map_{number}.nii.gz"))
    found = find_subjects(tmp_path)
    assert [f.image for f in found] == [None, None]
    whole = build_pack(found, Packing(1.0, align=False), lambda text: None)
    inner = build_pack(found, Packing(1.0, align=False, keep=(3,)), lambda text: None)
    assert set(np.unique(whole["labels/label_map_0"])) == {0, 3, 500}
    assert set(np.unique(inner["labels/label_map_0"])) == {0, 3}
    assert inner["image/label_map_0"].size < whole["image/label_map_0"].size
    assert ((inner["image/label_map_0"] > 0) == (inner["labels/label_map_0"] > 0)).all()


def test_subjects_of_a_group_are_paired_within_it(tmp_path, folder):
    rows = [f"{folder / f's{n}_T1w.nii.gz'},{'ab'[n % 2]}" for n in range(4)]
    (tmp_path / "t.csv").write_text("image,group\n" + "\n".join(rows))
    save_pack(
        tmp_path / "p.npz", build_pack(find_subjects(tmp_path / "t.csv"), Packing(2.0, align=False), lambda text: None)
    )
    subjects = data.Pack.load(tmp_path / "p.npz").subjects
    for seed in range(8):
        first, second = _two(subjects, torch.Generator().manual_seed(seed))
        assert first != second
        assert subjects[first].group == subjects[second].group


def test_subjects_of_every_group_are_held_out(tmp_path, folder):
    rows = [f"{folder / f's{n}_T1w.nii.gz'},{'ab'[n // 2 % 2]}" for n in (0, 1, 2, 3, 0, 1, 2, 3)]
    (tmp_path / "t.csv").write_text("image,group\n" + "\n".join(rows))
    save_pack(
        tmp_path / "p.npz", build_pack(find_subjects(tmp_path / "t.csv"), Packing(2.0, align=False), lambda text: None)
    )
    subjects = data.Pack.load(tmp_path / "p.npz").subjects
    training, validation = train._split(subjects, 2)
    assert [s.group for s in validation] == ["a", "a", "b", "b"]
    assert {s.name for s in training} == {s.name for s in subjects} - {s.name for s in validation}
    with pytest.raises(RegistrationError, match="4, 4 subjects, 3 of each group"):
        train._split(subjects, 3)


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
