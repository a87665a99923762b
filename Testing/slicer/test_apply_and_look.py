"""Everything that belongs to a volume goes the same way as the volume; every way to look shows what it says."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from fakerun import GRIDS, add_volume, write_run
from neuralreg.job import RegistrationError
from NeuralRegistrationLib import apply, look, results, trust
from NeuralRegistrationLib.scene import SKIP, Outputs, load_run
from realrun import geometry, labels_of, segmentation


@pytest.fixture
def run(scene, tmp_path):
    fixed, moving = add_volume("fixed", GRIDS["oblique"]), add_volume("moving", GRIDS["anisotropic"], shift=(2, -1, 1))
    write_run(tmp_path, fixed, moving)
    return load_run(tmp_path, fixed, moving, "moving to fixed")


POINT = np.array([3.0, -4.0, 5.0])


def point_list(*points):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    for point in points:
        node.AddControlPoint(*point)
    return node


def world(points, index=0):
    ras = [0.0, 0.0, 0.0]
    points.GetNthControlPointPositionWorld(index, ras)
    return np.array(ras)


def moving_from_fixed(run, point):
    return np.array(run.transform.GetTransformFromParent().TransformPoint(point))


@pytest.mark.parametrize("harden", [False, True])
def test_points_go_with_the_image_not_against_it(run, harden):
    """The classic confusion: a landmark drawn on the moving image must land on the same structure of the fixed one."""
    points = point_list(moving_from_fixed(run, POINT))  # where the structure lies in the moving image
    apply.move([points], run, apply.TO_FIXED, harden)
    assert np.allclose(world(points), POINT, atol=0.01)
    assert (points.GetParentTransformNode() is None) == harden


@pytest.mark.parametrize("with_inverse", [True, False])
def test_from_fixed_space_to_moving(run, with_inverse):
    if not with_inverse:
        slicer.mrmlScene.RemoveNode(run.inverse)
        run = results.run_of(run.table)
    points = point_list(POINT)
    apply.move([points], run, apply.TO_MOVING)
    expected = moving_from_fixed(run, POINT)
    if with_inverse:  # the file of the test holds a rough inverse: it must be the one that is used
        expected = np.array(run.inverse.GetTransformToParent().TransformPoint(POINT))
    assert np.allclose(world(points), expected, atol=0.01)


def test_model_and_segmentation_and_volume_move_alike(run):
    labels = add_volume("labels", GRIDS["anisotropic"], label=True)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "s")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "m")
    apply.move([segmentation, model, labels], run)
    assert {n.GetParentTransformNode().GetID() for n in (segmentation, model, labels)} == {run.transform.GetID()}


def test_own_parents_are_kept_and_others_stay(run):
    """The parent of a moved node may be shared with nodes that must not move."""
    shift = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shared")
    matrix = np.eye(4)
    matrix[:3, 3] = (10, 0, 0)
    shift.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    here, other = point_list(moving_from_fixed(run, POINT) - (10, 0, 0)), point_list((1, 2, 3))
    for node in (here, other):
        node.SetAndObserveTransformNodeID(shift.GetID())
    apply.move([here], run)
    assert np.allclose(world(here), POINT, atol=0.01) and np.allclose(world(other), (11, 2, 3))


def test_what_lies_under_the_transform_already_is_not_moved_twice(run):
    """Also where somebody has put its parent there by hand; and again after a second click."""
    points = point_list(moving_from_fixed(run, POINT))
    parent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "parent")
    parent.SetAndObserveTransformNodeID(run.transform.GetID())
    points.SetAndObserveTransformNodeID(parent.GetID())
    for harden in (False, False, True):
        apply.move([points], run, apply.TO_FIXED, harden)
        assert np.allclose(world(points), POINT, atol=0.01)
    assert points.GetParentTransformNode() is None and parent.GetScene() is not None


def test_folder(run):
    tree = results.hierarchy()
    folder = tree.CreateFolderItem(tree.GetSceneItemID(), "patient")
    points = point_list((0, 0, 0))
    results.put_into_folder(points, folder)
    assert (folder, "patient") in apply.folders() and apply.nodes_in(folder) == [points]


def test_nothing_to_move_and_lost_transform_are_sentences(run):
    with pytest.raises(RegistrationError, match="at least one node"):
        apply.move([], run)
    slicer.mrmlScene.RemoveNode(run.transform)
    with pytest.raises(RegistrationError, match="no longer in the scene"):
        apply.move([point_list((0, 0, 0))], results.run_of(run.table))


def test_checkerboard_has_squares_of_both(run):
    board = slicer.util.arrayFromVolume(look.checkerboard(run))
    assert look.checkerboard(run) is look.checkerboard(run)
    shown = {name: look._as_shown(getattr(run, name), run.warped) for name in ("fixed", "warped")}
    same = {name: np.isclose(board, values, atol=1) for name, values in shown.items()}
    assert (same["fixed"] | same["warped"]).all()
    assert not same["fixed"].all() and not same["warped"].all()


def test_structures_are_paired_only_where_names_are_clear(run, tmp_path):
    """Of two segments with one name the second alone would be measured. Segments may lie within one another."""
    pair = [segmentation(f"of {name}", getattr(run, name), body=30, core=60) for name in ("fixed", "moving")]
    files, names = trust.write_structures(*pair, run, tmp_path)
    assert names == ["body", "core"]
    for number, (lowest, files_of_one) in enumerate(zip((30, 60), files, strict=True), 1):
        for name, file in zip(("fixed", "moving"), files_of_one, strict=True):  # the core is not missing in the body
            inside = (slicer.util.arrayFromVolume(getattr(run, name)) > lowest).sum()
            found = sitk.GetArrayFromImage(sitk.ReadImage(file))
            assert set(np.unique(found)) == {0, number} and (found > 0).sum() == inside
    apart = [segmentation(f"apart {name}", getattr(run, name), body=30) for name in ("fixed", "moving")]
    for node, name in zip(apart, ("fixed", "moving"), strict=True):
        outside = labels_of(getattr(run, name), -1e9, "outside")
        slicer.util.arrayFromVolume(outside)[slicer.util.arrayFromVolume(getattr(run, name)) > 30] = 0
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(outside, node)
        node.GetSegmentation().GetNthSegment(1).SetName("outside")
    assert len(trust.write_structures(*apart, run, tmp_path)[0]) == 1, "one file holds what does not overlap"
    pair[1].GetSegmentation().GetNthSegment(1).SetName("body")
    with pytest.raises(RegistrationError, match='Segments of "of moving" share a name'):
        trust.write_structures(*pair, run, tmp_path)


def test_displacement_map_is_the_length_of_the_displacement(run):
    volume = look.displacement_map(run)
    index = (9, 10, 8)  # k, j, i
    ras = (GRIDS["oblique"] @ [index[2], index[1], index[0], 1])[:3]
    expected = np.linalg.norm(moving_from_fixed(run, ras) - ras)
    assert slicer.util.arrayFromVolume(volume)[index] == pytest.approx(expected, rel=1e-3)
    assert apply.is_there(volume, run, apply.TO_FIXED), "it lies in fixed space and is not to be moved there"


def test_the_displacement_map_of_a_large_volume_has_fewer_points_and_the_same_distances(run, monkeypatch):
    """Each point costs time, in which Slicer stands still: seconds for a brain at 1 mm, half a minute for a CT."""
    monkeypatch.setattr(look, "MAP_POINTS", 1000)
    run.warped.SetAndObserveTransformNodeID(run.transform.GetID())  # moved since; the map lies where it belongs
    volume = look.displacement_map(run)
    distances = slicer.util.arrayFromVolume(volume)
    assert 500 < distances.size < 2000
    for index in np.ndindex(distances.shape):
        ras = (geometry(volume) @ [*index[::-1], 1])[:3]
        assert distances[index] == pytest.approx(np.linalg.norm(moving_from_fixed(run, ras) - ras), rel=1e-3)
    bounds = np.zeros((2, 6))
    volume.GetRASBounds(bounds[0])
    run.fixed.GetRASBounds(bounds[1])
    assert np.abs(bounds[0] - bounds[1]).max() < 2 * max(volume.GetSpacing())


def test_views(run):
    look.show_before(run, 0.3)
    view = look.slice_views()[0]
    assert view.GetForegroundVolumeID() == run.moving.GetID() and view.GetForegroundOpacity() == pytest.approx(0.3)
    look.show_map(run, run.jacobian)
    assert view.GetForegroundVolumeID() == run.jacobian.GetID()
    look.show_side_by_side(run)
    shown = {v.GetLayoutName(): v.GetBackgroundVolumeID() for v in look.slice_views()}
    assert shown["Red"] == run.fixed.GetID() and shown["Yellow"] == run.warped.GetID()
    assert all(v.GetLinkedControl() for v in look.slice_views())
    red, yellow = (slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}") for name in ("Red", "Yellow"))
    for row in range(3):
        for column in range(3):
            assert red.GetSliceToRAS().GetElement(row, column) == yellow.GetSliceToRAS().GetElement(row, column)
    look.leave_side_by_side()
    look.show_after(run, 1.0)
    assert not view.GetLinkedControl() and view.GetForegroundVolumeID() == run.warped.GetID()
    look.show_grid(run, True)
    assert run.transform.GetDisplayNode().GetVisibility2D()


def test_side_by_side_gives_the_views_back_as_they_were(run):
    """Many work with linked views, in a layout and slices of their own; a look at a result must not cost them that."""
    layouts = slicer.app.layoutManager()
    conventional = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    yellow = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeYellow")
    for linked in (True, False):
        layouts.setLayout(conventional)
        yellow.GetSliceToRAS().DeepCopy((0, 0.6, 0.8, 1, 1, 0, 0, 2, 0, 0.8, -0.6, 3, 0, 0, 0, 1))
        yellow.UpdateMatrices()
        for view in look.slice_views():
            view.SetLinkedControl(linked)
            view.SetHotLinkedControl(False)
        look.leave_side_by_side()  # as at the end of every run
        assert all(bool(view.GetLinkedControl()) == linked for view in look.slice_views())
        for _ in range(2):  # the second click must not take side by side for what the user had
            look.show_side_by_side(run)
        look.leave_side_by_side()
        assert layouts.layout == conventional
        assert all(bool(view.GetLinkedControl()) == linked for view in look.slice_views())
        assert not any(view.GetHotLinkedControl() for view in look.slice_views())
        assert yellow.GetSliceToRAS().GetElement(0, 1) == 0.6 and yellow.GetSliceToRAS().GetElement(2, 3) == 3
    yellow.SetOrientation("Sagittal")


@pytest.mark.parametrize("kind", ["shifted", "bent", "label map"])
def test_checkerboard_of_a_fixed_volume_on_another_lattice(scene, tmp_path, kind):
    """Under a parent the warped volume lies on the lattice in world space, not on the node's."""
    fixed, moving = (add_volume(name, GRIDS["axial"], label=kind == "label map") for name in ("fixed", "moving"))
    write_run(tmp_path, fixed, moving)
    run = load_run(tmp_path, fixed, moving, "run")
    plain = slicer.util.arrayFromVolume(look.checkerboard(run)).astype(float)
    slicer.mrmlScene.RemoveNode(run.table.GetNodeReference("NeuralRegistration.checkerboard"))
    if kind != "label map":  # the body of the fixed volume goes away; squares of the warped volume stay
        parent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "parent")
        shift = vtk.vtkTransform()
        shift.Translate(500, 0, 0)
        bend = vtk.vtkThinPlateSplineTransform()
        parent.SetAndObserveTransformToParent(shift)
        if kind == "bent":
            corners = [vtk.vtkPoints(), vtk.vtkPoints()]
            for point in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50)):
                corners[0].InsertNextPoint(point)
                corners[1].InsertNextPoint(point[0] + 500, point[1], point[2])
            bend.SetSourceLandmarks(corners[0])
            bend.SetTargetLandmarks(corners[1])
            bend.SetBasisToR()
            parent.SetAndObserveTransformToParent(bend)
        fixed.SetAndObserveTransformNodeID(parent.GetID())
    board = slicer.util.arrayFromVolume(look.checkerboard(run)).astype(float)
    assert board.shape == slicer.util.arrayFromVolume(run.warped).shape and board.max() > 100
    even = np.indices(board.shape) // max(1, max(board.shape) // look.SQUARES)
    even = even.sum(axis=0) % 2 == 0
    assert np.array_equal(board[~even], plain[~even])
    assert (board[even].std() < 1) == (kind != "label map")


def test_buttons_follow_what_the_run_has(fake_worker, module, tmp_path):
    fixed, moving = add_volume("fixed", GRIDS["axial"]), add_volume("moving", GRIDS["oblique"])
    write_run(tmp_path, fixed, moving)
    load_run(tmp_path, fixed, moving, "run", Outputs(jacobian=SKIP))
    module.refresh()
    ui = module.ui
    assert not ui.jacobianButton.enabled and ui.gridButton.enabled and ui.checkerButton.enabled
    for button in (
        ui.beforeButton,
        ui.displacementButton,
        ui.gridButton,
        ui.flickerButton,
        ui.checkerButton,
        ui.sideButton,
        ui.resetButton,
    ):
        button.click()
    assert not ui.beforeButton.checked and not ui.displacementButton.checked and not ui.flickerButton.checked
    ui.checkerButton.click()
    assert not ui.blendSlider.enabled and not ui.flickerButton.enabled, "a checkerboard has nothing to fade to"
    ui.displacementButton.click()
    assert ui.blendSlider.enabled and ui.flickerButton.enabled
    ui.displacementButton.click()
    ui.blendSlider.value = 0.8
    assert look.slice_views()[0].GetForegroundOpacity() == pytest.approx(0.8)


def test_a_chosen_result_is_the_one_that_is_shown(fake_worker, module, tmp_path):
    """Neither its own map nor the other's grid stays in the views when the user turns to another result."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fixed, moving = add_volume(f"fixed {name}", GRIDS["axial"]), add_volume(f"moving {name}", GRIDS["oblique"])
        write_run(tmp_path / name, fixed, moving)
        load_run(tmp_path / name, fixed, moving, name)
    module.refresh()
    ui, (two, one) = module.ui, results.runs()
    ui.gridButton.click()
    ui.jacobianButton.click()
    view = look.slice_views()[0]
    assert two.transform.GetDisplayNode().GetVisibility2D()
    assert view.GetForegroundVolumeID() == two.jacobian.GetID()
    ui.runComboBox.setCurrentIndex(1)
    assert not two.transform.GetDisplayNode().GetVisibility2D()
    assert not ui.gridButton.checked and not ui.jacobianButton.checked
    assert view.GetBackgroundVolumeID() == one.fixed.GetID() and view.GetForegroundVolumeID() == one.warped.GetID()
