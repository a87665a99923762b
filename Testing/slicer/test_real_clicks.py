"""One real registration, clicked, looked at and judged: the panel's words, views and figures; ITK is the oracle."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from clicks import temporary_files
from fakerun import as_sitk
from neuralreg.job import INVERSE
from NeuralRegistrationLib import look, results
from NeuralRegistrationLib.dependencies import torch_problem
from NeuralRegistrationLib.results import runs
from realrun import (
    STRUCTURES,
    TURN,
    finished,
    geometry,
    place,
    point_list,
    segmentation,
    through,
    truth,
)

pytestmark = pytest.mark.skipif(bool(torch_problem()), reason="the real worker needs PyTorch")


@pytest.fixture(scope="module")
def done(kept_module):
    seen = {"stages": [], "times": set(), "preview": None}
    run = finished(kept_module, lambda: note(kept_module, seen))
    run.seen = seen
    return run


def note(panel, seen):
    """Take down what the user sees while the optimisation goes on."""
    if not panel.ui.progressWidget.isHidden():
        if panel.ui.stageLabel.text not in seen["stages"]:
            seen["stages"].append(panel.ui.stageLabel.text)
        seen["times"].add(panel.ui.timeLabel.text)
    preview = panel.runSection().preview
    if preview is not None and preview.node is not None and preview.node.GetImageData() is not None:
        views = {view.GetForegroundVolumeID() for view in look.slice_views()}
        display = preview.node.GetDisplayNode()
        window = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        seen["preview"] = views == {preview.node.GetID()}, slicer.util.arrayFromVolume(preview.node).copy(), window


@pytest.fixture(autouse=True)
def tidy(done):
    """Each test leaves the views as it found them."""
    yield
    done.ui.resetButton.click()


def test_progress_curve_and_preview(done):
    stages, times, preview = done.seen["stages"], done.seen["times"], done.seen["preview"]
    order = ("Linear alignment", "Deformable registration")
    assert [stage for stage in stages if stage in order] == list(order)
    assert any(text.endswith(" left") for text in times)
    in_all_views, values, (low, high) = preview
    assert in_all_views and np.ptp(values) > 0.5 * (high - low) > 0, "the warped volume, neither black nor white"
    assert low <= np.percentile(values, 5) and np.percentile(values, 95) <= 1.2 * high
    curve = done.panel.runSection().progress.curve.stages
    assert curve and all(stage[-1] <= stage[0] for stage in curve), "each resolution has a loss of its own, that falls"
    assert not done.ui.lossLabel.pixmap.isNull() and not done.ui.lossLabel.isHidden()
    assert not slicer.util.getNodes("Registration preview*"), "the preview takes itself away"
    assert "going by runs on this computer" in done.ui.estimateLabel.text
    device, _colon, reason = done.panel.logic.worker.device.partition(": ")
    assert device == done.run.measurements["device"] and reason and reason in done.ui.deviceLabel.text
    assert len(temporary_files()) == 1, "the run's own folder, for the evaluation"


def test_it_finds_what_is_known_about_the_pair(done):
    there = place(TURN, truth(STRUCTURES))
    before = np.linalg.norm(there - STRUCTURES, axis=1)
    after = np.linalg.norm(through(done.file, STRUCTURES) - there, axis=1)
    assert before.mean() > 6 and after.mean() < 1.5, (before, after)


def test_outputs_are_named_referenced_and_in_one_folder(done):
    run, name = done.run, "Small moving to Small fixed (DNVF)"
    assert [node.GetName() for node in run.outputs()] == [
        name, f"{name} inverse", f"{name} warped", f"{name} Jacobian", f"{name} metrics",
    ]  # fmt: skip
    tree = results.hierarchy()
    assert {tree.GetItemName(tree.GetItemParent(tree.GetItemByDataNode(node))) for node in run.outputs()} == {name}
    for transform, ends in ((run.transform, (done.fixed, done.moving)), (run.inverse, (done.moving, done.fixed))):
        roles = transform.GetFixedNodeReferenceRole(), transform.GetMovingNodeReferenceRole()
        assert tuple(transform.GetNodeReference(role) for role in roles) == ends


def test_warped_inverse_and_jacobian_are_what_itk_makes_of_the_file(done):
    expected = sitk.Resample(as_sitk(done.moving), as_sitk(done.fixed), done.file, sitk.sitkLinear)
    expected = sitk.GetArrayFromImage(expected)
    warped = slicer.util.arrayFromVolume(done.run.warped)
    assert np.abs(warped - expected)[2:-2, 2:-2, 2:-2].max() <= 1e-3 * np.ptp(expected)
    inverse = sitk.ReadTransform(str(done.panel.logic.folders.of(done.run) / INVERSE))
    assert np.abs(through(inverse, through(done.file, STRUCTURES)) - STRUCTURES).max() < 0.1
    index_from_ras = np.linalg.inv(geometry(done.fixed))
    for point in STRUCTURES:
        steps = point + 3.0 * np.concatenate([np.eye(3), -np.eye(3)])  # one voxel to each side
        ahead, behind = np.split(through(done.file, steps), 2)
        i, j, k = np.rint(place(index_from_ras, point[None])[0]).astype(int)
        found = slicer.util.arrayFromVolume(done.run.jacobian)[k, j, i]
        assert found == pytest.approx(np.linalg.det((ahead - behind) / 6.0), rel=0.1)


def layers():
    """(background, foreground, opacity) that all slice views show."""
    shown = {
        (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID(), round(view.GetForegroundOpacity(), 3))
        for view in look.slice_views()
    }
    assert len(shown) == 1
    return shown.pop()


def test_before_after_slider_and_flicker(done, wait):
    fixed, moving, warped = (node.GetID() for node in (done.fixed, done.moving, done.run.warped))
    done.ui.blendSlider.value = 0.25
    assert layers() == (fixed, warped, 0.25)
    done.ui.beforeButton.click()
    assert layers() == (fixed, moving, 0.25)
    done.ui.beforeButton.click()
    assert layers() == (fixed, warped, 0.25)
    done.ui.flickerButton.click()
    for opacity in (1.0, 0.0, 1.0):
        wait(lambda opacity=opacity: layers()[2] == opacity)
    done.ui.flickerButton.click()
    assert layers() == (fixed, warped, 0.25)


def test_checkerboard_and_side_by_side(done):
    done.ui.checkerButton.click()
    board = slicer.mrmlScene.GetNodeByID(layers()[0])
    values = slicer.util.arrayFromVolume(board).astype(float)
    shown = []
    for volume in (done.fixed, done.run.warped):
        display = volume.GetDisplayNode()
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        shown.append(np.clip((slicer.util.arrayFromVolume(volume) - low) / (high - low), 0, 1) * 255)
    side = max(values.shape) // 8
    index = np.indices(values.shape) // side
    expected = np.where(index.sum(axis=0) % 2 == 0, *shown)
    assert np.abs(values - expected).max() <= 1.5
    done.ui.sideButton.click()
    by_view = {view.GetLayoutName(): view for view in look.slice_views()}
    assert by_view["Red"].GetBackgroundVolumeID() == done.fixed.GetID()
    assert by_view["Yellow"].GetBackgroundVolumeID() == done.run.warped.GetID()
    assert all(view.GetLinkedControl() for view in by_view.values())
    done.ui.resetButton.click()
    assert layers()[:2] == (done.fixed.GetID(), done.run.warped.GetID())
    assert not any(view.GetLinkedControl() for view in look.slice_views())


def test_grid_jacobian_and_displacement(done):
    done.ui.gridButton.click()
    assert done.run.transform.GetDisplayNode().GetVisibility2D()
    done.ui.jacobianButton.click()
    assert layers()[:2] == (done.fixed.GetID(), done.run.jacobian.GetID())
    display = done.run.jacobian.GetDisplayNode()
    middle = (display.GetWindowLevelMin() + display.GetWindowLevelMax()) / 2
    assert middle == pytest.approx(1.0, abs=0.01) and display.GetColorNode().GetColorName(0).startswith("folding")
    done.ui.displacementButton.click()
    assert not done.ui.jacobianButton.checked
    map_of_distances = slicer.mrmlScene.GetNodeByID(layers()[1])
    ijk = np.array([[10, 12, 14], [16, 16, 14], [20, 9, 17]])
    points = place(geometry(done.fixed), ijk)
    expected = np.linalg.norm(through(done.file, points) - points, axis=1)
    found = [slicer.util.arrayFromVolume(map_of_distances)[k, j, i] for i, j, k in ijk]
    assert np.allclose(found, expected, atol=0.02)
    done.ui.resetButton.click()
    assert not done.run.transform.GetDisplayNode().GetVisibility2D() and not done.ui.gridButton.checked


def test_evidence_csv_and_report(done, wait, tmp_path):
    ui, section = done.ui, next(s for s in done.panel.sections if hasattr(s, "chooseFile"))
    bodies = [segmentation(f"{v.GetName()} parts", v, body=60, bright=118) for v in (done.fixed, done.moving)]
    lists = point_list("fixed points", STRUCTURES), point_list("moving points", place(TURN, truth(STRUCTURES)))
    for name, node in zip(("fixed", "moving"), bodies, strict=True):
        getattr(ui, f"{name}StructuresSelector").setCurrentNode(node)
    for name, node in zip(("fixed", "moving"), lists, strict=True):
        getattr(ui, f"{name}LandmarksSelector").setCurrentNode(node)
    ui.evaluateButton.click()
    wait(lambda: not section.task.running)
    measured = runs()[0].measurements
    errors = np.linalg.norm(through(done.file, STRUCTURES) - place(TURN, truth(STRUCTURES)), axis=1)
    assert np.allclose([measured["tre_mm"][str(i + 1)] for i in range(len(errors))], errors, atol=1e-3)
    assert measured["tre_mean_mm"] == pytest.approx(errors.mean(), abs=1e-3)
    for name, lowest in (("body", 60), ("bright", 118)):
        assert measured["dice"][name] == pytest.approx(dice(done, lowest), abs=0.02), name
    section.chooseFile = lambda title, name, kinds: str(tmp_path / name)
    ui.csvButton.click()
    with (tmp_path / "registration.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row[0]: row for row in csv.reader(file) if row}
    assert rows["Landmarks (TRE)"][1].startswith(f"mean {errors.mean():.2f} mm") and rows["Landmarks (TRE)"][3]
    assert float(rows["dice bright"][1]) == measured["dice"]["bright"]
    assert float(rows["tre_mm 2"][1]) == measured["tre_mm"]["2"]
    assert float(rows["jacobian_min"][1]) == measured["jacobian_min"]
    table = done.run.table.GetTable()
    texts = {table.GetValue(i, 0).ToString(): table.GetValue(i, 1).ToString() for i in range(table.GetNumberOfRows())}
    assert texts["dice body"] == f"{measured['dice']['body']:.4g}" and "tre mm 1" in texts
    in_panel = [ui.trustTable.item(row, 0).text() for row in range(ui.trustTable.rowCount)]
    assert {"Similarity of the images", "Overlap: body", "Overlap: bright", "Landmark 4"} <= set(in_panel), in_panel
    ui.reportButton.click()
    wait(lambda: not section.task.running)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "TG-132" in page and "<svg" in page and f"{measured['tre_mean_mm']:.2f}" in page, ui.statusLabel.text


def test_structures_that_were_not_measured_are_named(done, wait):
    """A segment with another spelling, or with nothing in it on one side, would be missing without a word."""
    ui, section = done.ui, next(s for s in done.panel.sections if hasattr(s, "chooseFile"))
    fixed = segmentation("f", done.fixed, body=60, liver=118, tumour=118)
    moving = segmentation("m", done.moving, body=60, Liver=118)
    moving.GetSegmentation().AddEmptySegment("tumour", "tumour")
    ui.fixedStructuresSelector.setCurrentNode(fixed)
    ui.movingStructuresSelector.setCurrentNode(moving)
    ui.evaluateButton.click()
    wait(lambda: not section.task.running)
    assert ui.statusLabel.text.endswith("Left out, as they are not in both segmentations: Liver, liver, tumour.")


def dice(done, lowest):
    """Of what is brighter than a grey value: the moving labels through the file to the fixed volume."""
    fixed, moving = (as_sitk(volume) > lowest for volume in (done.fixed, done.moving))
    first = sitk.GetArrayFromImage(fixed).astype(bool)
    second = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, done.file, sitk.sitkNearestNeighbor)).astype(bool)
    return 2 * (first & second).sum() / (first.sum() + second.sum())
