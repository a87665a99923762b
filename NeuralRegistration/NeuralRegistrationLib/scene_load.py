"""A finished run directory → nodes of the scene, all of them or none."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import slicer
import vtk
from neuralreg.job import INVERSE, JACOBIAN, RESULT, TRANSFORM, WARPED, RegistrationError, Result

from . import results, run_files
from .colours import show_jacobian
from .moved import Place, note_places, place
from .plain_transform import parts_of
from .results import Run
from .transform_file import read_transform

INVERSE_TOLERANCE_MM = 1e-5  # Slicer's default of 0.01 mm is visible in points taken there and back

CHUNK_BYTES = 1 << 20  # some milliseconds of unpacking

CREATE, SKIP = "create", "skip"


@dataclass(frozen=True)
class Outputs:
    """Where each result goes: CREATE a node, SKIP it, or into an existing node."""

    transform: object = CREATE
    inverse: object = CREATE
    warped: object = CREATE
    jacobian: object = CREATE

    def existing(self) -> list:
        """The nodes of the scene that shall take a result."""
        return [one for one in vars(self).values() if one not in (CREATE, SKIP)]

    def anew(self) -> Outputs:
        """The same results, all of them as new nodes."""
        return Outputs(**{name: SKIP if one is SKIP else CREATE for name, one in vars(self).items()})


def load_run(run_dir: Path, fixed, moving, name: str, outputs: Outputs = Outputs()) -> Run:
    """Load what a run wrote; when anything is missing or broken, the scene stays as it was.

    Raises RegistrationError naming the file.
    """
    *_steps, run = load_steps(run_dir, fixed, moving, name, outputs)
    return run


def load_transform(path: Path, name: str):
    """A new node of a transform file that the core has written. Raises RegistrationError naming the file."""
    steps = _read_transform(Path(path))
    try:
        while True:
            next(steps)
    except StopIteration as end:
        node = _transform_node(end.value)
    node.SetName(name)
    return node


def load_steps(
    run_dir: Path, fixed, moving, name: str, outputs: Outputs, places: dict[str, Place] | None = None
) -> Iterator[Run | None]:
    """`load_run` in short steps, so that the window stays alive between them: None after each, at last the run.

    places: where the two volumes lay when they were registered, by side, if that was noted.
    When a step raises, or the steps are given up (`close`), everything that was added is taken away again.
    """
    run_dir, undo, new = Path(run_dir), _Undo(), {}
    result, name = Result.load(run_dir / RESULT), results.unused(name)
    try:
        for role, prepare, make_node, file, title in (
            ("transform", _read_transform, _transform_node, TRANSFORM, name),
            ("inverse", _read_transform, _transform_node, INVERSE, f"{name} inverse"),
            ("warped", _unpack, _volume_node, WARPED, f"{name} warped"),
            ("jacobian", _unpack, _volume_node, JACOBIAN, f"{name} Jacobian"),
        ):
            new[role] = None
            if getattr(outputs, role) is not SKIP:
                if not (run_dir / file).exists():
                    raise RegistrationError(f"The run left no {file}; run it again.")
                content = yield from prepare(run_dir / file)
                with undo.watch():
                    new[role] = make_node(content)
                    new[role].SetName(slicer.mrmlScene.GenerateUniqueName(title))
                yield None
        with undo.watch():
            run = _join(new, result, fixed, moving, name, outputs)
            note_places(run.table, places or {"fixed": place(fixed), "moving": place(moving)})
            run_files.note_transform(run)
            run_files.keep(run.table, run_dir)
    except BaseException:
        undo.restore()
        raise
    yield run


def _join(new: dict, result: Result, fixed, moving, name: str, outputs: Outputs) -> Run:
    """Make one run of the loaded nodes: references, display, table, folder."""
    kept = {role: _into_existing(node, getattr(outputs, role)) for role, node in new.items()}
    _reference(kept["transform"], fixed, moving)
    _reference(kept["inverse"], moving, fixed)
    if kept["warped"] is not None:
        _copy_display(moving, kept["warped"])
        _copy_units(moving, kept["warped"])
    if kept["jacobian"] is not None:
        show_jacobian(kept["jacobian"])
    table = results.add_table(name, result, fixed=fixed, moving=moving, **kept)
    run = results.run_of(table)
    results.add_folder(run)
    return run


class _Undo:
    """Remembers the nodes and folders that were added while it watched, to take them away again."""

    def __init__(self):
        self._nodes: set[str] = set()
        self._items: set[int] = set()

    @staticmethod
    def _now() -> tuple[set[str], set[int]]:
        scene = slicer.mrmlScene
        items = set(results.items(results.hierarchy()))  # asked first: it may add the hierarchy's own node
        return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}, items

    @contextmanager
    def watch(self):
        nodes, items = self._now()
        try:
            yield
        finally:
            nodes_after, items_after = self._now()
            self._nodes |= nodes_after - nodes
            self._items |= items_after - items

    def restore(self) -> None:
        for node_id in self._nodes:
            node = slicer.mrmlScene.GetNodeByID(node_id)
            if node is not None:
                slicer.mrmlScene.RemoveNode(node)
        for item in self._items & set(results.items(results.hierarchy())):
            results.hierarchy().RemoveItem(item)


def _unpack(path: Path) -> Generator[None, None, Path]:
    """Unpack a .nii.gz beside itself bit by bit; returns the unpacked file.

    Raises RegistrationError for a broken file or a full disk.
    """
    unpacked = path.with_name(path.name.removesuffix(".gz"))
    try:
        with gzip.open(path) as packed, unpacked.open("wb") as plain:
            while chunk := packed.read(CHUNK_BYTES):
                plain.write(chunk)
                yield
    except (OSError, EOFError, zlib.error) as error:
        raise RegistrationError(
            f"{path.name} of the run cannot be unpacked ({error}); check that the disk is not full and run it again."
        ) from error
    return unpacked


def read_voxels(node, path: Path) -> bool:
    """Fill a volume node from one file; returns whether that can be read.

    By the storage node alone: slicer.util.loadVolume shows a progress dialog, which lets clicks and timers in between.
    """
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetSingleFile(True)
    storage.SetFileName(str(path))
    return bool(storage.ReadData(node))


def _volume_node(path: Path):
    """The node of an unpacked file, which is removed."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOff()  # before there are voxels to look for a window in
    if not read_voxels(node, path):
        raise RegistrationError(f"Slicer cannot read {path.name}.gz of the run; run it again.")
    path.unlink()
    return node


def _read_transform(path: Path) -> Generator[None, None, vtk.vtkGeneralTransform]:
    try:
        return (yield from read_transform(path))
    except (OSError, ValueError) as error:
        raise RegistrationError(f"{path.name} of the run cannot be read ({error}); run it again.") from error


def _transform_node(from_parent: vtk.vtkGeneralTransform):
    interpolate_like_itk(from_parent)
    linear = vtk.vtkTransform()
    if slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(from_parent, linear):  # every module takes such a node
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        node.SetMatrixTransformFromParent(linear.GetMatrix())
        return node
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformFromParent(from_parent)
    return node


def interpolate_like_itk(transform) -> None:
    """Set displacement grids to linear, as in ITK, and the inverse to 1e-5 mm."""
    for part in parts_of(transform):
        if part.IsA("vtkOrientedGridTransform"):
            part.SetInterpolationModeToLinear()
        if hasattr(part, "SetInverseTolerance"):
            part.SetInverseTolerance(INVERSE_TOLERANCE_MM)


def interpolate_all_like_itk() -> None:
    """`interpolate_like_itk` for every result in the scene: from a scene file Slicer reads grids as cubic again."""
    for run in results.runs():
        for node in (run.transform, run.inverse):
            if node is not None:  # the one that it holds, and the one that is derived from it
                interpolate_like_itk(node.GetTransformToParent())
                interpolate_like_itk(node.GetTransformFromParent())


def _into_existing(node, output):
    """Move what was loaded into the node that the user chose; keep the new one without it, or where it was deleted."""
    if node is None or output in (CREATE, SKIP) or results.in_scene(output) is None:
        return node
    results.forget(output)
    output.SetAndObserveTransformNodeID(None)  # the result is in world space
    if node.IsA("vtkMRMLTransformNode"):
        output.SetAndObserveTransformFromParent(node.GetTransformFromParent())
    else:
        output.CopyOrientation(node)
        output.SetAndObserveImageData(node.GetImageData())
        if node.GetDisplayNode() is not None:
            slicer.mrmlScene.RemoveNode(node.GetDisplayNode())
    slicer.mrmlScene.RemoveNode(node)
    return output


def _reference(transform, fixed, moving) -> None:
    """Note on a transform node which volumes it joins; modules that show transforms use this."""
    if transform is None:
        return
    roles = transform.GetFixedNodeReferenceRole(), transform.GetMovingNodeReferenceRole()
    for role, node in zip(roles, map(results.in_scene, (fixed, moving)), strict=True):
        transform.SetNodeReferenceID(role, node.GetID() if node is not None else None)


def _copy_display(source, target) -> None:
    """Window, level and colours of the moving volume for its warped copy; a window of its own where there is none.

    Items of a sequence have no display, label maps one without a window.
    """
    target.CreateDefaultDisplayNodes()
    display, shown = target.GetDisplayNode(), source.GetDisplayNode() if source is not None else None
    if shown is None or not shown.IsA("vtkMRMLScalarVolumeDisplayNode"):
        display.AutoWindowLevelOn()
        if display.GetWindow() <= 0:  # nearly all is background
            display.AutoWindowLevelOff()
            display.SetWindowLevelMinMax(*target.GetImageData().GetScalarRange())
    else:
        display.CopyContent(shown)
        display.SetAndObserveColorNodeID(shown.GetColorNodeID())


def _copy_units(source, target) -> None:
    """What the grey values are and in which unit, such as HU, where DICOM has told: Segment Statistics says so."""
    target.SetVoxelValueQuantity(source.GetVoxelValueQuantity())
    target.SetVoxelValueUnits(source.GetVoxelValueUnits())
