"""Checkpoints: weights with a manifest that says what they are, read without executing anything.

A checkpoint is a torch file {"manifest": JSON text, "state": tensors}. Weights are stored in half precision; the
manifest holds their checksum. Public VoxelMorph checkpoints ({"config", "model_state"}) are understood too.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .job import RegistrationError, write_json

FORMAT = 1
DOMAIN = {"volumes": 2, "cuts": 2, "depths": 2, "deciles": 9}  # how many numbers; `stray` is one by itself


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is. spacing in mm and lattice (D, H, W) are those of the network's input in training.

    diffeomorphic: the network's field is a velocity, to be integrated with `squarings` squarings. either_order: whether
    it was shown its pairs in either order. scales: of the passes in which it is used, in multiples of `spacing`.
    orientation: where the network's x, y and z axes point. licence: of the data that it was trained on. domain: what
    its images look like, see domain.appearance. training: how long, how well.
    """

    method: str
    network: dict[str, Any]
    spacing: float
    lattice: tuple[int, int, int]
    diffeomorphic: bool = True
    squarings: int = 7
    either_order: bool = True
    scales: tuple[float, ...] = (1.0,)
    contrast: str = "unknown"
    anatomy: str = "unknown"
    data: str = "unknown"
    licence: str = "unknown"
    orientation: str = "LPS"
    domain: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    format: int = FORMAT


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A manifest and float32 weights."""

    manifest: Manifest
    state: dict[str, Tensor]


def save(path: str | Path, network: nn.Module, manifest: Manifest) -> None:
    """Write weights in half precision (whole numbers as they are) and the manifest with their checksum.

    The manifest is also written beside the file as JSON: a card for whoever cannot read torch files, the panel first.
    """
    _save(Path(path), network.state_dict(), manifest)


def describe(path: str | Path, **words: Any) -> None:
    """Correct what a model and its card say of it (contrast, licence, scales, …); its weights stay."""
    there = load(path)
    corrected = replace(there.manifest, **words)
    if corrected != there.manifest:
        _save(Path(path), there.state, corrected)


def _save(path: Path, state: dict[str, Tensor], manifest: Manifest) -> None:
    state = {k: v.detach().cpu().half() if v.is_floating_point() else v.detach().cpu() for k, v in state.items()}
    state = {name: value.contiguous().clone() for name, value in state.items()}
    manifest = replace(manifest, sha256=checksum(state))
    write({"manifest": json.dumps(asdict(manifest), sort_keys=True), "state": state}, path)
    write_json({"name": path.stem, **asdict(manifest)}, path.with_suffix(".json"))


def write(content: dict[str, Any], path: Path) -> None:
    """A torch file, whole or as it was before. Raises RegistrationError where it cannot be written."""
    partial = path.with_name(path.name + ".partial")
    try:
        torch.save(content, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # the latter is all that torch has to say of a full disk
        raise RegistrationError(f"{path} cannot be written; make room on its disk, or name another folder.") from error
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint. Nothing in it is executed.

    Raises RegistrationError when the file is missing, is no checkpoint, wants to run code, or was changed.
    """
    content = _read(Path(path))
    if "optimiser" in content:
        raise RegistrationError(f"{path} is the state of a training, not its result; choose model.pt beside it.")
    if {"config", "model_state"} <= content.keys():
        return _from_voxelmorph(content["config"], content["model_state"])
    manifest, state = _manifest(path, content.get("manifest")), content.get("state")
    if not _are_weights(state):
        raise RegistrationError(f"{path} holds no weights; choose a file written by `neuralreg train`.")
    if checksum(state) != manifest.sha256:
        raise RegistrationError(
            f"The weights in {path} are not those of its manifest; get the file again from its source."
        )
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if not all(bool(v.isfinite().all()) for v in state.values()):
        raise RegistrationError(
            f"The weights in {path} hold NaN or infinity; choose another model, or train it again with a smaller rate."
        )
    return Checkpoint(manifest, state)


def _are_weights(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


def checksum(state: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RegistrationError(
            f"There is no model at {path}; check the path or list the models with `neuralreg models`."
        ) from error
    except PermissionError as error:
        raise RegistrationError(f"You may not read {path}; ask its owner for the permission, or for a copy.") from error
    except pickle.UnpicklingError as error:
        raise RegistrationError(
            f"{path} is no model, or contains more than weights, so it was not opened; choose a file written by "
            "`neuralreg train`, from a source that you trust."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise RegistrationError(f"{path} is not a model; choose a file written by `neuralreg train`.") from error
    if not isinstance(content, dict):
        raise RegistrationError(f"{path} is not a model; choose a file written by `neuralreg train`.")
    return content


def _manifest(path: str | Path, text: Any) -> Manifest:
    try:
        values = json.loads(text)
        known = {f.name for f in fields(Manifest)}
        manifest = Manifest(**{name: value for name, value in values.items() if name in known})
        manifest = _possible(manifest)
    except (TypeError, ValueError, AttributeError) as error:
        raise RegistrationError(f"{path} says not what it is; choose a file written by `neuralreg train`.") from error
    if manifest.format > FORMAT:
        raise RegistrationError(f"{path} was written by a newer version; update NeuralRegistration.")
    return manifest


def _possible(manifest: Manifest) -> Manifest:
    """The manifest with its lattice as a tuple. Raises ValueError or TypeError for values that cannot be."""
    kinds = {"network": dict, "format": int, "squarings": int, "diffeomorphic": bool, "either_order": bool}
    for name, kind in kinds.items():
        if not isinstance(getattr(manifest, name), kind):
            raise TypeError(f"its {name} is none")
    if not all(isinstance(getattr(manifest, f.name), str) for f in fields(Manifest) if f.type == "str"):
        raise TypeError("one of its names is none")
    if not 0 < manifest.spacing < 100 or not 0 <= manifest.squarings <= 32:
        raise ValueError("its spacing or squarings are none")
    if sorted({"R": "L", "A": "P", "I": "S"}.get(letter, letter) for letter in manifest.orientation) != list("LPS"):
        raise ValueError("its orientation is none")
    _check_domain(manifest.domain)
    return replace(manifest, lattice=_lattice(manifest.lattice), scales=_scales(manifest.scales))


def _scales(values: Any) -> tuple[float, ...]:
    """Raises ValueError or TypeError."""
    if not values or not all(0.1 <= value <= 8 for value in values):
        raise ValueError("its scales are none")
    return tuple(map(float, values))


def _check_domain(domain: dict[str, Any]) -> None:
    """Raise ValueError or TypeError unless it is empty or as domain.domain_of makes it."""
    lists = {name: domain[name] for name in DOMAIN if name in domain}
    whole = bool(domain) == ("volumes" in lists) and ("deciles" in lists) == ("stray" in domain)
    if not whole or any(len(values) != DOMAIN[name] for name, values in lists.items()):
        raise ValueError("its domain is none")
    if not math.isfinite(sum(map(sum, lists.values())) + domain.get("stray", 0.0)):
        raise ValueError("its domain is none")


def _lattice(sizes: Any) -> tuple[int, int, int]:
    """Three sizes. Raises ValueError or TypeError."""
    if len(sizes) != 3 or not all(isinstance(n, int) and 0 < n <= 4096 for n in sizes):
        raise ValueError("its lattice is none")
    return tuple(sizes)


def _from_voxelmorph(config: Any, state: Any) -> Checkpoint:
    """A public VoxelMorph model: its layers under our names, its axis order (z, y, x) turned into ours.

    Both generations of its U-Net are known: strided ("downarm") and pooled ("encoder"). They saw volumes of 1 mm whose
    array axes run, as FreeSurfer stores them, left, inferior, anterior: our z, y and x.
    """
    if not isinstance(config, dict) or not _are_weights(state):
        raise RegistrationError("The VoxelMorph model lacks its configuration; get the file again from its source.")
    weights, pooled = {}, any(name.startswith("unet_model.encoder") for name in state)
    for name, value in state.items():
        ours = _voxelmorph_name(name)
        if ours:
            weights[ours] = value.float()
    if "field.weight" not in weights or weights["field.weight"].shape[0] != 3:
        raise RegistrationError("This VoxelMorph model is not a 3D registration U-Net; choose another one.")
    channels = weights["encoder.0.weight"].shape[1] // 2 if "encoder.0.weight" in weights else 1
    if channels != 1:
        raise RegistrationError(
            f"This VoxelMorph model compares images of {channels} channels (masks beside them, say), of which a volume "
            "has one; choose a model of single images."
        )
    half = bool(config.get("unet_half_res"))  # then their field is in voxels of the halved lattice
    for name in ("field.weight", "field.bias"):
        weights[name] = weights[name].flip(0) * (2 if half else 1)
    size = "voxelmorph-1" if weights["field.weight"].shape[1] == 8 else "voxelmorph-2"
    try:
        steps, lattice = int(config.get("int_steps", 0)), _lattice(config.get("inshape", (160, 192, 224)))
    except (TypeError, ValueError) as error:
        raise RegistrationError(f"The VoxelMorph model has an odd configuration ({error}); get it again.") from error
    return Checkpoint(
        Manifest(
            method="VoxelMorph",
            network={"size": size, "pooling": pooled, "half_resolution": half},
            spacing=1.0,
            lattice=lattice,
            diffeomorphic=steps > 0,
            squarings=steps,
            either_order=False,  # many were shown one atlas as the fixed image
            contrast="T1",
            anatomy="brain",
            data="VoxelMorph, public model",
            orientation="AIL",
        ),
        weights,
    )


def _voxelmorph_name(name: str) -> str | None:
    """Our name for a parameter of theirs; None for constants (grids) of their integration layers."""
    parts = name.split(".")
    groups = {"downarm": "encoder", "encoder": "encoder", "uparm": "decoder", "decoder": "decoder"}
    groups |= {"extras": "final", "remaining": "final"}
    if parts[0] == "flow":
        return f"field.{parts[1]}"
    if parts[0] != "unet_model" or parts[1] not in groups:
        return None
    return f"{groups[parts[1]]}.{parts[2]}.{parts[-1]}"
