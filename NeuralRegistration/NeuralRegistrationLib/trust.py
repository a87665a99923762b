"""The reading of a run: the checks with their lights, and the files that further evidence is measured from."""

from __future__ import annotations

import csv
from pathlib import Path

import vtk
from neuralreg import qa
from neuralreg.job import RegistrationError

from . import results
from .results import Run
from .scene_export import export_segments, export_volume, layers_of

LARGEST_VOXEL = "largest_voxel_mm"


def checks(run: Run) -> list[qa.Check]:
    """The rows of the table."""
    return qa.read(run.measurements, float(run.measurements.get(LARGEST_VOXEL, 0)) or _largest_voxel(run))


def figures(run: Run) -> list[qa.Check]:
    """What has no rule of its own but belongs to the reading: how far things move, how much volumes change."""
    values = run.measurements
    rows = []
    if "settings" in values:
        text = f"{values['method']}; {values['settings']}"
        rows.append(qa.Check("Settings", text, "", "How this result was made; what is not named is as usual."))
    if "displacement_mean_mm" in values and "displacement_max_mm" in values:
        text = f"mean {values['displacement_mean_mm']:.1f} mm, largest {values['displacement_max_mm']:.1f} mm"
        rule = "How far points move, the linear alignment included. There is no limit: it depends on the pair."
        rows.append(qa.Check("Displacement", text, "", rule))
    if "jacobian_min" in values and "jacobian_max" in values:
        text = f"{values['jacobian_min']:.2f} to {values['jacobian_max']:.2f} times"
        rule = "Jacobian determinant: above 1 the structure is larger in the moving volume, 0 or less is folding."
        rows.append(qa.Check("Local change of volume", text, "", rule))
    if "landmarks_before_mm" in values and "landmarks_after_mm" in values:
        text = f"mean {values['landmarks_before_mm']:.1f} → {values['landmarks_after_mm']:.1f} mm"
        rule = "The pairs that guided the registration: near because they were used, and no evidence of its accuracy."
        rows.append(qa.Check("Guiding landmarks", text, "", rule))
    return rows + _each(values)


def _each(values: dict) -> list[qa.Check]:
    """A row for each structure and each landmark that was measured."""
    overlap = "Dice of this structure; the light is that of the mean."
    distance = "How far this landmark is from its partner; the light is that of the mean."
    rows = [qa.Check(f"Overlap: {name}", f"{dice:.3f}", "", overlap) for name, dice in values.get("dice", {}).items()]
    errors = values.get("tre_mm", {}).items()
    return rows + [qa.Check(f"Landmark {name}", f"{error:.2f} mm", "", distance) for name, error in errors]


def _largest_voxel(run: Run) -> float:
    return float(max(run.fixed.GetSpacing())) if run.fixed is not None else 1.0


def write_csv(run: Run, path: Path) -> None:
    """The table with its rules, then every figure. Raises RegistrationError when the file cannot be written."""
    try:
        with Path(path).open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file)
            writer.writerow(["Check", "Value", "Light", "Rule"])
            writer.writerows([[c.name, c.value, c.light, c.rule] for c in (*checks(run), *figures(run))])
            writer.writerow([])
            writer.writerow(["Quantity", "Value"])
            writer.writerows(_every_figure(run.measurements))
            writer.writerow([])
            writer.writerows([[note] for note in (*run.notes, qa.NOTE)])
    except OSError as error:
        raise RegistrationError(f"{path} cannot be written ({error.strerror}); choose another place.") from error


def _every_figure(measurements: dict) -> list[tuple[str, object]]:
    """(name, value) of all figures; one row each for what is measured per structure or landmark."""
    rows = []
    for key, value in measurements.items():
        rows += [(f"{key} {name}", one) for name, one in value.items()] if isinstance(value, dict) else [(key, value)]
    return rows


def write_structures(fixed, moving, run: Run, folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Label maps of both with the same numbering, and the names of the labels 1, 2, … (none for label map nodes).

    Segments are paired by name; those that overlap go to files of their own, as a voxel holds one number. Raises
    RegistrationError when nothing can be paired.
    """
    if fixed is moving:
        raise RegistrationError("Fixed and moving structures are the same; choose those of each volume.")
    kinds = [node.IsA("vtkMRMLSegmentationNode") for node in (fixed, moving)]
    if not any(kinds):
        return [(export_volume(fixed, folder / "fixed.nrrd"), export_volume(moving, folder / "moving.nrrd"))], []
    if not all(kinds):
        raise RegistrationError("Structures are compared in kind; choose two segmentations, or two label maps.")
    by_name = [_segments(node) for node in (fixed, moving)]
    names = [name for name in by_name[0] if name in by_name[1]]
    if not names:
        raise RegistrationError("The two segmentations have no segment name in common; give segments the same names.")
    numbers = {name: number for number, name in enumerate(names, 1)}
    sides = (("fixed", fixed, by_name[0], run.fixed), ("moving", moving, by_name[1], run.moving))
    layers = [layers_of(node, reference) for _side, node, _ids, reference in sides]
    groups: dict[tuple[int, int], list[str]] = {}
    for name in names:
        groups.setdefault(tuple(layer[ids[name]] for layer, ids in zip(layers, by_name, strict=True)), []).append(name)
    files = []
    for index, group in enumerate(groups.values()):
        pair = [
            export_segments(node, {ids[n]: numbers[n] for n in group}, reference, folder / f"{side}_labels{index}.nrrd")
            for side, node, ids, reference in sides
        ]
        files.append(tuple(pair))
    return files, names


def segment_names(*segmentations) -> list[str]:
    """The names of the segments that at least one of some nodes has; none for label maps and where there is no node."""
    given = [node for node in segmentations if node is not None and node.IsA("vtkMRMLSegmentationNode")]
    return sorted({name for node in given for name in _segments(node)})


def left_out(run: Run, names: list[str]) -> str:
    """What to say of structures that have no Dice in a run that was just measured; empty where all of them have."""
    missing = [name for name in names if name not in results.run_of(run.table).measurements.get("dice", {})]
    return f"Left out, as they are not in both segmentations: {', '.join(missing)}." if missing else ""


def _segments(node) -> dict[str, str]:
    """{name: id} of the segments. Raises RegistrationError where two have the same name."""
    ids = vtk.vtkStringArray()
    segmentation = node.GetSegmentation()
    segmentation.GetSegmentIDs(ids)
    found = [ids.GetValue(i) for i in range(ids.GetNumberOfValues())]
    named = {segmentation.GetSegment(one).GetName(): one for one in found}
    if len(named) < len(found):
        raise RegistrationError(f'Segments of "{node.GetName()}" share a name; give each one a name of its own.')
    return named


def summary(run: Run) -> str:
    """A sentence on the worst light, and what it does not say."""
    rows = checks(run)
    verdict = {
        qa.GREEN: "All checks passed. Look at the images before you rely on it.",
        qa.AMBER: "Look closer: at least one check is not clear (amber).",
        qa.RED: "Do not rely on this registration: at least one check failed (red).",
    }[qa.worst(rows)]
    return f"{verdict} {qa.caution(rows)}".rstrip()
