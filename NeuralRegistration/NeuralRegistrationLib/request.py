"""What the user asks for, and how it becomes files and a job for the worker."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from neuralreg.job import JOB, RegistrationError, RegistrationJob
from neuralreg.methods import make_method

from . import landmarks
from .dependencies import cores
from .lattice import world_bounds
from .moved import above, check_unmoved, lies_under
from .options import as_text
from .scene_export import export_mask, export_transform, export_volume, volumes_overlap
from .scene_load import Outputs

LONGEST_NAME = 60  # of a file, as some systems limit whole paths
INPUTS = ("fixed", "moving", "fixed_mask", "moving_mask", "initial_transform")  # nodes that no output may replace
CENTRING = "centre of the moving volume onto that of the fixed one"


@dataclass(frozen=True)
class Request:
    """One registration of nodes of the scene. `centre` moves the centres together when the volumes do not overlap."""

    fixed: Any
    moving: Any
    fixed_mask: Any = None
    moving_mask: Any = None
    initial_transform: Any = None
    fixed_landmarks: Any = None
    moving_landmarks: Any = None
    centre: bool = False
    method: str = "DNVF"
    preset: str = "balanced"
    similarity: str = "auto"
    affine: str = "affine"
    device: str = "auto"
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=Outputs)
    name: str = ""

    def title(self) -> str:
        """The name of the run's folder and, with an addition, of its nodes."""
        return self.name or f"{self.moving.GetName()} to {self.fixed.GetName()} ({self.method})"

    def landmarks(self) -> tuple:
        """The two point lists that guide the registration; (None, None) without."""
        return self.fixed_landmarks, self.moving_landmarks

    def names(self) -> dict[str, str]:
        """The names of the nodes that are given, by role."""
        given = {name: getattr(self, name) for name in INPUTS}
        return {name: node.GetName() for name, node in given.items() if node is not None}

    def settings(self) -> str:
        """What tells this registration from another one of the same pair, in a few words."""
        chosen = [f"preset {self.preset}"]
        chosen += [f"linear stage {self.affine}"] if self.affine != "affine" else []
        chosen += [f"similarity {self.similarity}"] if self.similarity != "auto" else []
        chosen += [f"{name.replace('_', ' ')} {as_text(value)}" for name, value in self.options.items()]
        chosen += [name.replace("_", " ") for name in INPUTS[2:] if getattr(self, name) is not None]
        return "; ".join([*chosen, *(["landmarks"] if self.landmarks() != (None, None) else [])])

    def of_another(self, moving, name: str) -> Request:
        """The same for another moving volume; what belongs to this one is left out: its mask, and landmarks in it.

        Results go to new nodes: in an existing one each volume's result would replace that of the one before.
        """
        own = {"moving_mask": None, "fixed_landmarks": None, "moving_landmarks": None, "outputs": self.outputs.anew()}
        return replace(self, moving=moving, name=name, **own)


def check(request: Request) -> None:
    """Raise RegistrationError for what can be known to be wrong before anything is written."""
    missing = [side for side in ("fixed", "moving") if getattr(request, side) is None]
    if missing:
        raise RegistrationError(f"Choose the {' and the '.join(missing)} volume.")
    if request.fixed is request.moving:
        raise RegistrationError("Fixed and moving are the same volume; choose two different ones.")
    overlap = volumes_overlap(request.fixed, request.moving)  # raises for a volume that cannot be registered at all
    if request.initial_transform is not None and lies_under(request.moving, request.initial_transform):
        raise RegistrationError(
            f'The moving volume already lies under "{request.initial_transform.GetName()}", which would be applied '
            "twice; choose no initial transform, or take the volume out of it."
        )
    _check_outputs(request)
    make_method(request.method, request.preset, request.options)
    for side in ("fixed", "moving"):
        volume = getattr(request, side)
        for belonging in (getattr(request, f"{side}_mask"), getattr(request, f"{side}_landmarks")):
            check_unmoved(belonging, volume, above(volume))
    if request.landmarks() != (None, None):
        landmarks.pairs(*request.landmarks())
    if not (overlap or request.centre or request.initial_transform is not None):
        raise RegistrationError(
            "The volumes do not overlap in physical space; switch on Centre, or choose an initial transform."
        )


def write_job(request: Request, folder: Path) -> Path:
    """Export the nodes and the job into a folder of the run; returns the job's path.

    Raises RegistrationError with one sentence, and OSError when the folder cannot be written.
    """
    check(request)
    inputs, run = folder / "inputs", folder / "run"
    inputs.mkdir()
    run.mkdir()
    initial, names = None, request.names()
    if request.initial_transform is not None:
        initial = export_transform(request.initial_transform, inputs / "initial.h5", request.fixed)
    elif request.centre and not volumes_overlap(request.fixed, request.moving):
        initial, names["initial_transform"] = _centring(request, inputs / "initial.h5"), CENTRING
    others = {}
    for name, mask, volume in (
        ("fixed_mask", request.fixed_mask, request.fixed),
        ("moving_mask", request.moving_mask, request.moving),
    ):
        others[name] = None if mask is None else export_mask(mask, volume, inputs / f"{name}.nrrd")
    if request.landmarks() != (None, None):
        others["fixed_landmarks"], others["moving_landmarks"] = landmarks.write_lists(*request.landmarks(), inputs)
    job = RegistrationJob(
        fixed=export_volume(request.fixed, _file(inputs / "fixed", request.fixed)),
        moving=export_volume(request.moving, _file(inputs / "moving", request.moving)),
        output=str(run), method=request.method, preset=request.preset, similarity=request.similarity,
        affine=request.affine, initial_transform=initial, device=request.device, seed=request.seed,
        threads=cores(), options=request.options, names=names, **others,
    )  # fmt: skip
    job.save(run / JOB)
    return run / JOB


def _file(folder: Path, volume) -> Path:
    """A file in a new folder, called like the volume; ASCII, for ITK."""
    folder.mkdir()
    name = re.sub(r"[^\w.-]+", "_", volume.GetName(), flags=re.ASCII).strip("._")
    return folder / f"{name[:LONGEST_NAME] or folder.name}.nrrd"


def in_words(message: str, request: Request, folder: Path) -> str:
    """What a run said of its input files, with the names of the nodes from which `write_job` made them."""
    for name in (*INPUTS, "fixed_landmarks", "moving_landmarks"):
        node, place = getattr(request, name), re.escape(str(folder / "inputs" / name.replace("_transform", "")))
        if node is not None:  # the files of volumes are called like them, in folders fixed and moving
            quoted = f'"{node.GetName()}"'
            message = re.sub(rf"{place}([\\/][\w.-]+)?\.(nrrd|h5|csv)", lambda _, quoted=quoted: quoted, message)
    return message


def _check_outputs(request: Request) -> None:
    """A result may not replace what the run needs, nor another result of it."""
    targets = request.outputs.existing()
    if len({node.GetID() for node in targets}) < len(targets):
        raise RegistrationError("Two outputs go to the same node; choose different ones, or create new ones.")
    for node in targets:
        if any(node is getattr(request, name) for name in INPUTS):
            raise RegistrationError(
                f'"{node.GetName()}" is an input and cannot be an output too; choose another node, or create a new one.'
            )
        under = next((v for v in (request.fixed, request.moving) if lies_under(v, node)), None)
        if under is not None:
            raise RegistrationError(
                f'"{under.GetName()}" lies under the output "{node.GetName()}" and would move with it; take it out of '
                "that transform first, or create a new one."
            )


def _centring(request: Request, path: Path) -> str:
    """Write the shift that moves the centre of the moving volume onto that of the fixed one."""
    low_fixed, high_fixed = world_bounds(request.fixed)
    low_moving, high_moving = world_bounds(request.moving)
    matrix = np.eye(4)
    matrix[:3, 3] = (low_fixed + high_fixed - low_moving - high_moving) / 2
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    try:
        node.SetHideFromEditors(True)
        node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        return export_transform(node, path, request.fixed)
    finally:
        slicer.mrmlScene.RemoveNode(node)
