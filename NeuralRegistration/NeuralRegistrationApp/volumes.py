"""Volumes, points, transforms and finished runs from files into the scene.

What may be broken is read by a process of its own.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import slicer
from neuralreg.job import (
    EVALUATION,
    EXIT_USER_ERROR,
    JOB,
    OPTIONAL_PATHS,
    RESULT,
    RegistrationError,
    RegistrationJob,
    read_json,
)
from NeuralRegistrationLib import evidence
from NeuralRegistrationLib.results import Run
from NeuralRegistrationLib.scene import load_run, load_transform
from NeuralRegistrationLib.scene_load import read_voxels
from NeuralRegistrationLib.worker import Ending, Worker, python_executable

from .formats import stem

POLL_SECONDS = 0.05
PATHS = ("fixed", "moving", *OPTIONAL_PATHS)


class Reader:
    """Reads one thing after another; `folder` is private and holds what is on its way into the scene."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._worker = Worker()
        self._one_at_a_time = asyncio.Lock()

    async def nodes(self, sources: list[Path]) -> list:
        """New nodes of volumes, label maps, points and transforms, all or none. Raises RegistrationError."""
        async with self._one_at_a_time:
            target = Path(tempfile.mkdtemp(dir=self._folder))
            try:
                await self._read(target, sources)
                return [_node(target, i, source.name) for i, source in enumerate(sources)]
            finally:
                shutil.rmtree(target, ignore_errors=True)

    async def _read(self, target: Path, sources: list[Path]) -> None:
        command = [python_executable(), "-m", "NeuralRegistrationApp.reading", str(target), *map(str, sources)]
        try:
            self._worker.run(command)
        except OSError as error:
            raise RegistrationError(f"The files cannot be read ({error}); try again.") from error
        while True:
            for event in self._worker.poll():
                if isinstance(event, Ending):
                    if event.code == EXIT_USER_ERROR:
                        raise RegistrationError(event.message)
                    if event.code:
                        names = ", ".join(source.name for source in sources)
                        raise RegistrationError(f"The reader of {names} broke down; check that the file is whole.")
                    return
            await asyncio.sleep(POLL_SECONDS)

    async def run(self, folder: Path) -> tuple[Run, Path]:
        """A finished run of the command line and its volumes, in the scene; and a private copy of its folder."""
        job = RegistrationJob.load(folder / JOB)
        pair = [folder / given for given in (job.fixed, job.moving)]  # in its folder, relative paths count from there
        fixed, moving = await self.nodes(pair)
        copy = Path(tempfile.mkdtemp(dir=self._folder)) / "run"
        shutil.copytree(folder, copy)
        given = {name: getattr(job, name) for name in PATHS if getattr(job, name)}
        absolute = {name: str((folder / path).resolve()) for name, path in given.items()}
        RegistrationJob(**{**vars(job), **absolute}).save(copy / JOB)  # the report looks for them from the copy
        title = f"{moving.GetName()} to {fixed.GetName()} ({job.method})"
        run = load_run(copy, fixed, moving, title)
        if (copy / EVALUATION).exists():
            evidence.take_over(run, copy, [])
        return run, copy

    def close(self) -> None:
        self._worker.kill()


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a finished run."""
    return (path / RESULT).is_file() and (path / JOB).is_file()


def title(name: str) -> str:
    """The name of a file's node: without its ending, unless another node is called that already."""
    taken = slicer.mrmlScene.GetFirstNodeByName(stem(name)) is not None
    return slicer.mrmlScene.GenerateUniqueName(name if taken else stem(name))


def _node(folder: Path, index: int, name: str):
    """The node of a file that we have written ourselves (reading.py)."""
    points, labels, transform = (folder / f"{index}{ending}" for ending in (".json", ".label.nrrd", ".h5"))
    if points.exists():
        return _points(read_json(points, "point"), title(name))
    if transform.exists():
        return load_transform(transform, title(name))
    if labels.exists():
        return _volume("vtkMRMLLabelMapVolumeNode", labels, title(name))
    return _volume("vtkMRMLScalarVolumeNode", folder / f"{index}.nrrd", title(name))


def _points(values: dict, name: str):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    for label, (x, y, z) in zip(values["labels"], values["lps"], strict=True):
        node.AddControlPoint(-x, -y, z, label)
    node.SetLocked(True)  # looked at here, not moved
    return node


def _volume(kind: str, path: Path, name: str):
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    if not read_voxels(node, path):
        slicer.mrmlScene.RemoveNode(node)
        raise RegistrationError(f"{name} could not be brought into the scene; check the free memory and try again.")
    node.CreateDefaultDisplayNodes()
    return node
