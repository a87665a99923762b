"""What leaves the scene lies where Slicer shows it: parent transforms applied, exactly where they are linear."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from fakerun import GRIDS, add_volume, as_sitk, blobs, write_run
from neuralreg.job import TRANSFORM, RegistrationError, RegistrationJob
from NeuralRegistrationLib import samples
from NeuralRegistrationLib import scene as exchange
from NeuralRegistrationLib.lattice import local_geometry, world_bounds
from NeuralRegistrationLib.request import Request, write_job
from NeuralRegistrationLib.scene import load_transform
from vtk.util.numpy_support import vtk_to_numpy


def linear_parent(matrix, name="parent"):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.asarray(matrix, dtype=float)))
    return node


RIGID = [[0.8, -0.6, 0, 4], [0.6, 0.8, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]]
SHEAR = [[1, 0.3, 0, 4], [0, 1, 0, -3], [0, 0.2, 1.1, 2], [0, 0, 0, 1]]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_and_lattice_are_exact(scene, tmp_path, grid, kind):
    volume = add_volume("v", GRIDS[grid])
    slicer.util.updateVolumeFromArray(volume, slicer.util.arrayFromVolume(volume).clip(0).astype(kind))
    image = sitk.ReadImage(exchange.export_volume(volume, tmp_path / "v.nrrd"))
    expected = as_sitk(volume)
    assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))
    for corner in ((0, 0, 0), (19, 0, 0), (0, 21, 0), (0, 0, 17)):
        assert np.allclose(
            image.TransformIndexToPhysicalPoint(corner), expected.TransformIndexToPhysicalPoint(corner), atol=1e-6
        )


@pytest.mark.parametrize("grid", GRIDS)
def test_linear_parents_only_move_the_lattice(scene, tmp_path, grid):
    volume = add_volume("v", GRIDS[grid])
    outer, inner = linear_parent(RIGID, "outer"), linear_parent(np.diag([1, 1, -1, 1]), "inner")
    inner.SetAndObserveTransformNodeID(outer.GetID())
    volume.SetAndObserveTransformNodeID(inner.GetID())
    image = sitk.ReadImage(exchange.export_volume(volume, tmp_path / "v.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(image), slicer.util.arrayFromVolume(volume))
    ras = np.array(RIGID) @ np.diag([1, 1, -1, 1]) @ GRIDS[grid] @ [5, 6, 7, 1]
    assert np.allclose(image.TransformIndexToPhysicalPoint((5, 6, 7)), ras[:3] * [-1, -1, 1], atol=1e-5)


def test_shear_is_resampled_not_straightened(scene, tmp_path):
    """Files cannot hold sheared axes; the body must still lie where Slicer shows it."""
    geometry = GRIDS["axial"]
    volume = add_volume("v", geometry)
    volume.SetAndObserveTransformNodeID(linear_parent(SHEAR).GetID())
    image = sitk.ReadImage(exchange.export_volume(volume, tmp_path / "v.nrrd"))
    assert mean_error_at_world_points(image, volume, np.array(SHEAR)) < 1.0


def thin_plate(
    point=(3, -4, 5), moved=(6, -6, 6), still=((-30, 0, 0), (30, 0, 0), (0, 30, 0), (0, -30, 0), (0, 0, 30))
):
    """A bend of a few millimetres, by default around the middle of the body, as a landmark registration gives it."""
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for before, after in ((point, moved), *zip(still, still, strict=True)):
        source.InsertNextPoint(before)
        target.InsertNextPoint(after)
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    return spline


def test_bent_parent_is_resampled(scene, tmp_path):
    volume = add_volume("v", GRIDS["oblique"])
    spline = thin_plate()
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    node.SetAndObserveTransformToParent(spline)
    volume.SetAndObserveTransformNodeID(node.GetID())
    image = sitk.ReadImage(exchange.export_volume(volume, tmp_path / "v.nrrd"))
    brightest = np.unravel_index(np.argmax(sitk.GetArrayFromImage(image)), image.GetSize()[::-1])
    world = np.array(image.TransformIndexToPhysicalPoint([int(i) for i in brightest[::-1]])) * [-1, -1, 1]
    assert np.linalg.norm(world - (6, -6, 6)) < 3.0  # one voxel


def test_a_volume_that_bulges_is_not_cut_off(scene, tmp_path):
    """Its corners stay where they are, and the middle of a side comes forward."""
    volume = add_volume("v", GRIDS["axial"])
    slicer.util.arrayFromVolume(volume)[:] = 100
    low, high = world_bounds(volume)
    middle = np.array([high[0], *(low + high)[1:] / 2])
    out = middle + (8, 0, 0)
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    node.SetAndObserveTransformToParent(thin_plate(middle, out, list(itertools.product(*zip(low, high, strict=True)))))
    volume.SetAndObserveTransformNodeID(node.GetID())
    image = sitk.ReadImage(exchange.export_volume(volume, tmp_path / "v.nrrd"))
    assert image.EvaluateAtPhysicalPoint(((out - (2, 0, 0)) * [-1, -1, 1]).tolist()) == pytest.approx(100)


def mean_error_at_world_points(image, volume, world_from_local):
    """Mean grey-value difference between a file and the node's image at the same places in the world."""
    moved = np.linalg.inv(world_from_local)
    errors = []
    for index in np.ndindex(*[max(n // 4, 1) for n in image.GetSize()]):
        index = [i * 4 for i in index]
        world = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        errors.append(abs(image[index] - _body((moved @ [*world, 1])[:3])))
    return float(np.mean(errors))


def _body(ras):
    geometry = np.eye(4)
    geometry[:3, 3] = ras
    return float(blobs(geometry, shape=(1, 1, 1))[0, 0, 0])


@pytest.mark.parametrize("kind", ["labels", "surface"])
def test_mask_from_segmentation_under_a_parent(scene, tmp_path, kind):
    """A segmentation drawn on the volume, then both moved: resampled on the volume's grid it is what was drawn."""
    volume, labels = add_volume("v", GRIDS["oblique"]), add_volume("labels", GRIDS["oblique"], label=True)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mask")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
    if kind == "surface":
        segmentation.CreateClosedSurfaceRepresentation()
        segmentation.GetSegmentation().RemoveRepresentation("Binary labelmap")
    expected = slicer.util.arrayFromVolume(labels)
    parent = linear_parent(RIGID).GetID()
    for node in (volume, segmentation):
        node.SetAndObserveTransformNodeID(parent)
    mask = sitk.ReadImage(exchange.export_mask(segmentation, volume, tmp_path / "m.nrrd"))
    image = sitk.ReadImage(exchange.export_volume(volume, tmp_path / "v.nrrd"))
    found = sitk.GetArrayFromImage(sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor))
    differing = np.count_nonzero(found != expected)
    assert differing == 0 if kind == "labels" else differing < 0.1 * expected.sum()
    assert mask.GetSize() == image.GetSize(), "nothing to resample, and to remark upon after the run"
    assert np.allclose(mask.GetOrigin(), image.GetOrigin()) and np.allclose(mask.GetDirection(), image.GetDirection())


@pytest.mark.parametrize(
    "shift", [(0.3, 0, 0), GRIDS["oblique"][:3, 0] * 15], ids=["between voxels", "by voxels, over the edge"]
)
def test_a_mask_that_does_not_lie_on_its_volume_is_written_as_it_is(scene, tmp_path, shift):
    """Where it is resampled, and whether it touches the volume at all, is for the run to say."""
    volume, labels = add_volume("v", GRIDS["oblique"]), add_volume("labels", GRIDS["oblique"], label=True)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mask")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    segmentation.SetAndObserveTransformNodeID(linear_parent(matrix).GetID())
    mask = sitk.ReadImage(exchange.export_mask(segmentation, volume, tmp_path / "m.nrrd"))
    assert sitk.GetArrayFromImage(mask).sum() == slicer.util.arrayFromVolume(labels).sum()
    assert np.prod(mask.GetSize()) < np.prod(slicer.util.arrayFromVolume(volume).shape)


def test_mask_from_label_map_is_binary(scene, tmp_path):
    labels = add_volume("labels", GRIDS["flipped"], label=True)
    expected = slicer.util.arrayFromVolume(labels).copy()
    slicer.util.arrayFromVolume(labels)[:] *= 7
    mask = sitk.ReadImage(exchange.export_mask(labels, labels, tmp_path / "m.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(mask), expected)


def test_initial_transform_is_fixed_to_moving_with_parents(scene, tmp_path):
    outer, inner = linear_parent(RIGID, "outer"), linear_parent(SHEAR, "inner")
    inner.SetAndObserveTransformNodeID(outer.GetID())
    fixed = add_volume("fixed", GRIDS["axial"])
    nodes = scene.GetNumberOfNodes()
    transform = sitk.ReadTransform(exchange.export_transform(inner, tmp_path / "t.h5", fixed))
    moving_from_fixed = np.linalg.inv(np.array(RIGID) @ np.array(SHEAR))
    ras = (moving_from_fixed @ [5, 6, 7, 1])[:3]
    assert np.allclose(np.array(transform.TransformPoint((-5.0, -6.0, 7.0))) * [-1, -1, 1], ras, atol=1e-6)
    assert scene.GetNumberOfNodes() == nodes


def b_spline(scale):
    """A B-spline of Slicer's kind with coefficients of some millimetres."""
    image = vtk.vtkImageData()
    image.SetDimensions(8, 8, 8)
    image.SetSpacing(20, 20, 20)
    image.SetOrigin(-70, -70, -70)
    image.AllocateScalars(vtk.VTK_DOUBLE, 3)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = scale * np.random.default_rng(0).normal(size=(512, 3))
    spline = slicer.vtkOrientedBSplineTransform()
    spline.SetCoefficientData(image)
    return spline


@pytest.mark.parametrize("kind", ["thin plate", "B-spline", "a run's own, inverted", "under a parent"])
@pytest.mark.parametrize("inverted", [False, True])
def test_an_initial_transform_of_any_kind_becomes_a_file_that_itk_reads(scene, tmp_path, kind, inverted):
    """Slicer's landmark registration gives thin plates, and a click inverts any transform: ITK has no such kinds."""
    fixed, node = add_volume("fixed", GRIDS["oblique"]), scene.AddNewNodeByClass("vtkMRMLTransformNode", "start")
    node.SetAndObserveTransformToParent(b_spline(2.0) if kind == "B-spline" else thin_plate())
    if kind.startswith("a run"):
        write_run(tmp_path, fixed, add_volume("moving", GRIDS["axial"]))
        node = load_transform(tmp_path / TRANSFORM, "run's own")
        node.Inverse()
    if kind == "under a parent":
        node.SetAndObserveTransformNodeID(linear_parent(SHEAR).GetID())
    if inverted:
        node.Inverse()
    transform = sitk.ReadTransform(exchange.export_transform(node, tmp_path / "t.h5", fixed))
    parts = sitk.CompositeTransform(transform)
    kinds = {parts.GetNthTransform(i).GetName() for i in range(parts.GetNumberOfTransforms())}
    assert kinds <= {"AffineTransform", "MatrixOffsetTransformBase", "DisplacementFieldTransform"}, kinds
    expected = vtk.vtkGeneralTransform()
    node.GetTransformFromWorld(expected)
    for index in np.ndindex(4, 4, 4):
        ras = (local_geometry(fixed) @ [*(np.array(index) * 5.5), 1])[:3]
        found = np.array(transform.TransformPoint((ras * [-1, -1, 1]).tolist())) * [-1, -1, 1]
        assert np.allclose(found, expected.TransformPoint(ras), atol=0.25)


def test_a_field_is_written_as_slicer_takes_it(scene, tmp_path):
    """Between two linear ones; turned, scaled, and not beginning at voxel 0, as VTK may have it."""
    image = vtk.vtkImageData()
    image.SetExtent(2, 11, -3, 8, 0, 12)
    image.SetSpacing(4, 3, 5)
    image.SetOrigin(-25, 5, -30)
    image.AllocateScalars(vtk.VTK_SHORT, 3)
    vectors = vtk_to_numpy(image.GetPointData().GetScalars())
    vectors[:] = np.random.default_rng(1).integers(-300, 300, vectors.shape)
    field, whole = slicer.vtkOrientedGridTransform(), vtk.vtkGeneralTransform()
    field.SetDisplacementGridData(image)
    turn = np.array(RIGID)[:3, :3]
    rigid, shear = (slicer.util.vtkMatrixFromArray(np.array(matrix)) for matrix in (RIGID, SHEAR))
    field.SetGridDirectionMatrix(slicer.util.vtkMatrixFromArray(np.block([[turn, np.zeros((3, 1))], [0, 0, 0, 1]])))
    field.SetDisplacementScale(0.01)
    field.SetDisplacementShift(0.25)
    for part in (shear, field, rigid):
        whole.Concatenate(part)
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "chain")
    node.SetAndObserveTransformFromParent(whole)
    transform = sitk.ReadTransform(exchange.export_transform(node, tmp_path / "t.h5", add_volume("v", GRIDS["axial"])))
    lattice = turn @ np.diag([4.0, 3, 5])
    moved = 0
    for index in np.random.default_rng(2).uniform((2, -3, 0), (11, 8, 12), (50, 3)):
        ras = np.linalg.inv(np.array(RIGID)) @ [*((-25, 5, -30) + lattice @ index), 1]
        found = np.array(transform.TransformPoint((ras[:3] * [-1, -1, 1]).tolist())) * [-1, -1, 1]
        assert np.allclose(found, whole.TransformPoint(ras[:3]), atol=1e-4)
        moved += np.linalg.norm((np.linalg.inv(np.array(SHEAR)) @ [*found, 1])[:3] - ((-25, 5, -30) + lattice @ index))
    assert moved > 50, "the field counts"


def test_a_transform_that_cannot_be_written_is_a_sentence(scene, tmp_path):
    volume = add_volume("v", GRIDS["axial"])
    with pytest.raises(RegistrationError, match=r'"parent" could not be written to .*; make room'):
        exchange.export_transform(linear_parent(RIGID), tmp_path / "missing" / "t.h5", volume)


def test_overlap(scene):
    fixed, moving = add_volume("f", GRIDS["axial"]), add_volume("m", GRIDS["oblique"])
    assert exchange.volumes_overlap(fixed, moving)
    far = np.eye(4)
    far[:3, 3] = (500, 0, 0)
    moving.SetAndObserveTransformNodeID(linear_parent(far).GetID())
    assert not exchange.volumes_overlap(fixed, moving)


def test_what_cannot_be_exported_is_a_sentence(scene, tmp_path):
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    with pytest.raises(RegistrationError, match='"nothing" holds no image'):
        exchange.export_volume(empty, tmp_path / "v.nrrd")
    colour = slicer.util.addVolumeFromArray(np.zeros((4, 4, 4, 3), np.uint8), None, "rgb", "vtkMRMLVectorVolumeNode")
    with pytest.raises(RegistrationError, match="3 values per voxel"):
        exchange.export_volume(colour, tmp_path / "v.nrrd")
    with pytest.raises(RegistrationError, match='"drawing" is empty'):
        exchange.export_mask(
            scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawing"),
            add_volume("v", GRIDS["axial"]),
            tmp_path / "m.nrrd",
        )
    with pytest.raises(RegistrationError, match="could not be written"):
        exchange.export_volume(add_volume("v", GRIDS["axial"]), tmp_path / "missing" / "v.nrrd")


@pytest.mark.parametrize(
    ("name", "file"),
    [("T1 pre/op", "T1_pre_op.nrrd"), ("../x", "x.nrrd"), ("頭部", "moving.nrrd"), ("", "moving.nrrd")],
)
def test_the_files_of_a_job_are_called_like_the_volumes(scene, tmp_path, name, file):
    fixed, moving = samples.addSmallPair()
    moving.SetName(name)
    job = RegistrationJob.load(write_job(Request(fixed, moving), tmp_path))
    assert Path(job.fixed).name == "Small_fixed.nrrd" and Path(job.moving) == tmp_path / "inputs" / "moving" / file
    assert Path(job.moving).is_file() and job.names == {"fixed": "Small fixed", "moving": name}
