"""Training: losses that fall, models that say what they are, an interruption that changes nothing."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from child import start, two_processes
from neuralreg import train, weights
from neuralreg.cli import main
from neuralreg.feedforward import displacements
from neuralreg.image import Grid
from neuralreg.job import RegistrationError
from neuralreg.metrics import tre
from neuralreg.networks.unet import UNet
from neuralreg.phantom import make_phantom
from neuralreg.training import crew, data
from neuralreg.training.config import CONFIGS, load_config
from neuralreg.training.examples import Example
from neuralreg.training.loop import Schedule, Trainer
from neuralreg.training.objective import Objective
from neuralreg.transform import DisplacementField
from training_setup import SMALL, STILL, Executed, config


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
    with pytest.raises(RegistrationError, match=r"state of a training, not its result; choose model\.pt"):
        weights.load(tmp_path / "halves" / train.CHECKPOINT)
    interrupt = InterruptAfter(4)
    with pytest.raises(KeyboardInterrupt):
        train.train(half, tick=interrupt)
    assert state_of(tmp_path / "halves")["iteration"] in (3, 4)
    train.train(half)
    whole, halves = state_of(tmp_path / "whole"), state_of(tmp_path / "halves")
    assert whole["iteration"] == halves["iteration"] == 6
    for part in ("network", "average", "optimiser", "best", "since_best"):
        for a, b in zip(flat(whole[part]), flat(halves[part]), strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    for rows in zip(whole["history"], halves["history"], strict=True):
        one, two = ({k: v for k, v in row.items() if not k.endswith(("seconds", "second"))} for row in rows)
        assert one == two and "train lncc" in one
    models = [weights.load(tmp_path / name / train.MODEL).manifest.sha256 for name in ("whole", "halves")]
    assert models[0] == models[1]


def test_the_log_has_every_validation_once_also_where_iterations_were_done_again(pack, tmp_path):
    settings = config(pack, tmp_path, schedule=Schedule(iterations=6, validate_every=3, checkpoint_minutes=60.0))
    with pytest.raises(KeyboardInterrupt):
        train.train(settings, tick=InterruptAfter(5))
    assert not (tmp_path / train.CHECKPOINT).exists(), "the third iteration will be done again"
    train.train(settings)
    rows = [json.loads(line) for line in (tmp_path / train.LOG).read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [3, 6]
    assert all(row["iterations per second"] > 0 for row in rows)


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_each_process_gets_a_gpu_of_its_own_and_the_connections_for_it(monkeypatch, wanted):
    """Also where GPUs were found instead of asked for."""
    chosen, began = [], []
    monkeypatch.setattr(crew, "choose_device", lambda wanted: ("cuda", "It was found."))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name, value in (("init_process_group", began.append), ("get_rank", lambda: 1), ("get_world_size", lambda: 2)):
        monkeypatch.setattr(crew.dist, name, value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert crew.Crew.join(wanted).device(wanted) == "cuda:1"
    assert chosen == [1] and began == ["nccl"]


def test_two_processes_train_one_network(pack, tmp_path):
    """Started by torchrun: other examples in each process, the same weights in both, one checkpoint."""
    script = tmp_path / "two.py"
    script.write_text(
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import os, torch; torch.set_num_threads(1)\n"
        "from training_setup import config\n"
        "from neuralreg import train\nfrom neuralreg.training import data\n"
        f"settings = config({str(pack)!r}, {str(tmp_path / 'out')!r})\n"
        "seen = []\n"
        f"trainer = train.trainer_of(settings, data.Pack.load({str(pack)!r}))\n"
        "values = [trainer.step()['lncc'] for _ in range(2)]\n"
        f"torch.save((trainer.network.state_dict(), values), {str(tmp_path)!r} + f'/rank{{trainer.crew.rank}}.pt')\n"
        "train.train(settings)\n"
    )
    result = two_processes([script], os.environ | {"PYTHONPATH": str(Path(__file__).parent)})
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

    def __call__(self, progress):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_training_writes_a_model_that_says_what_it_is(pack, tmp_path):
    path = train.train(config(pack, tmp_path, about={"contrast": "T1", "licence": "CC0"}))
    manifest = weights.load(path).manifest
    assert (manifest.method, manifest.contrast, manifest.licence) == ("VoxelMorph", "T1", "CC0")
    assert manifest.training["validation"]["folds %"] == 0.0
    assert manifest.training["subjects"] == len(data.Pack.load(pack).subjects) - 2, "those held out taught it nothing"
    rows = [json.loads(line) for line in (tmp_path / train.LOG).read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [3, 6]


def test_a_symmetric_objective_says_the_same_of_a_pair_and_of_its_reverse(pack, tmp_path):
    source = train.trainer_of(config(pack, tmp_path), data.Pack.load(pack)).source
    one = source.example(source.pack.subjects, torch.Generator().manual_seed(1))
    other = Example(one.moving_seen, one.fixed_seen, one.moving, one.fixed)
    velocity = torch.randn(1, 3, 9, 9, 9, generator=torch.Generator().manual_seed(2))
    values = {}
    for symmetric in (True, False):
        objective = Objective({"lncc": 1.0}, scales=1, symmetric=symmetric)
        values[symmetric] = [objective(*what)[1]["lncc"] for what in ((one, velocity), (other, -velocity))]
    assert values[True][0] == pytest.approx(values[True][1], abs=1e-5)
    assert abs(values[False][0] - values[False][1]) > 1e-3


def test_the_rate_rises_to_its_height_and_falls_to_its_end():
    schedule = Schedule(iterations=1000, rate=0.01, warmup=10, last_rate=0.2)
    assert schedule.rate_at(0) == pytest.approx(0.001, rel=0.01)
    assert schedule.rate_at(9) == pytest.approx(0.01, rel=0.01)
    assert schedule.rate_at(500) == pytest.approx(0.006, rel=0.01)  # the middle between the height and the end
    assert schedule.rate_at(1000) == schedule.rate_at(2000) == pytest.approx(0.002)


def test_the_model_is_the_best_by_images_and_labels_together(pack, tmp_path, monkeypatch):
    """Its weights are the running mean, which is what was validated."""
    found = iter([{"lncc": 0.5, "dice": 0.2}, {"lncc": 0.45, "dice": 0.4}, {"lncc": 0.46, "dice": 0.3}])
    validated = []

    def validate(trainer):
        validated.append({name: value.clone() for name, value in trainer.average.state_dict().items()})
        return next(found)

    monkeypatch.setattr(Trainer, "validate", validate)
    checkpoint = weights.load(train.train(config(pack, tmp_path, schedule=Schedule(iterations=3, validate_every=1))))
    assert checkpoint.manifest.training["iterations"] == 2
    for name, value in checkpoint.state.items():
        torch.testing.assert_close(value, validated[1][name].half().float(), atol=0, rtol=0)


@pytest.mark.parametrize("term", ["lncc", "dice"])
def test_a_network_trained_on_one_subject_pair_brings_it_together(pack, tmp_path, term):
    """By the images alone, and by the labels alone."""
    schedule = Schedule(iterations=60, rate=3e-3, validate_every=60, warmup=1, average=0.5, last_rate=1.0)
    settings = config(pack, tmp_path, schedule=schedule, augmentation=STILL, validation_subjects=3, labels=(1,))
    objective = dataclasses.replace(settings.objective, terms={term: 1.0, "smoothness": 0.1})
    settings = dataclasses.replace(settings, objective=objective)
    trainer = train.trainer_of(settings, data.Pack.load(pack))
    values = [trainer.step()[term] for _ in range(60)]
    assert np.mean(values[-5:]) < np.mean(values[:5]) - {"lncc": 0.1, "dice": 0.04}[term]


def test_a_training_that_no_longer_improves_stops(pack, tmp_path):
    """A rate of zero improves nothing: the first validation is the best, and patience ends with the third one."""
    schedule = Schedule(iterations=50, rate=0.0, validate_every=2, patience=2)
    settings = config(pack, tmp_path, schedule=schedule)
    train.train(settings)
    assert [row["iteration"] for row in state_of(tmp_path)["history"]] == [2, 4, 6]
    train.train(settings)  # and it stays at its end
    assert state_of(tmp_path)["iteration"] == 6


def test_at_half_resolution_training_sees_every_second_voxel_and_the_model_works_on_all(pack, tmp_path):
    settings = config(pack, tmp_path, training_resolution="Half")
    trainer = train.trainer_of(settings, data.Pack.load(pack, settings.seen[1]))
    example = trainer.source.example(trainer.training, torch.Generator().manual_seed(0))
    assert example.fixed.shape == (1, 1, 9, 9, 9)
    fine = dataclasses.replace(trainer.source, lattice=(17, 17, 17), spacing=2.0)
    every = fine.example(trainer.training, torch.Generator().manual_seed(0)).fixed[..., ::2, ::2, ::2]
    torch.testing.assert_close(example.fixed, every, atol=0.01, rtol=0)  # the same view, of the same millimetres
    manifest = weights.load(train.train(settings)).manifest
    assert (manifest.spacing, manifest.lattice, manifest.training["spacing"]) == (2.0, (17, 17, 17), 4.0)
    with pytest.raises(RegistrationError, match="training resolution"):
        config(pack, tmp_path, training_resolution="quarter")


def test_a_training_shows_its_progress_as_a_registration_does(pack, tmp_path, capsys, monkeypatch):
    """On a terminal the bar is drawn again and again, and every validation begins a line of its own."""
    (tmp_path / "c.toml").write_text(TENSORBOARD_CONFIG.format(data=str(pack), output=str(tmp_path / "out")))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["train", str(tmp_path / "c.toml")]) == 0
    said = capsys.readouterr().err.split("\r\033[K")[1:]
    assert [text.split()[:1] for text in said] == [["train"], ["iteration"], ["train"], ["iteration"], []]
    assert [text.count("#") for text in said[:-1:2]] == [15, 30] and "left" in said[0]


def test_mixed_precision_computes_in_half_and_keeps_whole_weights(pack, tmp_path):
    values, types = {}, {}
    for precision in ("float32", "bfloat16"):
        trainer = train.trainer_of(config(pack, tmp_path, precision=precision), data.Pack.load(pack))
        trainer.network.decoder[3].register_forward_hook(lambda _, __, out, name=precision: types.update({name: out}))
        values[precision] = [trainer.step()["lncc"] for _ in range(3)]
        assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}
    assert {name: out.dtype for name, out in types.items()} == {"float32": torch.float32, "bfloat16": torch.bfloat16}
    np.testing.assert_allclose(values["bfloat16"], values["float32"], atol=0.01)


def test_names_in_a_configuration_are_taken_in_any_case(tmp_path):
    """A term whose name nobody knew would silently not count."""
    (tmp_path / "c.toml").write_text(
        "data = 'a'\noutput = 'b'\nMethod = 'voxelmorph'\nprecision = 'BFloat16'\n[objective]\nterms = {LNCC = 1}"
    )
    loaded = load_config(tmp_path / "c.toml")
    assert (loaded.method, loaded.precision, loaded.objective.terms) == ("VoxelMorph", "bfloat16", {"lncc": 1})


def test_a_checkpoint_that_is_none_of_this_training_gets_a_sentence_and_executes_nothing(pack, tmp_path):
    train.train(config(pack, tmp_path), hours=0.0)
    for network in (SMALL | {"width": 0.25}, SMALL | {"half_resolution": False}):
        with pytest.raises(RegistrationError, match="another network"):
            train.train(config(pack, tmp_path, network=network))
    torch.save({"network": Executed(tmp_path / "trap")}, tmp_path / "malicious.pt")
    for content in (b"half a", (tmp_path / "malicious.pt").read_bytes()):
        (tmp_path / train.CHECKPOINT).write_bytes(content)
        with pytest.raises(RegistrationError, match="damaged"):
            train.train(config(pack, tmp_path))
    assert not (tmp_path / "trap").exists()


def test_a_folder_holds_one_training(pack, tmp_path):
    """Its end would be taken for the result of the new settings; the schedule and the computer may change."""
    settings = config(pack, tmp_path)
    trained = train.train(settings).read_bytes()
    other = {
        "objective": dataclasses.replace(settings.objective, terms={"ncc": 1.0}),
        "augmentation": STILL,
        "spacing": 3.0,
        "labels": (1,),
        "seed": 1,
    }
    for name, value in other.items():
        with pytest.raises(RegistrationError, match=f"with another {name}; choose another output"):
            train.train(dataclasses.replace(settings, **{name: value}))
    assert (tmp_path / train.MODEL).read_bytes() == trained
    longer = dataclasses.replace(settings.schedule, iterations=7)
    train.train(dataclasses.replace(settings, schedule=longer, threads=1, precision="bfloat16"))
    assert state_of(tmp_path)["iteration"] == 7


def test_what_is_said_of_a_model_can_be_corrected_when_it_is_trained(pack, tmp_path):
    """Nobody trains for days again because of a licence; the weights stay what they are."""
    settings = config(pack, tmp_path, about={"contrast": "say which", "licence": "say which"})
    before = weights.load(train.train(settings))
    train.train(dataclasses.replace(settings, about={"contrast": "T1", "licence": "CC0"}))
    after, card = weights.load(tmp_path / train.MODEL), json.loads((tmp_path / "model.json").read_text())
    assert after.manifest == dataclasses.replace(before.manifest, contrast="T1", licence="CC0")
    assert card["name"] == "model" and (card["contrast"], card["licence"]) == ("T1", "CC0")
    for name, value in before.state.items():
        assert torch.equal(after.state[name], value)


def test_a_start_that_cannot_be_gets_a_sentence(pack, tmp_path, monkeypatch):
    trained = train.train(config(pack, tmp_path / "first"))
    train.train(config(pack, tmp_path / "second", initial=str(trained)), hours=0.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wrong = [
        ({"initial": str(trained), "network": SMALL | {"width": 0.25}}, "of another network"),
        ({"initial": str(tmp_path / "none.pt")}, "no model at"),
        ({"device": "cuda"}, 'device "cuda" cannot be used'),
        ({"network": {"width": -1.0}}, "no network with"),
        ({"network": {"half_resolution": "no"}}, "half_resolution is true or false"),
        ({"network": {"width": True}}, "width is no switch"),
        ({"network": {"half_res": True}}, 'did you mean "half_resolution"'),
        ({"network": {"feature": "mind"}}, 'did you mean "features"'),
        ({"network": {"dimensions": 2}}, "do not fit together"),
        ({"objective": Objective({"lncc": 1.0}, {"lncc": {"window": 0}}, scales=1)}, "do not fit together"),
        ({"labels": (1, 77)}, r"No label map of the training data holds \[77\]"),
        ({"output": str(trained)}, "cannot be a folder"),
    ]
    for changes, words in wrong:
        with pytest.raises(RegistrationError, match=words):
            train.train(config(pack, **{"output": tmp_path / "third"} | changes))


def test_label_maps_that_are_asked_for_must_be_there(pack, tmp_path):
    found = data.Pack.load(pack)
    bare = data.Pack(tuple(dataclasses.replace(s, labels=None) for s in found.subjects), found.centre)
    settings = config(pack, tmp_path, painted=0.5)
    assert train.trainer_of(settings, found).source.painted == 0.5
    with pytest.raises(RegistrationError, match="no label maps in the data"):
        train.trainer_of(settings, bare)


def test_an_example_without_what_is_compared_teaches_nothing(pack, tmp_path):
    """Supervised alone: half of the examples have no known field."""
    settings = config(pack, tmp_path, known=0.5, objective=Objective({"known": 1.0}, scales=1, squarings=2))
    manifest = weights.load(train.train(settings)).manifest
    assert manifest.training["iterations"] > 0 and "train known" in manifest.training["validation"]
    example = dataclasses.replace(train.trainer_of(settings, data.Pack.load(pack)).source, known=0.0).example(
        data.Pack.load(pack).subjects, torch.Generator().manual_seed(0)
    )
    total, _ = settings.objective(example, torch.ones(1, 3, 9, 9, 9, requires_grad=True))
    assert float(total) == 0.0 and total.requires_grad


def test_a_training_that_ends_before_its_first_validation_names_no_model(pack, tmp_path, capsys):
    (tmp_path / "c.toml").write_text(TENSORBOARD_CONFIG.format(data=str(pack), output=str(tmp_path / "out")))
    assert main(["train", str(tmp_path / "c.toml"), "--hours", "0"]) == 0
    said = capsys.readouterr()
    assert not said.out and "call again" in said.err
    assert main(["train", str(tmp_path / "c.toml")]) == 0
    assert Path(capsys.readouterr().out.strip()).exists()


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


@pytest.mark.parametrize("name", sorted(p.name for p in CONFIGS.glob("*.toml")))
def test_configurations_that_come_along_are_valid(name):
    loaded = load_config(name, output="elsewhere")
    assert loaded.output == "elsewhere"
    assert loaded.about["licence"]
    for forbidden in ("brain_labelled", "hippocampus", "multimodal", "lung_ct"):
        assert forbidden not in (CONFIGS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data = 'a'\noutput = 'b'\niteratons = 3", "entry in the configuration"),
        ("data = 'a'\noutput = 'b'\n[schedule]\niteratons = 3", 'did you mean "iterations"'),
        ("data = 'a'\noutput = 'b'\n[objective]\nterms = {lncd = 1}", 'did you mean "lncc"'),
        ("data = 'a'", "missing"),
        ("data = ", "cannot be read"),
        ("[objective]\noptions = {lncc = {windw = 3}}", 'did you mean "window"'),
        ("[objective]\noptions = {dice = {window = 3}}", "similarity with options"),
        ("[objective]\nterms = {}", "needs terms"),
        ("[objective]\nterms = {lncc = '1'}", '"terms.lncc" of the configuration must be a number'),
        ("[objective]\nscales = 7", "too many for the lattice"),
        ("[objective]\nterms = {lncc = 1, dice = 1}", "labels = "),
        ("[objective]\nterms = {lncc = 1, known = 1}", "known = 0.5"),
        ("schedule = 10", '"schedule" of the configuration must be a table'),
        ("[schedule]\niterations = '10'", '"iterations" of the configuration must be a whole number'),
        ("[schedule]\nvalidate_every = 0", "validate_every must be 1"),
        ("[schedule]\niterations = 0", "iterations must be 1"),
        ("validation_pairs = 0", "validation_pairs must be 1"),
        ("lattice = [17, 17]", "must hold 3 values"),
        ("lattice = [17, 17, 7]", "three sizes"),
        ("lattice = 17", '"lattice" of the configuration must be a list of 3'),
        ("[augmentation]\nrotation = 0", '"rotation" of the configuration must be a list of 3'),
        ("spacing = 0", "three sizes"),
        ("known = 2", "between 0 and 1"),
        ("seed = -1", '"seed" must be a whole number'),
        ("seed = 99999999999999", "at most"),
        ("[schedule]\nrate = nan", "rate must be 0 or larger"),
        ("[schedule]\naverage = 1.0", "average and last_rate between 0 and 1"),
        ("[objective]\nsquarings = 99", "squarings lie between"),
        ("[objective]\nterms = {lncc = 1, smoothness = -1}", "weights of terms are 0 or larger"),
        ("[augmentation]\nrotation = [1, 2]", "must hold 3 values"),
        ("[about]\nlicense = 'CC0'", 'did you mean "licence"'),
    ],
)
def test_wrong_configurations_get_a_sentence(tmp_path, text, words):
    complete = text if "data" in text else "data = 'a'\noutput = 'b'\n" + text
    (tmp_path / "c.toml").write_text(complete)
    with pytest.raises(RegistrationError, match=words):
        load_config(tmp_path / "c.toml")
    with pytest.raises(RegistrationError, match="no configuration"):
        load_config(tmp_path / "d.toml")
