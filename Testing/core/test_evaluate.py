"""Evaluation of a run whose transform is the truth, and of one whose direction is wrong."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil

import pytest
import torch
from geometry import grid_of
from neuralreg import evaluate, io, metrics, qa
from neuralreg.cli import main
from neuralreg.image import Grid, Image
from neuralreg.job import INVERSE, JACOBIAN, JOB, TRANSFORM, WARPED, RegistrationError, RegistrationJob
from neuralreg.transform import Affine
from run_folder import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate")
    write_run(path)
    return path


def evaluated(folder, run="run", **files):
    return evaluate.evaluate_run(folder / run, **files)


def test_the_true_transform_scores_well_in_everything(folder):
    files = {"fixed_labels": folder / "fixed_labels.nii.gz", "moving_labels": folder / "moving_labels.nii.gz"}
    found = evaluated(folder, landmarks=folder / "landmarks.csv", **files)
    values = found["measurements"]
    assert values["dice_mean"] > 0.6 > values["dice_before_mean"] + 0.15
    assert values["tre_mean_mm"] < 0.2 and values["tre_before_mean_mm"] > 3
    assert values["folds_percent"] == values["non_diffeomorphic_volume_voxels"] == 0
    assert values["inverse_consistency_mean_mm"] < 0.1
    assert values["ncc_after"] > 0.93 > 0.8 > values["ncc_before"]  # a coarse lattice blurs
    assert 0.05 < values["sdlogj"] < 0.3 and values["jacobian_min"] > 0.3
    assert values["labels"] == len(found["labels"]["per_label"]) == 8
    assert json.loads((folder / "run" / evaluate.EVALUATION).read_text()) == found
    assert {c["light"] for c in found["qa"]} <= {qa.GREEN, qa.AMBER} and len(found["qa"]) == 6
    table = evaluate.format_table(found)
    assert "TG-132" in table and "dice_mean" in table and "compliant" not in table


def test_swapping_the_two_directions_is_noticed(folder):
    shutil.copytree(folder / "run", folder / "swapped")
    (folder / "swapped" / TRANSFORM).unlink()
    shutil.copy(folder / "run" / INVERSE, folder / "swapped" / TRANSFORM)
    shutil.copy(folder / "run" / TRANSFORM, folder / "swapped" / INVERSE)
    values = evaluated(folder, "swapped", landmarks=folder / "landmarks.csv")["measurements"]
    assert values["tre_mean_mm"] > 3


@pytest.mark.parametrize(("guiding", "measured"), [(12, 12), (4, 12), (12, 0)])
def test_landmarks_that_guided_the_run_are_no_evidence(folder, tmp_path, guiding, measured):
    """Recognised by their places, in whatever file and order they come back: in the table, and never green."""
    run = shutil.copytree(folder, tmp_path / "copy") / "run"
    header, *rows = (run.parent / "landmarks.csv").read_text().splitlines()
    for side, columns in (("fixed", slice(0, 3)), ("moving", slice(3, 6))):
        points = ["x,y,z", *[",".join(row.split(",")[columns]) for row in rows[:guiding]]]
        (run.parent / f"{side}.csv").write_text("\n".join(points))
    job = RegistrationJob.load(run / JOB)
    dataclasses.replace(job, fixed_landmarks="../fixed.csv", moving_landmarks="../moving.csv").save(run / JOB)
    others = [",".join(f"{float(cell) + 0.5:.6f}" for cell in row.split(",")) for row in rows]
    again = run.parent / "again.csv"
    again.write_text("\n".join([header, *reversed(rows[:measured] or others)]))
    found = evaluate.evaluate_run(run, landmarks=again)
    count = min(guiding, measured)
    assert found["measurements"]["landmarks_guiding"] == count
    check = next(c for c in found["qa"] if c["name"] == "Landmarks (TRE)")
    assert check["light"] == (qa.AMBER if count else qa.GREEN)
    assert (f"({count} of 12 guided the registration)" in check["value"]) == (count > 0)


def test_columns_of_other_names_count_in_their_order(folder):
    renamed = folder / "renamed.csv"
    text = (folder / "landmarks.csv").read_text().replace("fixed_", "baseline_").replace("moving_", "followup_")
    renamed.write_text(text)
    first, second = evaluate.read_landmarks(folder / "landmarks.csv"), evaluate.read_landmarks(renamed)
    assert all(bool((a == b).all()) for a, b in zip(first, second, strict=True))
    header, *rows = (folder / "landmarks.csv").read_text().splitlines()
    swapped = [",".join(r.split(",")[3:] + r.split(",")[:3]) for r in (header, *rows)]
    renamed.write_text("\n".join(swapped))
    assert bool((evaluate.read_landmarks(renamed)[0] == first[0]).all())  # names before order
    renamed.write_text("\n".join([renamed.read_text().splitlines()[0].upper(), *renamed.read_text().splitlines()[1:]]))
    assert bool((evaluate.read_landmarks(renamed)[0] == first[0]).all())  # in capitals too
    renamed.write_text("\n".join(swapped).replace("fixed_", "atlas_").replace(",", ";"))
    assert bool((evaluate.read_landmarks(renamed)[0] == first[0]).all())  # one name known, between semicolons


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns fixed_x"),
        ("fixed_x,fixed_y,fixed_z\n1,2,3\n", "columns fixed_x"),
        ("fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z\n1,2,3,4,5\n", 'line 2, ""'),
        ("# mm\nfixed_x;fixed_y;fixed_z;moving_x;moving_y;moving_z\n1,5;2;3;4;5;6\n", 'line 3, "1,5"'),
        ("fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z\n", "holds no landmarks"),
        ("fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z\n1,2,3,4,5,six\n", '"six" is no coordinate'),
        ("fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z\n1,2,3,4,5,nan\n", '"nan" is no coordinate'),
    ],
)
def test_bad_landmark_files_get_a_sentence(tmp_path, text, message):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(RegistrationError, match=message):
        evaluate.read_landmarks(tmp_path / "points.csv")


def test_comments_and_empty_rows_are_no_landmarks(tmp_path):
    heading = "fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z"
    (tmp_path / "points.csv").write_text(f"# by hand\n\n{heading}\n1,2,3,4,5,6\n# 7,8,9,7,8,9\n,,,,,\n")
    fixed, moving = evaluate.read_landmarks(tmp_path / "points.csv")
    assert fixed.T.tolist() == [[1, 2, 3]] and moving.T.tolist() == [[4, 5, 6]]


def test_missing_pieces_get_a_sentence(folder, tmp_path):
    with pytest.raises(RegistrationError, match="no job file"):
        evaluate.evaluate_run(tmp_path)
    with pytest.raises(RegistrationError, match="give both"):
        evaluated(folder, fixed_labels=folder / "fixed_labels.nii.gz")
    with pytest.raises(RegistrationError, match="no landmark file"):
        evaluated(folder, landmarks=folder / "absent.csv")
    shutil.copytree(folder / "run", folder / "broken")
    (folder / "broken" / "jacobian.nii.gz").unlink()
    with pytest.raises(RegistrationError, match="lacks"):
        evaluated(folder, "broken")


def test_evidence_needs_the_transform_only_and_measures_the_same(folder, tmp_path):
    """As when a scene is opened again: transform and inputs are there, what follows from them is not."""
    files = {f"{side}_labels": folder / f"{side}_labels.nii.gz" for side in ("fixed", "moving")}
    files["landmarks"] = folder / "landmarks.csv"
    expected = evaluated(folder, **files)
    run = shutil.copytree(folder, tmp_path / "copy") / "run"
    for name in (INVERSE, WARPED, JACOBIAN):
        (run / name).unlink()
    (run.parent / "moving.nii.gz").unlink()
    found = evaluate.evaluate_run(run, **files, evidence_only=True)
    assert found["labels"] == expected["labels"] and found["landmarks"] == expected["landmarks"]
    measured = {name: expected["measurements"][name] for name in found["measurements"] if name != "folds_percent"}
    assert found["measurements"] == {"folds_percent": 0.0, **measured}, "its own figure of folds, and the new ones"


def test_green_without_evidence_says_what_it_does_not_know():
    def caution(**values):
        return qa.caution(qa.read({"folds_percent": 0.0, **values}, largest_voxel_mm=2.0))

    assert "wrong alignment would pass" in caution()
    assert not caution(dice_mean=0.9) and not caution(tre_mean_mm=1.0) and not caution(folds_percent=1.0)


BACK = "inverse_consistency_{}_mm"


@pytest.mark.parametrize(
    ("voxel", "lights", "values"),
    [  # green and the two others, each at both ends of its range, as the table of the README says
        (2.0, "GRR", [{"folds_percent": value} for value in (0.0, 1e-6, 100.0)]),
        (2.0, "GAARR", [{"non_diffeomorphic_volume_percent": value} for value in (0.0, 1e-6, 0.01, 0.0101, 5.0)]),
        (2.0, "GGAARR", [{"tre_mean_mm": value} for value in (0.0, 2.0, 2.01, 4.0, 4.01, 50.0)]),
        (1.0, "GGAARR", [{"tre_mean_mm": value} for value in (0.0, 1.0, 1.01, 3.0, 3.01, 50.0)]),
        (2.0, "GGAARR", [{"dice_mean": value} for value in (1.0, 0.8, 0.79, 0.6, 0.59, 0.0)]),
        (
            2.0,
            "GGAAR",
            [
                {BACK.format("mean"): mean, BACK.format("max"): largest}
                for mean, largest in ((0.0, 0.0), (0.1, 2.0), (0.1, 2.01), (2.0, 90.0), (2.01, 90.0))
            ],
        ),
        (2.0, "GGAA", [{"linear_correlation": value} for value in (1.0, 0.25, 0.249, 0.0)]),
        (
            2.0,
            "GAARR",
            [
                {"mutual_information_before": 1.0, "mutual_information_after": after}
                for after in (1.001, 1.0, 0.981, 0.979, 0.0)
            ],
        ),
    ],
)
def test_the_traffic_light_changes_where_its_table_says(voxel, lights, values):
    named = {"G": qa.GREEN, "A": qa.AMBER, "R": qa.RED}
    assert [qa.worst(qa.read(measured, voxel)) for measured in values] == [named[letter] for letter in lights]


def test_the_worst_light_counts_and_what_was_not_measured_does_not():
    assert qa.worst(qa.read({"folds_percent": 0.0, "dice_mean": 0.7, "tre_mean_mm": 9.0}, 1.0)) == qa.RED
    assert qa.read({}, 1.0) == [] and qa.worst([]) == qa.GREEN


@pytest.mark.parametrize("name", ["warped.nii.gz", "jacobian.nii.gz"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 20, None])
def test_damaged_files_of_the_run_get_a_sentence(folder, tmp_path, name, content):
    run = shutil.copytree(folder, tmp_path / "copy") / "run"
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(RegistrationError, match=name):
        evaluate.evaluate_run(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": None}, {"metrics": {"folds_percent": "none"}}, {"timings": [1]}, {"loss": [[0], "a"]},
        {"loss": None}, {"loss": [["a", "b", "c"]]}, {"options": None}, {"warnings": None}, {"warnings": [1]},
        {"versions": [1]}, {"peak_memory_mb": "much"},
    ],
)  # fmt: skip
def test_a_result_that_no_run_wrote_gets_a_sentence(folder, tmp_path, changes, capsys):
    run = shutil.copytree(folder, tmp_path / "copy") / "run"
    values = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(values | changes))
    for command in ("evaluate", "report"):
        assert main([command, str(run)]) == 2
        assert "is not the result of a registration" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluation.json", "report.html"])
def test_output_that_cannot_be_written_gets_a_sentence(folder, tmp_path, name, capsys):
    run = shutil.copytree(folder, tmp_path / "copy") / "run"
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    assert main(["evaluate" if name == "evaluation.json" else "report", str(run)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    run = shutil.copytree(folder / "run", tmp_path / "unmeasured", ignore=shutil.ignore_patterns("evaluation.json"))
    assert main(["evaluate", str(run), "--json", str(tmp_path / "no" / "folder.json")]) == 2
    assert not (run / "evaluation.json").exists(), "said before anything is measured"
    assert "no folder" in capsys.readouterr().err


def test_labels_may_be_negative_or_far_apart():
    fixed, warped = torch.zeros(4, 4, 4).long(), torch.zeros(4, 4, 4).long()
    fixed[:2], warped[1:3] = -3, -3
    fixed[3], warped[3] = 2_000_000_000, 2_000_000_000
    assert metrics.dice(fixed, warped) == pytest.approx({-3: 0.5, 2_000_000_000: 1.0})
    assert metrics.hd95(fixed, warped, (1.0, 1.0, 2.0)) == pytest.approx({-3: 2.0, 2_000_000_000: 0.0})


@pytest.mark.parametrize("kept", [None, 1], ids=["all structures", "one structure"])
def test_a_file_that_ends_at_its_structures_measures_the_same(folder, tmp_path, kept):
    """As Slicer keeps segments: in the box around them. Cut off there, a structure warped too large looks perfect."""
    whole, boxed = io.read_labels(folder / "fixed_labels.nii.gz"), tmp_path / "boxed.nrrd"
    labels = whole.data if kept is None else whole.data * (whole.data == kept)
    places = labels[0].nonzero()
    low, high = places.amin(dim=0), places.amax(dim=0) + 1
    part = labels[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    io.write_image(Image(part.clone(), whole.grid.cropped(low.flip(0), high.flip(0))), boxed)
    io.write_image(Image(labels, whole.grid), tmp_path / "whole.nrrd")
    moving = folder / "moving_labels.nii.gz"
    expected = evaluated(folder, fixed_labels=tmp_path / "whole.nrrd", moving_labels=moving)
    found = evaluated(folder, fixed_labels=boxed, moving_labels=moving)
    assert found["labels"] == expected["labels"] and found["measurements"] == expected["measurements"]


@pytest.mark.parametrize("kind", ["RAS", "oblique, left-handed"])
def test_labels_on_the_grid_of_the_fixed_volume_get_no_room_around_them(tmp_path, kind):
    """What a file rounds off the place of a grid is no part of a voxel, however large the labels are."""
    grid = grid_of(kind)
    io.write_image(Image(torch.ones(1, *grid.shape, dtype=torch.int16), grid), tmp_path / "labels.nii.gz")
    labels = io.read_labels(tmp_path / "labels.nii.gz")
    for exact, other in ((grid, labels), (labels.grid, Image(labels.data, grid))):
        assert evaluate._with_room(other, other, Affine.identity(), exact).grid.shape == grid.shape


def test_what_is_made_of_a_run_replaces_none_of_its_files(folder, capsys):
    kept = folder / "fixed_labels.nii.gz", folder / "run" / TRANSFORM
    labels = "--fixed-labels", str(kept[0]), "--moving-labels", str(folder / "moving_labels.nii.gz")
    for output in kept:
        before = output.read_bytes()
        assert main(["evaluate", str(folder / "run"), *labels, "--json", str(output)]) == 2
        assert output.read_bytes() == before and "is an input, which would be lost" in capsys.readouterr().err
    field = "--reference", str(kept[0]), "--field"
    for command in (["report", str(folder / "run")], ["apply", str(folder / "run"), *field]):
        assert main([*command, "-o", str(kept[1])]) == 2
        assert "is an input, which would be lost" in capsys.readouterr().err


def test_structures_that_overlap_come_in_several_files(folder, tmp_path):
    """A voxel holds one number; each structure is measured as if it were alone."""
    whole = {side: io.read_labels(folder / f"{side}_labels.nii.gz") for side in ("fixed", "moving")}
    alone, files = {}, {side: [] for side in whole}
    for number, kinds in ((1, (1, 2, 3)), (2, (2, 4))):  # 2 belongs to both
        for side, labels in whole.items():
            inside = sum(labels.data == kind for kind in kinds)
            io.write_image(Image((inside * number).short(), labels.grid), tmp_path / f"{side}{number}.nrrd")
            files[side].append(tmp_path / f"{side}{number}.nrrd")
        one = evaluated(folder, fixed_labels=files["fixed"][-1], moving_labels=files["moving"][-1])
        alone |= one["labels"]["per_label"]
    found = evaluated(folder, fixed_labels=files["fixed"], moving_labels=files["moving"])
    assert found["labels"]["per_label"] == alone and found["measurements"]["labels"] == 2
    assert found["measurements"]["dice_mean"] == pytest.approx((alone["1"]["dice"] + alone["2"]["dice"]) / 2)
    with pytest.raises(RegistrationError, match="in pairs"):
        evaluated(folder, fixed_labels=files["fixed"], moving_labels=files["moving"][:1])
    with pytest.raises(RegistrationError, match="numbers of another label map"):
        evaluated(folder, fixed_labels=files["fixed"][:1] * 2, moving_labels=files["moving"][:1] * 2)


def test_neighbouring_numbers_of_a_large_atlas_stay_apart():
    """float32 takes 614454277 and 614454278 for one."""
    grid = Grid.from_parts((4, 4, 4))
    labels = torch.full((1, 4, 4, 4), 614_454_277, dtype=torch.int32)
    labels[:, 2:] += 1
    other = labels.clone()
    other[:, 1] += 1
    table = evaluate.label_measurements(Image(labels, grid), Image(other, grid), Affine.identity())
    assert [row["dice"] for row in table.values()] == pytest.approx([2 / 3, 4 / 5])


def test_landmarks_keep_all_their_digits(tmp_path):
    columns = [f"{name}_{axis}" for name in ("fixed", "moving") for axis in "xyz"]
    (tmp_path / "l.csv").write_text(",".join(columns) + "\n" + ",".join(["123.456789"] * 6) + "\n")
    assert float(evaluate.read_landmarks(tmp_path / "l.csv")[0][0, 0]) == 123.456789


def test_structures_without_a_partner_are_named(folder, tmp_path):
    """The mean says nothing of them: an unfinished map must not look like a whole one."""
    labels = io.read_labels(folder / "fixed_labels.nii.gz")
    fewer = torch.where((labels.data == 5) | (labels.data == 6), torch.zeros_like(labels.data), labels.data)
    io.write_image(Image(fewer, labels.grid), tmp_path / "fewer.nii.gz")
    found = evaluated(folder, fixed_labels=tmp_path / "fewer.nii.gz", moving_labels=folder / "moving_labels.nii.gz")
    assert found["measurements"]["labels"] == 6 and found["labels"]["in_one_map_only"] == [5, 6]
    assert "only one of the two maps has them: 5, 6" in evaluate.format_table(found)
    files = {"fixed_labels": folder / "fixed_labels.nii.gz", "moving_labels": folder / "moving_labels.nii.gz"}
    assert "Not compared" not in evaluate.format_table(evaluated(folder, **files))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_figures_of_a_folder_that_may_not_be_written_to_are_shown(folder, monkeypatch, capsys, number):
    """A result in somebody else's archive; a full disk is still an error."""

    @contextlib.contextmanager
    def refused(path):
        raise OSError(number, os.strerror(number), str(path))
        yield

    monkeypatch.setattr(evaluate, "replacing", refused)
    if number == errno.ENOSPC:
        assert main(["evaluate", str(folder / "run")]) == 2 and "cannot be written" in capsys.readouterr().err
        return
    with pytest.warns(UserWarning, match="may not write to .*run, so a report will not show these figures"):
        assert main(["evaluate", str(folder / "run")]) == 0
    assert "inverse_consistency_mean_mm" in capsys.readouterr().out
