"""Segmentations of Slicer (.seg.nrrd): what is which structure travels with the voxels."""

import SimpleITK as sitk
import torch
from geometry import grid_of
from neuralreg import cli, io
from neuralreg.image import Image

NAMES = {(0, 1): "Tumour", (0, 2): "Edema", (1, 1): "Gehirn (ü)"}  # (layer, number)


def drawn(folder, layers: int):
    """A file as Slicer writes it, with every segment in a part of the grid."""
    grid = grid_of("permuted and flipped")
    labels = torch.zeros(layers, *grid.shape, dtype=torch.uint8)
    for layer, number in NAMES:
        if layer < layers:
            labels[layer, 3 * number : 3 * number + 3, 5:9, 6:10] = number
    volume = io.to_sitk(Image(labels, grid))
    volume.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    for index, ((layer, number), name) in enumerate(NAMES.items()):
        if layer < layers:
            entries = {"ID": f"S{index}", "Name": name, "Color": f"0.{index} 0.5 1", "LabelValue": str(number)}
            for key, value in {**entries, "Layer": str(layer), "Extent": "5 8 4 9 0 3"}.items():
                volume.SetMetaData(f"Segment{index}_{key}", value)
    sitk.WriteImage(volume, str(folder / "drawn.seg.nrrd"))
    io.write_image(Image(labels[:1].float(), grid), folder / "image.nii.gz")
    io.write_transform(io.from_sitk_transform(sitk.TranslationTransform(3)), folder / "nothing.tfm")


def applied(folder, labels: str, output: str = "moved.seg.nrrd") -> dict[str, str]:
    """The entries about segments in what `apply` writes."""
    paths = {name: str(folder / name) for name in ("nothing.tfm", "image.nii.gz", labels, output)}
    reference = ("--reference", paths["image.nii.gz"])
    assert cli.main(["apply", paths["nothing.tfm"], *reference, "--labels", paths[labels], "-o", paths[output]]) == 0
    moved = sitk.ReadImage(paths[output])
    return {key: moved.GetMetaData(key) for key in moved.GetMetaDataKeys() if key.startswith("Segment")}


def test_segments_keep_names_and_colours_when_they_are_moved(tmp_path):
    drawn(tmp_path, 1)
    found = applied(tmp_path, "drawn.seg.nrrd")
    x, y, z = (size - 1 for size in grid_of("permuted and flipped").size)
    assert found == {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        **{"Segment0_ID": "S0", "Segment0_Name": "Tumour", "Segment0_Color": "0.0 0.5 1", "Segment0_LabelValue": "1"},
        **{"Segment1_ID": "S1", "Segment1_Name": "Edema", "Segment1_Color": "0.1 0.5 1", "Segment1_LabelValue": "2"},
        **{
            f"Segment{n}_{key}": value
            for n in (0, 1)
            for key, value in (("Layer", "0"), ("Extent", f"0 {x} 0 {y} 0 {z}"))
        },
    }  # the old extents would cut the moved structures off
    before, after = (sitk.ReadImage(str(tmp_path / name)) for name in ("drawn.seg.nrrd", "moved.seg.nrrd"))
    assert (sitk.GetArrayFromImage(before) == sitk.GetArrayFromImage(after)).all()


def test_one_layer_of_overlapping_segments_has_its_own_names(tmp_path):
    drawn(tmp_path, 2)
    of_layer = {
        layer: {value for key, value in applied(tmp_path, f"drawn.seg.nrrd@{layer}").items() if key.endswith("_Name")}
        for layer in (0, 1)
    }
    assert of_layer == {0: {"Tumour", "Edema"}, 1: {"Gehirn (ü)"}}


def test_other_files_have_no_room_for_names(tmp_path):
    drawn(tmp_path, 1)
    assert applied(tmp_path, "drawn.seg.nrrd", "moved.nii.gz") == {}
    assert applied(tmp_path, "image.nii.gz") == {}
