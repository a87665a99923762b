"""The command line from outside: real registrations of a small pair, exit codes, what is left behind."""

import errno
import hashlib
import io as stdio
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from child import ENVIRONMENT
from locked import lock
from neuralreg import cli, io
from neuralreg.commands.shared import parse_options
from neuralreg.image import Image
from neuralreg.job import RegistrationError, Result
from neuralreg.methods import method_class
from neuralreg.points import Points, read_points, write_points
from neuralreg.transform import Affine
from neuralreg.workspace import RUN_FILES
from short_runs import LISTS, SHORT, call


@pytest.fixture(scope="module")
def result(pair):
    """A finished run."""
    assert call("register", "fixed.nii.gz", "moving.nrrd", "-o", "result", *SHORT, at=pair.folder) == 0
    return pair.folder / "result"


def test_register_writes_a_whole_result_that_fits_better(result):
    assert sorted(p.name for p in result.iterdir()) == sorted(RUN_FILES)
    written = Result.load(result / "result.json")
    assert written.metrics["ncc_after"] > written.metrics["ncc_before"]
    assert list(written.options["iterations"]) == [40]
    field = sitk.ReadTransform(str(result / "transform.h5"))
    moving = sitk.ReadImage(str(result.parent / "moving.nrrd"))
    fixed = sitk.ReadImage(str(result.parent / "fixed.nii.gz"))
    lowest = float(sitk.GetArrayViewFromImage(moving).min())
    oracle = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, field, sitk.sitkLinear, lowest))
    warped = sitk.GetArrayFromImage(sitk.ReadImage(str(result / "warped.nii.gz")))
    assert np.abs(warped - oracle).max() < 1e-3 * np.ptp(oracle)


def test_run_repeats_a_job_to_the_byte(result, pair):
    digest = {
        name: hashlib.sha256((result / name).read_bytes()).hexdigest() for name in RUN_FILES if name != "result.json"
    }
    assert call("run", "result/job.json", at=pair.folder) == 2
    assert call("run", "result/job.json", "--overwrite", at=pair.folder) == 0
    for name, before in digest.items():
        assert hashlib.sha256((result / name).read_bytes()).hexdigest() == before, name


def test_apply_labels_as_itk_does(result, pair):
    out = pair.folder / "labels.nii.gz"
    assert (
        call(
            "apply",
            "result",
            "--reference",
            "fixed.nii.gz",
            "--labels",
            "moving_labels.nii.gz",
            "-o",
            out,
            at=pair.folder,
        )
        == 0
    )
    labels, fixed = (sitk.ReadImage(str(pair.folder / f"{n}.nii.gz")) for n in ("moving_labels", "fixed"))
    field = sitk.ReadTransform(str(result / "transform.h5"))
    oracle = sitk.GetArrayFromImage(sitk.Resample(labels, fixed, field, sitk.sitkNearestNeighbor))
    mine = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))
    assert mine.dtype == np.uint16
    assert (mine != oracle).mean() < 1e-4


@pytest.mark.parametrize("how", ["transform", "reference", "labels", "link"])
def test_apply_does_not_replace_one_of_its_inputs(result, pair, tmp_path, capsys, how):
    files = {name: tmp_path / name for name in ("transform.h5", "fixed.nii.gz", "moving_labels.nii.gz")}
    for name, path in files.items():
        shutil.copy(next(folder / name for folder in (result, pair.folder) if (folder / name).exists()), path)
    transform, reference, labels = files.values()
    link = tmp_path / "link.nii.gz"
    link.symlink_to(labels)
    output = {"transform": transform, "reference": reference, "labels": labels, "link": link}[how]
    before = output.read_bytes()
    arguments = (transform, "--reference", reference, "--labels", labels)
    assert call("apply", *arguments, "-o", output, at=tmp_path) == 2
    assert "name another file for the output" in capsys.readouterr().err and output.read_bytes() == before


def test_apply_moves_points_with_the_image_and_back(result, pair):
    """A point of the moving image goes where the warped image shows what lay there: the one test of the direction."""
    fixed, moving = (p.T.numpy() for p in pair.phantom.landmarks(20))
    write_points(Points(moving, tuple(map(str, range(20)))), pair.folder / "moving.fcsv")
    assert call("apply", "result", "--points", "moving.fcsv", "-o", "there.fcsv", at=pair.folder) == 0
    there = read_points(pair.folder / "there.fcsv").lps
    distance = lambda a, b: np.linalg.norm(a - b, axis=1).mean()  # noqa: E731
    assert distance(there, fixed) < 0.8 * distance(moving, fixed)
    oracle = sitk.ReadTransform(str(result / "transform.h5"))
    np.testing.assert_allclose([oracle.TransformPoint(p) for p in there], moving, atol=1e-3)
    assert call("apply", "result", "--from", "fixed", "--points", "there.fcsv", "-o", "back.csv", at=pair.folder) == 0
    np.testing.assert_allclose(read_points(pair.folder / "back.csv").lps, moving, atol=1e-3)


@pytest.mark.parametrize(
    "origin, reference, name", [("moving", "fixed.nii.gz", "transform"), ("fixed", "moving.nrrd", "inverse")]
)
@pytest.mark.parametrize("ending", [".nii.gz", ".h5"])
def test_the_whole_transform_becomes_one_field_on_a_grid(result, pair, origin, reference, name, ending):
    arguments = ("apply", "result", "--from", origin, "--reference", reference, "--field")
    assert call(*arguments, "-o", f"field{ending}", at=pair.folder) == 0
    field, oracle = io.read_transform(pair.folder / f"field{ending}"), sitk.ReadTransform(str(result / f"{name}.h5"))
    grid = io.read_grid(pair.folder / reference)
    assert field.grid.same_as(grid)
    for index in ((0, 0, 0), (9, 11, 8), (grid.shape[0] - 1, 5, 3)):
        point = grid.points()[(slice(None), *index)]
        np.testing.assert_allclose(
            field.mm[(slice(None), *index)] + point, oracle.TransformPoint(point.tolist()), atol=1e-3
        )


def test_apply_from_fixed_brings_the_fixed_image_to_the_moving_one(result, pair):
    arguments = (
        "apply",
        "result/transform.h5",
        "--from",
        "fixed",
        "--reference",
        "moving.nrrd",
        "--image",
        "fixed.nii.gz",
    )
    assert call(*arguments, "-o", "back.nii.gz", at=pair.folder) == 0
    back = io.read_image(pair.folder / "back.nii.gz").data
    fixed, moving = pair.phantom.fixed.data, pair.phantom.moving.data
    correlation = lambda a, b: torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1]  # noqa: E731
    assert correlation(back, moving) > correlation(fixed, moving)


def test_what_lies_outside_an_image_is_as_dark_as_its_darkest_voxel(pair):
    """Air in a CT, where 0 would be water; where a label map ends is background."""
    shift = np.eye(4)
    shift[0, 3] = 40.0
    io.write_transform(Affine(shift), pair.folder / "away.h5")
    image = pair.phantom.moving
    io.write_image(Image(image.data.float() - 1000.0, image.grid), pair.folder / "ct.nii.gz")
    for kind, name, outside in (("--image", "ct.nii.gz", -1000.0), ("--labels", "moving_labels.nii.gz", 0.0)):
        out = f"away_{name}"
        assert call("apply", "away.h5", "--reference", "fixed.nii.gz", kind, name, "-o", out, at=pair.folder) == 0
        face = io.read_image(pair.folder / out).data[0, :, :, -1].float()
        torch.testing.assert_close(face, torch.full_like(face, outside))


def test_evaluate_report_methods(result, pair, capsys):
    labels = ("--fixed-labels", "fixed_labels.nii.gz", "--moving-labels", "moving_labels.nii.gz")
    assert call("evaluate", "result", *labels, "--json", "numbers.json", at=pair.folder) == 0
    numbers = json.loads((pair.folder / "numbers.json").read_text())
    assert numbers["measurements"]["dice_mean"] > numbers["measurements"]["dice_before_mean"]
    assert call("evaluate", "result", "--json", "-", at=pair.folder) == 0
    assert call("report", "result", at=pair.folder) == 0
    assert (result / "report.html").exists()
    capsys.readouterr()
    assert call("methods", "--json", at=pair.folder) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["device"] and "DNVF" in [m["name"] for m in listed["methods"]]
    assert call("methods", at=pair.folder) == 0
    assert "smoothness" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("register", "none.nii", "moving.nrrd", "-o", "x"), "There is no file"),
        (("register", "fixed.nii.gz", "moving.nrrd", "-o", "."), "not empty"),
        (("register", "fixed.nii.gz", "moving.nrrd", "-o", "x", "--method", "DNFV"), 'did you mean "DNVF"'),
        (("register", "fixed.nii.gz", "moving.nrrd", "-o", "x", "--preset", "fats"), 'did you mean "fast"'),
        (
            ("register", "fixed.nii.gz", "moving.nrrd", "-o", "x", "--option", "smothness=2"),
            'did you mean "smoothness"',
        ),
        (("register", "fixed.nii.gz", "moving.nrrd", "-o", "x", "--option", "smoothness"), "has no value"),
        (("register", "fixed.nii.gz", "moving.nrrd", "-o", "x", "--option", "smoothness=much"), "number"),
        (("register", "fixed.nii.gz", "moving.nrrd", "-o", "x", "--seed", "-3"), '"seed"'),
        (("register", "fixed.nii.gz", "moving.nrrd", "-o", "x", "--initial-transform", "none.h5"), "no transform file"),
        (("register", "fixed.nii.gz", "moving.nrrd", "-o", "x", "--refine", "3"), "goes behind VoxelMorph and FNOReg"),
        (("run", "none.json"), "no job file"),
        (("apply", "none", "--points", "p.csv", "-o", "q.csv"), "no transform file"),
        (("apply", "none.h5", "--image", "fixed.nii.gz", "-o", "y.nii.gz"), "--reference"),
        (("apply", "none.h5", "--points", "p.csv", "-o", "none/q.csv"), "no folder"),
        (("register", "fixed.nii.gz", "moving.nrrd", "-o", "x", "--initial-transform", "."), "name the transform file"),
        (("evaluate", "none"), "no job file"),
        (("evaluate", "fixed.nii.gz"), "no job file"),
        (("report", "none"), "no job file"),
        (("report", "none", "-o", ""), "name a file"),
        (("demo", "--offline", "--no-browser", "-o", "x", "--preset", "fats"), 'did you mean "fast"'),
    ],
)
def test_mistakes_end_with_a_sentence_and_code_2(pair, capsys, arguments, words):
    assert call(*arguments, at=pair.folder) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and said.count("\n") == 0 and said.startswith("neuralreg: ")
    assert not (pair.folder / "x").exists()


@pytest.mark.parametrize("command", ["register", "run", "serve", "apply", "evaluate", "report", "methods"])
def test_help_has_examples_and_the_width_of_the_terminal(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    said, _, examples = capsys.readouterr().out.partition("examples:\n")
    assert examples.startswith(f"  neuralreg {command}")
    described = said.partition("\n\n")[2].partition("\n\n")[0]
    assert max(map(len, described.splitlines())) <= 70


class Unwritable(stdio.StringIO):
    """A standard output that nobody reads, or on a full disk."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_what_cannot_be_said_is_written_all_the_same(result, pair, number, monkeypatch, capsys):
    """The notes and the summary are lost; the file and the folder are there, and nothing is said against them."""
    scan = io.read_image(pair.folder / "moving.nrrd")
    scan.data[0, 3, 3, 3] = float("nan")
    io.write_image(scan, pair.folder / "nan.nrrd")
    monkeypatch.setattr(sys, "stdout", Unwritable(number))
    apply = ("apply", "result", "--reference", "fixed.nii.gz", "--image", "nan.nrrd", "-o", f"{number}.nrrd")
    assert call(*apply, at=pair.folder) == 0 and (pair.folder / f"{number}.nrrd").exists()
    register = ("register", "fixed.nii.gz", "nan.nrrd", "-o", f"unheard {number}", *SHORT)
    assert call(*register, at=pair.folder) == 0 and (pair.folder / f"unheard {number}" / "result.json").exists()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "command",
    [
        ("pack", "locked/brains", "pack.npz"),
        ("train", "voxelmorph_t1.toml", "--data", "locked/brains", "-o", "model"),
        ("train", "locked/my.toml"),
        ("demo", "--offline", "--no-browser", "-o", "locked/demo"),
        ("serve", "--inbox", "locked/inbox"),
    ],
)
def test_what_the_user_may_not_enter_is_a_sentence(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "locked").mkdir()
    lock(tmp_path / "locked", monkeypatch)
    assert call(*command, at=tmp_path) == 2
    said = capsys.readouterr().err
    assert "locked" in said and ("ou may not " in said or "Permission denied" in said) and said.count("\n") == 1


@pytest.mark.parametrize(("number", "code", "words"), [(errno.EPIPE, 130, ""), (errno.ENOSPC, 2, "No space left")])
@pytest.mark.parametrize("command", [("methods",), ("evaluate", "result")])
def test_a_command_that_only_speaks(result, pair, command, number, code, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Unwritable(number))
    assert call(*command, at=pair.folder) == code
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == bool(words)


def test_a_log_on_a_full_disk_does_not_end_the_run(pair, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Unwritable(errno.ENOSPC))
    arguments = ("register", "fixed.nii.gz", "moving.nrrd", "-o", "unlogged", "--progress", "json", *SHORT)
    assert call(*arguments, at=pair.folder) == 0 and (pair.folder / "unlogged" / "result.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="redirections of a POSIX shell")
def test_closed_outputs():
    """As programs without a console have them; a reader that has gone before the end is no traceback either."""
    for redirection in (">&- 2>&-", "| true", "> /dev/full"):
        command = f'"{sys.executable}" -m neuralreg methods {redirection}'
        done = subprocess.run(command, shell=True, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr


def test_options_are_typed_by_the_fields_of_the_method():
    given = ["iterations=10,20", "smoothness=2", "networks=siren", "squarings=5"]
    options = parse_options(given, method_class("DNVF"))
    assert options == {"iterations": (10, 20), "smoothness": 2.0, "networks": ("siren",), "squarings": 5}
    assert isinstance(options["smoothness"], float)
    with pytest.raises(RegistrationError, match="whole number"):
        parse_options(["squarings=2.5"], method_class("DNVF"))


def test_progress_as_json_lines(pair, capsys):
    arguments = ("register", "fixed.nii.gz", "moving.nrrd", "-o", "lines", "--progress", "json", *SHORT)
    assert call(*arguments, at=pair.folder) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {"stage": "done", "fraction": 1.0}
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions)
    assert any("loss" in line for line in lines)


def test_python_call_takes_paths_images_and_sitk(pair):
    import neuralreg

    fixed = sitk.ReadImage(str(pair.folder / "fixed.nii.gz"))
    registration = neuralreg.register(
        fixed, pair.folder / "moving.nrrd", affine="none", threads=1, options=LISTS, fixed_mask=fixed > 100
    )
    again = neuralreg.register(
        io.from_sitk(fixed), str(pair.folder / "moving.nrrd"), affine="none", threads=1, options=LISTS,
        fixed_mask=io.from_sitk(fixed > 100),
    )  # fmt: skip
    assert registration.metrics["ncc_after"] > registration.metrics["ncc_before"]
    assert torch.equal(registration.warped.data, again.warped.data)
    with pytest.raises(RegistrationError, match="must be a path"):
        neuralreg.register(3, fixed)


def test_any_command_says_when_memory_ends(pair, capsys, monkeypatch):
    def ends(_):
        raise MemoryError

    monkeypatch.setattr("neuralreg.apply.load_pair", ends)
    assert cli.main(["apply", "t.h5", "--points", "p.csv", "-o", str(pair.folder / "q.csv")]) == 2
    assert "not enough memory" in capsys.readouterr().err
