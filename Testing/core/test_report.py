"""The report: one page that needs nothing else, pictures the right way round, nothing executed that a name contains."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from child import python
from neuralreg import io, report, restore
from neuralreg.cli import main
from neuralreg.evaluate import evaluate_run
from neuralreg.files import checksum, replacing
from neuralreg.image import Image
from neuralreg.intensities import intensity_range
from neuralreg.job import (
    EVALUATION,
    INVERSE,
    JACOBIAN,
    JOB,
    REPORT,
    RESULT,
    TRANSFORM,
    WARPED,
    RegistrationError,
    RegistrationJob,
    Result,
)
from neuralreg.phantom import rotation
from neuralreg.report import charts, pictures
from run_folder import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("report")
    write_run(path)
    return path


def test_one_self_contained_page_with_all_parts(folder):
    evaluate_run(folder / "run", folder / "fixed_labels.nii.gz", folder / "moving_labels.nii.gz")
    path = report.write_report(folder / "run")
    page = path.read_text(encoding="utf-8")
    assert path == folder / "run" / "report.html" and len(page) < 4e6
    assert page.count('src="data:image/png;base64,') == page.count("<img") == 27
    assert not re.search(r"https?://|<script|<link|@import|url\((?!#)", page)
    for part in ("Checkerboard", "TG-132", "within limits", "Hausdorff", "not a medical device", "larger in moving"):
        assert part in page
    assert "asked for.." not in page
    assert "compliant" not in page and "&lt;NaN&gt;" in page and "<NaN>" not in page
    assert sorted(p.name for p in path.parent.iterdir() if "partial" in p.name) == []


def test_a_folder_is_no_name_for_a_report(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", str(tmp_path)):
        assert main(["report", str(folder / "run"), "-o", name]) == 2
        assert "is a folder; name a file in it" in capsys.readouterr().err


def test_a_report_may_lie_elsewhere(folder, tmp_path, capsys):
    """As that of a result in a folder that may not be written to."""
    before = sorted((folder / "run").iterdir())
    assert main(["report", str(folder / "run"), "-o", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html") and (tmp_path / "page.html").stat().st_size
    assert sorted((folder / "run").iterdir()) == before
    assert main(["report", str(folder / "run"), "-o", str(tmp_path / "missing" / "page.html")]) == 2
    assert "There is no folder" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_are_written_to_and_not_replaced(tmp_path):
    """As root, a report to /dev/null would have put a file in its place."""
    os.mkfifo(tmp_path / "pipe")
    with Path(tmp_path / "pipe").open("r+b", buffering=0) as pipe, replacing(tmp_path / "pipe") as path:
        path.write_text("said")
        assert pipe.read(4) == b"said"
    assert (tmp_path / "pipe").is_fifo()


def test_a_run_that_was_not_evaluated_and_has_no_loss_gets_a_page_too(tmp_path):
    write_run(tmp_path, loss=[], warnings=[], stopped_early=True)
    page = report.write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Course of the optimisation" not in page and "stopped by the user" in page and "Folded voxels" in page


def test_names_from_users_are_text(tmp_path):
    write_run(tmp_path, method="<script>alert(1)</script>", options={"<b>": "</style>"})
    hostile = tmp_path / "<img src=x onerror=alert(1)>.nii.gz"
    (tmp_path / "fixed.nii.gz").rename(hostile)
    job = RegistrationJob.load(tmp_path / "run" / JOB)
    dataclasses.replace(job, fixed=f"../{hostile.name}").save(tmp_path / "run" / JOB)
    page = report.write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "<script" not in page and "<img src=x" not in page and page.count("</style>") == 1


def test_inputs_are_called_by_their_names_where_they_have_some_and_else_by_their_paths(tmp_path):
    write_run(tmp_path)
    job = RegistrationJob.load(tmp_path / "run" / JOB)
    names = {"fixed": "T1 <pre>", "initial_transform": "by hand"}
    given = dataclasses.replace(job, initial_transform="/tmp/x/initial.h5", moving_mask="/data/mask.nrrd", names=names)
    given.save(tmp_path / "run" / JOB)
    page = report.write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "<title>Registration of moving.nii.gz to T1 &lt;pre&gt;</title>" in page and "/tmp/x" not in page
    for shown in ("T1 &lt;pre&gt;", "../moving.nii.gz", "by hand", "/data/mask.nrrd"):
        assert f"<code>{shown}</code>" in page


def test_missing_files_get_a_sentence(tmp_path):
    with pytest.raises(RegistrationError, match="no job file"):
        report.write_report(tmp_path)
    write_run(tmp_path)
    data = (tmp_path / "run" / WARPED).read_bytes()
    for damage in (lambda file: file.write_bytes(data[: len(data) // 2]), lambda file: file.unlink()):
        damage(tmp_path / "run" / WARPED)
        with pytest.raises(RegistrationError, match="needed for the report"):
            report.write_report(tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()


def test_what_follows_from_the_transform_is_made_again(folder, tmp_path):
    """A run whose large files were thrown away, or a scene that was opened again, gets the same report."""
    run = shutil.copytree(folder, tmp_path / "copy") / "run"
    for name in (INVERSE, WARPED, JACOBIAN):
        (run / name).unlink()
    assert main(["report", str(run)]) == 2, "not unasked: a file may just be in another place"
    assert main(["report", str(run), "--restore"]) == 0
    for name in (WARPED, JACOBIAN):
        before, again = (sitk.ReadImage(str(place / name)) for place in (folder / "run", run))
        values = [sitk.GetArrayFromImage(image)[2:-2, 2:-2, 2:-2] for image in (before, again)]
        assert before.IsSameImageGeometryAs(again, 1e-4) and np.abs(values[0] - values[1]).max() < 1e-3 * np.ptp(values)
    written = (run / WARPED).stat().st_mtime_ns
    restore.restore(run)
    assert (run / WARPED).stat().st_mtime_ns == written, "what is there stays"


def test_an_input_that_was_changed_since_the_run_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    files = {"fixed": copy / "fixed.nii.gz", "moving": copy / "moving.nii.gz"}
    result = Result.load(copy / "run" / RESULT)
    inputs = {name: checksum(str(path)) for name, path in files.items()}
    dataclasses.replace(result, inputs=inputs).save(copy / "run" / RESULT)
    note = "Changed since the run: moving."
    assert note not in report.write_report(copy / "run").read_text(encoding="utf-8")
    evaluate_run(copy / "run")
    moving = io.read_image(files["moving"])
    io.write_image(Image(moving.data.flip(1), moving.grid), files["moving"])
    assert note in report.write_report(copy / "run").read_text(encoding="utf-8")
    with pytest.warns(UserWarning, match=note):
        evaluate_run(copy / "run")


@pytest.mark.parametrize(
    ("add", "made"),
    [
        (evaluate_run, EVALUATION),
        (report.write_report, REPORT),
        (restore.restore, WARPED),
        (lambda run: report.write_report(run, run.parent / "elsewhere.html"), "../elsewhere.html"),
    ],
)
def test_nothing_of_an_earlier_result_comes_beside_the_one_that_replaced_it(folder, tmp_path, monkeypatch, add, made):
    run = shutil.copytree(folder, tmp_path / "copy") / "run"
    (run / made).unlink(missing_ok=True)
    read = sitk.ReadTransform

    def read_and_replace(name):
        dataclasses.replace(Result.load(run / RESULT), seed=1).save(run / RESULT)
        return read(name)

    monkeypatch.setattr(sitk, "ReadTransform", read_and_replace)
    with pytest.raises(RegistrationError, match="replaced"):
        add(run)
    assert not (run / made).exists() and not list(run.glob(".*"))


def test_a_damaged_transform_gets_a_sentence_and_no_crash(folder, tmp_path):
    """In a process of its own: ITK's reader may end it."""
    run = shutil.copytree(folder, tmp_path / "copy") / "run"
    content = (run / TRANSFORM).read_bytes()
    (run / TRANSFORM).write_bytes(content[: len(content) // 2])
    done = python("import sys; from neuralreg import cli; sys.exit(cli.main(['report', sys.argv[1]]))", run, cwd=run)
    assert done.returncode == 2 and "transform.h5 is needed" in done.stderr, done.stderr
    assert not list(run.glob(".partial*"))


def test_torch_is_not_needed(folder):
    source = Path(report.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); sys.modules['torch'] = None\n"
    code += f"from neuralreg.report import write_report; write_report({str(folder / 'run')!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_png_is_read_back_by_itk(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (17, 23, 4)).astype(np.uint8)
    for channels in (3, 4):
        (tmp_path / "a.png").write_bytes(pictures.png(picture[..., :channels]))
        read = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.png")))
        assert np.array_equal(read, picture[..., :channels])


@pytest.mark.parametrize(
    "direction",
    [np.eye(3), np.diag([-1.0, -1.0, 1.0]), np.eye(3)[:, [2, 0, 1]], rotation([1, 2, 3], 12)],
    ids=["LPS", "RAS", "permuted", "oblique"],
)
def test_slices_are_in_radiological_convention_however_the_volume_is_stored(direction):
    size = np.array([40, 44, 48])
    center = np.array([10.0, -20.0, 30.0])
    volume = sitk.Image(size.tolist(), sitk.sitkFloat32)
    volume.SetDirection(np.asarray(direction).ravel().tolist())
    volume.SetOrigin((center - direction @ ((size - 1) / 2)).tolist())
    k, j, i = np.indices(size[::-1])
    points = np.stack((i, j, k), axis=-1) @ np.asarray(direction).T + np.array(volume.GetOrigin())
    offset = points - center
    # A body, and on its right, front and upper side a bright spot (L, P, S are the positive axes).
    body = (np.linalg.norm(offset, axis=-1) < 18) * 0.5
    body[np.linalg.norm(offset - [-9, -9, 9], axis=-1) < 11] = 1.0
    filled = sitk.GetImageFromArray(body.astype(np.float32))
    filled.CopyInformation(volume)
    for plane, flip in zip(pictures.planes(filled), (False, True, True), strict=True):
        shown = plane.cut(filled)
        rows, columns = np.argwhere(shown > 0.6).mean(axis=0) / np.array(shown.shape)
        assert plane.flipped == flip and columns < 0.45 and rows < 0.45, plane.name
        assert max(shown.shape) == pytest.approx(pictures.LONGEST_SIDE, rel=0.1)


def test_a_hot_spot_leaves_the_rest_of_the_body_in_the_pictures():
    """A full bladder in PET."""
    body = np.zeros((40, 44, 48), np.float32)
    body[6:34, 8:36, 8:40] = np.linspace(90, 110, 32)
    hot = body.copy()
    hot[8:16, 18:26, 20:28] = 6000.0
    for plane, usual in zip(*(pictures.planes(sitk.GetImageFromArray(values)) for values in (hot, body)), strict=True):
        assert plane.lattice.GetSize() == usual.lattice.GetSize()  # cropped to the body, not to the spot
    assert pictures.gray(body[20, 20, 20], intensity_range(hot)) > 0.2


def test_what_a_ct_has_around_its_field_of_view_does_not_change_its_greys():
    """Beside a CT without padding, all of it would be tinted in the overlay, as if nothing agreed."""
    ct = np.full((40, 40, 40), -1000.0)
    ct[8:32, 8:32, 8:32] = np.linspace(-900, 800, 24)
    padded = ct.copy()
    padded[:, :6] = -3024.0
    shown = [pictures.gray(values, intensity_range(values)) for values in (ct, padded)]
    np.testing.assert_array_equal(*shown)


def test_what_is_no_number_is_background(tmp_path):
    """As in maps that hold NaN outside the brain: the window of grey values would be NaN and every picture black."""
    values = np.linspace(1, 2, 1000, dtype=np.float32).reshape(10, 10, 10)
    values[0], values[1, 0, 0] = np.nan, np.inf
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "map.nrrd"))
    seen = sitk.GetArrayFromImage(pictures.read_volume(str(tmp_path / "map.nrrd")))
    lowest = values[np.isfinite(values)].min()
    np.testing.assert_array_equal(seen, np.where(np.isfinite(values), values, lowest))


def test_overlay_is_grey_where_images_agree_and_coloured_where_not():
    fixed, moving = np.full((4, 4), 0.6), np.full((4, 4), 0.6)
    moving[0], fixed[1] = 0.0, 0.0
    shown = pictures.overlay(fixed, moving).astype(int)
    assert (np.ptp(shown[2:], axis=-1) == 0).all()
    assert (shown[0, :, 1] > shown[0, :, 0]).all() and (shown[1, :, 0] > shown[1, :, 1]).all()


def test_jacobian_colours_are_centred_on_one_and_folds_stand_out():
    jacobian = np.array([[1.0, 2.0, 0.5, -0.2, 1.0]])
    body = np.array([[True, True, True, True, False]])
    shown = pictures.jacobian_map(jacobian, body, 2.0)[0]
    expected = [pictures.DIVERGING[2], pictures.DIVERGING[-1], pictures.DIVERGING[0], pictures.FOLD_COLOR]
    assert [tuple(c) for c in shown[:4, :3].tolist()] == expected
    assert shown[:, 3].tolist() == [255, 255, 255, 255, 0]


def test_grid_lines_of_a_shift_are_straight_and_of_a_bend_are_not():
    rows, columns = np.indices((60, 60)).astype(float)
    straight = pictures.deformation_grid(np.zeros((60, 60)), np.stack((columns + 1.3, rows), axis=-1))
    assert (straight.std(axis=0)[:, 0] > 0).any()
    lines = (straight[..., 0] > 100).all(axis=0).sum()
    bent = np.stack((columns + 5 * np.sin(rows / 9), rows), axis=-1)
    assert lines > 5 and (pictures.deformation_grid(np.zeros((60, 60)), bent)[..., 0] > 100).all(axis=0).sum() == 0


def test_only_the_bending_part_of_a_composite_is_drawn():
    field = sitk.DisplacementFieldTransform(sitk.Image([4, 4, 4], sitk.sitkVectorFloat64, 3))
    both = sitk.CompositeTransform([sitk.TranslationTransform(3, (5.0, 0.0, 0.0)), field])
    assert pictures.deformable_part(both).TransformPoint((1.0, 1.0, 1.0)) == (1.0, 1.0, 1.0)
    assert (
        pictures.deformable_part(sitk.TranslationTransform(3, (5.0, 0.0, 0.0))).TransformPoint((0.0, 0.0, 0.0))[0] == 5
    )
    assert pictures.deformable_part(sitk.CompositeTransform([sitk.TranslationTransform(3, (5.0, 0.0, 0.0))])).IsLinear()


def test_loss_curve_survives_what_a_run_may_hold():
    assert charts.loss_curve([]) == "" and charts.loss_curve([[0, 0, 1.0]]) == ""
    assert "nan" not in charts.loss_curve([[0, 0, 1.0], [0, 1, float("nan")], [0, 2, 1.0]])
    assert charts.loss_curve([[0, i, -i] for i in range(5)] + [[2, 0, -3.0]]).count("<polyline") == 2


@pytest.mark.parametrize("span", [3e-4, 0.017, 0.99, 1.0, 46.0, 8e3])
def test_the_axis_of_the_curve_is_neither_empty_nor_crowded(span):
    assert 3 <= charts.loss_curve([[0, i, -0.7 + span * i / 9] for i in range(10)]).count('class="rule"') <= 9
