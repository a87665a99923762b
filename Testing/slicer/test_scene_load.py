"""A run directory in the scene: the transform acts as ITK's does, and a failed load leaves nothing behind."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from fakerun import GRIDS, add_volume, as_sitk, composite, write_run
from neuralreg.job import INVERSE, JACOBIAN, RESULT, TRANSFORM, WARPED, RegistrationError
from NeuralRegistrationLib import colours, results
from NeuralRegistrationLib.look import displacement_map
from NeuralRegistrationLib.scene import SKIP, Outputs, load_run
from NeuralRegistrationLib.scene_load import load_steps
from plainfile import write_transform
from vtk.util.numpy_support import vtk_to_numpy


@pytest.fixture(params=[("axial", "oblique"), ("oblique", "anisotropic"), ("flipped", "permuted")], ids="-".join)
def pair(request, scene):
    fixed, moving = request.param
    return add_volume("fixed", GRIDS[fixed]), add_volume("moving", GRIDS[moving], shift=(2, -1, 1))


@pytest.fixture
def run(pair, tmp_path):
    write_run(tmp_path, *pair)
    return tmp_path


def point_through(node, ras):
    return np.array(node.GetTransformFromParent().TransformPoint(ras))


def test_points_go_where_itk_sends_them(pair, run):
    transform = composite(as_sitk(pair[0]))
    loaded = load_run(run, *pair, "run")
    for ras in ((3.0, -4, 5), (8, -8, 1), (-5, 2, 8), (10, 5, -5)):
        lps = transform.TransformPoint((-ras[0], -ras[1], ras[2]))
        assert np.allclose(point_through(loaded.transform, ras), np.array(lps) * [-1, -1, 1], atol=1e-4)
        back = np.array(loaded.transform.GetTransformToParent().TransformPoint(point_through(loaded.transform, ras)))
        assert np.allclose(back, ras, atol=1e-3)


def test_moving_volume_under_the_node_is_the_warped_volume(pair, run):
    fixed, moving = pair
    loaded = load_run(run, fixed, moving, "run")
    moving.SetAndObserveTransformNodeID(loaded.transform.GetID())
    shown = slicer.modules.volumes.logic().ResampleVolumeToReferenceVolume(moving, fixed)
    by_slicer = slicer.util.arrayFromVolume(shown)
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage(str(run / WARPED)))
    assert np.abs(by_slicer - by_itk).max() <= 1e-3 * np.ptp(by_itk)
    assert np.array_equal(slicer.util.arrayFromVolume(loaded.warped), by_itk)
    assert np.abs(by_itk - slicer.util.arrayFromVolume(fixed)).max() > 5  # the test would see no transform at all


def test_everything_is_named_referenced_and_in_one_folder(pair, run):
    fixed, moving = pair
    moving.CreateDefaultDisplayNodes()
    moving.GetDisplayNode().AutoWindowLevelOff()
    moving.GetDisplayNode().SetWindowLevelMinMax(11, 77)
    loaded = load_run(run, fixed, moving, "moving to fixed DNVF")
    node = loaded.transform
    assert node.GetName() == "moving to fixed DNVF"
    assert node.GetNodeReference(node.GetFixedNodeReferenceRole()) is fixed
    assert node.GetNodeReference(node.GetMovingNodeReferenceRole()) is moving
    inverse = loaded.inverse
    assert inverse.GetNodeReference(inverse.GetFixedNodeReferenceRole()) is moving
    assert loaded.warped.GetDisplayNode().GetWindowLevelMin() == pytest.approx(11)
    folder, tree = results.folder_of(loaded), results.hierarchy()
    assert tree.GetItemName(folder) == "moving to fixed DNVF"
    assert len(loaded.outputs()) == 5
    for one in loaded.outputs():
        assert tree.GetItemParent(tree.GetItemByDataNode(one)) == folder
        assert one.GetStorageNode() is None  # the run directory is temporary


def test_metrics_are_a_table(pair, run):
    table = load_run(run, *pair, "run").table.GetTable()
    rows = {table.GetValue(i, 0).ToString(): table.GetValue(i, 1).ToString() for i in range(table.GetNumberOfRows())}
    assert rows["similarity before"] == "0.31" and rows["jacobian min"] == "0.42" and rows["method"] == "DNVF"


def test_folding_has_a_colour_of_its_own(scene):
    values = np.array([-2, -0.001, 0.0, 0.004, 0.5, 0.999, 1.0, 1.002, 1.5, 3], np.float32)
    volume = slicer.util.addVolumeFromArray(values.reshape(1, 1, -1), np.eye(4), "J")
    colours.show_jacobian(volume)
    port = volume.GetDisplayNode().GetOutputImageDataConnection()
    port.GetProducer().Update()
    shown = vtk_to_numpy(port.GetProducer().GetOutputDataObject(0).GetPointData().GetScalars())[:, :3] / 255
    folding = np.abs(shown - colours.FOLDING).max(axis=1) < 0.01
    assert folding.tolist() == [True, True, True] + [False] * 7
    assert np.allclose(shown[6], 1, atol=0.02)  # white on 1
    assert shown[4][2] > shown[4][0] and shown[8][0] > shown[8][2]  # blue shrinks, red grows
    assert colours.jacobian_colours() is colours.jacobian_colours()


def test_only_what_is_wanted(pair, run):
    (run / INVERSE).unlink()
    loaded = load_run(run, *pair, "run", Outputs(inverse=SKIP, jacobian=SKIP))
    assert loaded.inverse is None and loaded.jacobian is None and loaded.transform is not None


def test_existing_nodes_are_filled(pair, run, scene):
    transform = scene.AddNewNodeByClass("vtkMRMLTransformNode", "my transform")
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "my volume")
    loaded = load_run(run, *pair, "run", Outputs(transform=transform, warped=volume))
    assert loaded.transform is transform and transform.GetName() == "my transform"
    assert loaded.warped is volume and volume.GetImageData() is not None
    assert not np.allclose(point_through(transform, (3.0, -4, 5)), (3, -4, 5), atol=0.1)
    shown = [n for n in slicer.util.getNodesByClass("vtkMRMLTransformNode") if not n.GetHideFromEditors()]
    assert len(shown) == 2  # the existing one and the inverse


def test_an_existing_node_that_was_deleted_meanwhile_is_made_anew(pair, run, scene):
    """Minutes lie between the click and the end of a run; its result must not go to a node that nobody can see."""
    gone = [
        scene.AddNewNodeByClass(f"vtkMRML{kind}Node", "mine") for kind in ("Transform", "ScalarVolume", "ScalarVolume")
    ]
    for node in gone:
        scene.RemoveNode(node)
    outputs = Outputs(transform=gone[0], warped=gone[1], jacobian=gone[2])
    loaded = load_run(run, *pair, "run", outputs)
    made = (loaded.transform, loaded.warped, loaded.jacobian)
    assert [node.GetName() for node in made] == ["run", "run warped", "run Jacobian"]
    assert all(node.GetScene() is scene for node in made)


@pytest.mark.parametrize("moving", ["without display", "label map"])
def test_a_warped_volume_whose_moving_has_no_window_gets_its_own(scene, tmp_path, moving):
    """As items of a sequence; Slicer's plain window of 0 to 256 shows an MRI white and a label map black."""
    pair = add_volume("fixed", GRIDS["axial"]), add_volume("moving", GRIDS["oblique"], label=moving == "label map")
    if moving == "without display":
        scene.RemoveNode(pair[1].GetDisplayNode())
    write_run(tmp_path, *pair)
    warped = load_run(tmp_path, *pair, "run").warped
    display, (low, high) = warped.GetDisplayNode(), warped.GetImageData().GetScalarRange()
    assert low <= display.GetWindowLevelMin() < display.GetWindowLevelMax() <= high + 1e-6
    assert display.GetWindow() > 0.3 * (high - low)
    assert display.GetColorNodeID() == "vtkMRMLColorTableNodeGrey"


def test_a_warped_ct_is_in_hounsfield_units_too(pair, run):
    """As DICOM has told of the moving volume; Segment Statistics writes them behind its figures."""
    for set_entry, code, meaning in (
        (pair[1].SetVoxelValueQuantity, "112031", "Attenuation Coefficient"),
        (pair[1].SetVoxelValueUnits, "[hnsf'U]", "Hounsfield unit"),
    ):
        entry = slicer.vtkCodedEntry()
        entry.SetValueSchemeMeaning(code, "UCUM", meaning)
        set_entry(entry)
    loaded = load_run(run, *pair, "run")
    assert loaded.warped.GetVoxelValueQuantity().GetCodeMeaning() == "Attenuation Coefficient"
    assert loaded.warped.GetVoxelValueUnits().GetCodeMeaning() == "Hounsfield unit"
    assert loaded.jacobian.GetVoxelValueUnits() is None


def ids(scene):
    return sorted(scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes()))


def hierarchy_items():
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    return hierarchy.GetNumberOfItems()


@pytest.mark.parametrize("broken", [TRANSFORM, INVERSE, WARPED, JACOBIAN, RESULT])
@pytest.mark.parametrize("how", ["missing", "garbage"])
def test_nothing_is_left_when_loading_fails(pair, run, scene, broken, how):
    items, before = hierarchy_items(), ids(scene)
    if how == "missing":
        (run / broken).unlink()
    else:
        (run / broken).write_bytes(b"not what it seems")
    with pytest.raises(RegistrationError, match=broken):
        load_run(run, *pair, "run")
    assert ids(scene) == before and hierarchy_items() == items


def test_loading_given_up_half_way_leaves_what_others_added(pair, run, scene):
    items, before = hierarchy_items(), ids(scene)
    steps = load_steps(run, *pair, "run", Outputs())
    for _ in range(4):
        next(steps)
    other = scene.AddNewNodeByClass("vtkMRMLTextNode", "added by somebody else meanwhile")
    assert len(ids(scene)) > len(before) + 1
    steps.close()
    assert ids(scene) == sorted([*before, other.GetID()]) and hierarchy_items() <= items + 1


def test_unknown_figures_are_shown_too(pair, run):
    values = json.loads((run / RESULT).read_text())
    values["metrics"]["a_figure_of_tomorrow"] = 12.5
    (run / RESULT).write_text(json.dumps(values))
    table = load_run(run, *pair, "run").table.GetTable()
    names = [table.GetValue(i, 0).ToString() for i in range(table.GetNumberOfRows())]
    assert "a figure of tomorrow" in names


def test_both_files_are_read_as_itk_reads_them(pair, run):
    loaded = load_run(run, *pair, "run")
    for file, node in ((TRANSFORM, loaded.transform), (INVERSE, loaded.inverse)):
        transform = sitk.ReadTransform(str(run / file))
        for ras in ((3.0, -4, 5), (8, -8, 1), (-5, 2, 8), (10, 5, -5)):
            lps = transform.TransformPoint((-ras[0], -ras[1], ras[2]))
            assert np.allclose(point_through(node, ras), np.array(lps) * [-1, -1, 1], atol=1e-4)


def test_a_transform_file_cut_short_is_a_sentence(pair, run):
    whole = (run / TRANSFORM).read_bytes()
    for size in (40, 200, len(whole) // 2):
        (run / TRANSFORM).write_bytes(whole[:size])
        with pytest.raises(RegistrationError, match=TRANSFORM):
            load_run(run, *pair, "run")


def test_a_transform_that_bends_nothing_is_a_linear_node(pair, run):
    """Only such a node has sliders in Transforms, and only it can be hardened on every node of Slicer."""
    lps = sitk.CompositeTransform(composite(as_sitk(pair[0]))).GetNthTransform(0)
    write_transform(lps, run / TRANSFORM)
    write_transform(lps.GetInverse(), run / INVERSE)
    loaded = load_run(run, *pair, "run")
    for node, there in ((loaded.transform, lps), (loaded.inverse, lps.GetInverse())):
        assert node.IsA("vtkMRMLLinearTransformNode")
        expected = np.array(there.TransformPoint((-3.0, 4.0, 5.0))) * [-1, -1, 1]
        assert np.allclose(point_through(node, (3.0, -4.0, 5.0)), expected, atol=1e-9)
    assert displacement_map(loaded).GetImageData().GetScalarRange()[1] > 1.0
