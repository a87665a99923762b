"""Checkpoints: what is read is what was written, and nothing else is ever executed."""

import json
import pickle

import pytest
import torch
from neuralreg import weights
from neuralreg.feedforward import build, network_of
from neuralreg.job import RegistrationError
from neuralreg.networks.unet import UNet
from neuralreg.weights import Manifest
from training_setup import Executed

MANIFEST = Manifest("VoxelMorph", {"size": "voxelmorph-1", "half_resolution": True}, 2.0, (17, 17, 17), contrast="T1")


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = build(MANIFEST.method, MANIFEST.network)
    weights.save(tmp_path / "model.pt", network, MANIFEST)
    return tmp_path / "model.pt", network


def rewrite(path, change) -> None:
    """The checkpoint as somebody else would have written it."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def rewrite_manifest(path, values: dict) -> None:
    rewrite(path, lambda c: c.update(manifest=json.dumps(json.loads(c["manifest"]) | values)))


def test_a_checkpoint_comes_back_to_half_precision(saved):
    path, network = saved
    checkpoint = weights.load(path)
    again = network_of(checkpoint)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value.half().float(), atol=0, rtol=0)
    assert checkpoint.manifest.contrast == "T1"
    assert checkpoint.manifest.lattice == (17, 17, 17)
    assert len(checkpoint.manifest.sha256) == 64
    assert json.loads(path.with_suffix(".json").read_text())["sha256"] == checkpoint.manifest.sha256
    assert path.stat().st_size < 2.2 * sum(p.numel() for p in network.parameters()) + 20_000


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_malicious_pickle_executes_nothing(tmp_path, protocol):
    trap = tmp_path / "executed"
    bad = tmp_path / "bad.pt"
    torch.save({"manifest": "{}", "state": Executed(trap)}, bad)
    with pytest.raises(RegistrationError, match="more than weights"):
        weights.load(bad)
    bad.write_bytes(pickle.dumps(Executed(trap), protocol=protocol))
    with pytest.raises(RegistrationError):
        weights.load(bad)
    assert not trap.exists()


def test_changed_weights_are_refused(saved):
    path, _ = saved
    rewrite(path, lambda content: content["state"]["field.bias"].add_(1))
    with pytest.raises(RegistrationError, match="not those of its manifest"):
        weights.load(path)


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_are_no_numbers_are_refused(saved, value):
    """Also those that are too large for half precision: the pair would be said to diverge, which is not to blame."""
    path, network = saved
    manifest = weights.load(path).manifest
    with torch.no_grad():
        network.field.bias.fill_(value)
    weights.save(path, network, manifest)
    with pytest.raises(RegistrationError, match="hold NaN or infinity; choose another model"):
        weights.load(path)


def test_swapped_names_change_the_checksum(saved):
    _, network = saved
    state = network.state_dict()
    first, second = "final.0.bias", "final.1.bias"
    swapped = state | {first: state[second] + 1, second: state[first]}
    assert weights.checksum(swapped) != weights.checksum(state)


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 broken", b'{"a": 1}', b"\x1f\x8b"])
def test_other_files_are_refused_with_a_sentence(tmp_path, content):
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(RegistrationError, match=r"is no(t a)? model.*; choose a file written by .*\.$"):
        weights.load(path)


@pytest.mark.parametrize(
    "content",
    [{}, [1, 2], {"manifest": 3, "state": {}}, {"manifest": "{}", "state": {}}, {"config": 1, "model_state": {}}]
    + [{"config": {}, "model_state": {"flow.weight": "text"}}, {"config": {}, "model_state": {1: torch.zeros(1)}}],
)
def test_other_checkpoints_are_refused_with_a_sentence(tmp_path, content):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(RegistrationError, match=r"\.$"):
        weights.load(tmp_path / "file.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"scales": []},
        {"scales": [0.0]},
        {"scales": 2},
        {"either_order": 1},
        {"lattice": 5},
        {"lattice": [9, 9]},
        {"spacing": "2"},
        {"spacing": 0},
        {"network": []},
        {"orientation": "LPP"},
    ]
    + [
        {"format": "1"},
        {"squarings": None},
        {"squarings": 2.5},
        {"diffeomorphic": "no"},
        {"anatomy": 5},
        {"domain": ["brain"]},
        {"domain": {"volumes": "large"}},
    ]
    + [{"domain": {"volumes": [1, 2], "deciles": [0.5]}}, {"domain": {"deciles": [0.1] * 9, "stray": 0.1}}],
)
def test_a_manifest_that_cannot_be_is_refused_with_a_sentence(saved, change):
    path, _ = saved
    rewrite_manifest(path, change)
    with pytest.raises(RegistrationError, match="says not what it is"):
        weights.load(path)


def test_missing_and_newer_files(saved, tmp_path):
    with pytest.raises(RegistrationError, match="no model at"):
        weights.load(tmp_path / "nowhere.pt")
    path, _ = saved
    rewrite_manifest(path, {"format": 99})
    with pytest.raises(RegistrationError, match="newer version"):
        weights.load(path)


def test_weights_of_another_network_are_refused(saved):
    path, _ = saved
    checkpoint = weights.load(path)
    other = weights.Checkpoint(Manifest("VoxelMorph", {"size": "voxelmorph-2"}, 2.0, (17, 17, 17)), checkpoint.state)
    with pytest.raises(RegistrationError, match="do not fit"):
        network_of(other)
    with pytest.raises(RegistrationError, match="did you mean"):
        build("VoxelMorp", {})
    with pytest.raises(RegistrationError, match="no network with"):
        build("VoxelMorph", {"size": "huge"})


def as_published(network: UNet, configuration: dict) -> dict:
    """The content of a public VoxelMorph file: their names of the layers, their order of the axes (z, y, x)."""
    pooled = network.pooling
    down, up, last = ("encoder", "decoder", "remaining") if pooled else ("downarm", "uparm", "extras")
    state = {"integrate.vecint.transformer.grid": torch.zeros(1, 3, 2, 2, 2)}
    for name, value in network.state_dict().items():
        group, *rest = name.split(".")
        if group == "field":
            state[f"flow.{rest[0]}"] = value.flip(0) / (2 if network.half_resolution else 1)
        else:
            theirs = {"encoder": down, "decoder": up, "final": last}[group]
            number = f"{rest[0]}.0" if pooled and theirs != last else rest[0]
            state[f"unet_model.{theirs}.{number}.main.{rest[1]}"] = value
    return {"config": configuration, "model_state": state}


@pytest.mark.parametrize("steps", [0, 7])
@pytest.mark.parametrize(
    "options", [{}, {"pooling": True}, {"pooling": True, "half_resolution": True}, {"size": "voxelmorph-1"}]
)
def test_public_voxelmorph_checkpoints_load(tmp_path, options, steps):
    """Files {"config", "model_state"} of both generations of their code; the network must say what theirs would."""
    torch.manual_seed(0)
    network = UNet(**options)
    torch.nn.init.normal_(network.field.weight)
    theirs = {"inshape": (160, 192, 224), "int_steps": steps, "unet_half_res": network.half_resolution}
    torch.save(as_published(network, theirs), tmp_path / "vxm.pt")
    checkpoint = weights.load(tmp_path / "vxm.pt")
    images = torch.rand(2, 1, 1, 16, 16, 16)
    torch.testing.assert_close(network_of(checkpoint)(*images), network(*images))
    assert checkpoint.manifest.diffeomorphic is (steps > 0)
    assert checkpoint.manifest.squarings == steps
    assert (checkpoint.manifest.orientation, checkpoint.manifest.spacing) == ("AIL", 1.0)


def test_a_public_voxelmorph_checkpoint_of_other_layers_gets_a_sentence(tmp_path):
    content = as_published(UNet(width=0.5), {"inshape": (160, 192, 224)})
    torch.save(content, tmp_path / "vxm.pt")
    with pytest.raises(RegistrationError, match="do not fit VoxelMorph"):
        network_of(weights.load(tmp_path / "vxm.pt"))


def test_a_public_voxelmorph_checkpoint_for_images_of_several_channels_is_refused(tmp_path):
    """Such as those trained on images with their masks: we have one channel to show."""
    torch.save(as_published(UNet(channels=2), {"inshape": (80, 80, 80)}), tmp_path / "vxm.pt")
    with pytest.raises(RegistrationError, match="images of 2 channels"):
        weights.load(tmp_path / "vxm.pt")
