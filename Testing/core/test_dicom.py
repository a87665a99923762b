"""Volumes out of DICOM images, against the volume they were written from: slice by slice (by ITK) or as the frames of
one file (by pydicom), in any order and orientation."""

import dataclasses
import resource
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from geometry import DIRECTIONS, grid_of, image_on
from neuralreg import dicom, io
from neuralreg.job import RegistrationError
from neuralreg.report import pictures
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from refusals import fails

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def volume_on(kind: str, seed: int = 0) -> sitk.Image:
    return sitk.Cast(io.to_sitk(image_on(grid_of(kind), seed)), sitk.sitkInt16)


def assert_same(read: Path | str, volume: sitk.Image) -> None:
    """The same values at the same places: DICOM knows no left-handed axes, so both are stored alike first."""
    found, expected = sitk.DICOMOrient(io.to_sitk(io.read_image(read)), "LPS"), sitk.DICOMOrient(volume, "LPS")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
    for of in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(found, of)(), getattr(expected, of)(), atol=1e-4)
    shown = sitk.DICOMOrient(pictures.read_volume(str(read)), "LPS")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(shown), sitk.GetArrayFromImage(expected))


def axes_of(volume: sitk.Image) -> list[float]:
    directions = np.array(volume.GetDirection()).reshape(3, 3)
    return [round(float(x), 9) for x in directions[:, :2].T.ravel()]


# Slices in files of their own -----------------------------------------------------------------------------------------


def write_slices(folder: Path, volume: sitk.Image, series: int = 1, skip: int | None = None, **changes) -> None:
    """`first` numbers the images; `tilt` shifts each by so many mm; tags that are None are left out."""
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    folder.mkdir(exist_ok=True)
    first, tilt = changes.pop("first", 0), changes.pop("tilt", 0.0)
    for k in range(volume.GetDepth()):
        if k == skip:
            continue
        piece = volume[:, :, k]
        x, y, z = volume.TransformIndexToPhysicalPoint((0, 0, k))
        tags = {
            "0008|0060": "CT",
            "0020|000d": "1.2.3.4",
            "0020|000e": f"1.2.3.4.{series}",
            "0020|0032": "\\".join(f"{v:.6f}" for v in (x, y + tilt * k, z)),
            "0020|0037": "\\".join(map(str, axes_of(volume))),
            "0020|0013": str(first + k),
        } | {f"{tag[1:5]}|{tag[6:]}": value for tag, value in changes.items()}
        for tag, value in tags.items():
            if value is not None:
                piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}_{first + k}.dcm"))
        writer.Execute(piece)


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_folder_of_slices(tmp_path, kind):
    volume = volume_on(kind)
    write_slices(tmp_path / "one", volume)
    assert_same(tmp_path / "one", volume)
    fails(f"{tmp_path / 'one'}@1", "one volume only", "leave out the @1")
    fails(tmp_path / "one" / "1_3.dcm", "give the folder with all slices")


def test_two_series(tmp_path):
    volumes = [volume_on("LPS", seed) for seed in range(2)]
    write_slices(tmp_path, volumes[0], 1)
    write_slices(tmp_path, volumes[1][:, :, :9], 2)
    fails(tmp_path, "2 volumes", "@0: 10 slices, @1: 9 slices", f"{tmp_path.name}@1")
    assert_same(f"{tmp_path}@0", volumes[0])
    assert_same(f"{tmp_path}@1", volumes[1][:, :, :9])


def test_time_points_of_a_series(tmp_path):
    """ITK would take all slices at one place for neighbours."""
    volumes = [volume_on("oblique, left-handed", seed) for seed in range(3)]
    for time, volume in enumerate(volumes):
        write_slices(tmp_path, volume, first=100 * time)
    fails(tmp_path, "3 volumes of 10 slices each", f"{tmp_path.name}@2")
    for time, volume in enumerate(volumes):
        assert_same(f"{tmp_path}@{time}", volume)


def test_rescaled_slices(tmp_path):
    """As PET and Philips' MR have them: ITK makes eight bytes of every two in the file."""
    volume = sitk.Cast(io.to_sitk(image_on(grid_of("LPS", (64, 64, 9)))), sitk.sitkInt16)
    write_slices(tmp_path, volume)
    for path in tmp_path.iterdir():
        file = pydicom.dcmread(path)
        file.RescaleSlope, file.RescaleIntercept = 0.25, -3
        file.save_as(path)
    assert_same(tmp_path, sitk.Cast(volume, sitk.sitkFloat64) * 0.25 - 3)


def test_slices_that_make_no_volume(tmp_path):
    volume = volume_on("LPS")
    write_slices(tmp_path / "missing", volume, skip=4)
    fails(tmp_path / "missing", "not evenly spaced")
    write_slices(tmp_path / "tilted", volume, tilt=0.3)
    fails(tmp_path / "tilted", "tilted gantry", "DICOM converter")
    write_slices(tmp_path / "nowhere", volume, t0020_0032=None)
    fails(tmp_path / "nowhere", "do not say where they lie")
    write_slices(tmp_path / "mosaic", volume, t0008_0008="ORIGINAL\\PRIMARY\\M\\MOSAIC")
    fails(tmp_path / "mosaic", "side by side in one picture", "dcm2niix")
    write_slices(tmp_path / "localizer", volume)
    write_slices(tmp_path / "localizer", volume, first=100, t0020_0037="0\\1\\0\\0\\0\\-1", tilt=1.0)
    fails(tmp_path / "localizer", "different directions")


# Frames of one file ---------------------------------------------------------------------------------------------------


def write_frames(path: Path, volumes: list[sitk.Image], order=None, implicit=False, **changes) -> Path:
    """One enhanced MR file with the slices of all volumes, one after the other or in the given order."""
    first = volumes[0]
    slices = [(v, k) for v in volumes for k in range(v.GetDepth())]
    slices = [slices[i] for i in (order if order is not None else range(len(slices)))]
    pixels = np.stack([sitk.GetArrayViewFromImage(v)[k] for v, k in slices])
    file = Dataset()
    file.SOPClassUID, file.SOPInstanceUID = ENHANCED_MR, generate_uid()
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), changes.get("series") or generate_uid()
    file.Modality, file.InstanceNumber = "MR", changes.get("number", 1)
    file.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    file.NumberOfFrames, file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [first.GetSpacing()[1], first.GetSpacing()[0]]
    measures.SliceThickness = first.GetSpacing()[2]
    orientation.ImageOrientationPatient = axes_of(first)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    file.SharedFunctionalGroupsSequence = [shared]
    file.PerFrameFunctionalGroupsSequence = [frame(v.TransformIndexToPhysicalPoint((0, 0, k))) for v, k in slices]
    if not changes.get("placed", True):
        del file.PerFrameFunctionalGroupsSequence
    file.PixelData = pixels.astype("<i2").tobytes()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    pydicom.dcmwrite(path, file, enforce_file_format=True)
    return path


def frame(position: tuple[float, ...]) -> Dataset:
    """Where a frame lies, and a private copy a little beside it, as Philips' scanners write."""
    group, place, private = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [round(x, 6) for x in position]
    group.PlanePositionSequence = [place]
    private.InstanceNumber = 1
    private.ImagePositionPatient = [round(x - 2, 6) for x in position]
    group.private_block(0x2005, "A maker's own", create=True).add_new(0x0F, "SQ", [private])
    return group


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("kind", DIRECTIONS)
def test_file_of_frames(tmp_path, kind, implicit):
    """Alone in a folder, as scanners of today store a volume, too: ITK's reader of series takes no such file."""
    volume = volume_on(kind)
    order = np.random.default_rng(0).permutation(volume.GetDepth())
    path = write_frames(tmp_path / "frames.dcm", [volume], order, implicit)
    assert_same(path, volume)
    assert_same(tmp_path, volume)


@pytest.mark.parametrize("mixed", [False, True])
def test_several_volumes_in_a_file(tmp_path, mixed):
    """ITK makes one tall volume of them."""
    volumes = [volume_on("permuted and flipped", seed) for seed in range(2)]
    count = volumes[0].GetDepth()
    order = np.arange(2 * count).reshape(2, count).T.ravel() if mixed else None
    path = write_frames(tmp_path / "two.dcm", volumes, order)
    fails(path, f"2 volumes of {count} slices each", "two.dcm@0 to", "two.dcm@1.")
    for number, volume in enumerate(volumes):
        assert_same(f"{path}@{number}", volume)


def test_files_of_frames_of_a_series(tmp_path):
    """One volume a file: time points, by their number, not by the names of the files."""
    volumes, series = [volume_on("RAS", seed) for seed in range(3)], generate_uid()
    for name, number in zip("cab", range(3), strict=True):
        write_frames(tmp_path / f"{name}.dcm", [volumes[number]], number=number, series=series)
    fails(tmp_path, "3 volumes of 10 slices each")
    for number, volume in enumerate(volumes):
        assert_same(f"{tmp_path}@{number}", volume)


def test_files_of_one_frame_each(tmp_path):
    volume, series = volume_on("oblique, left-handed"), generate_uid()
    for k in range(volume.GetDepth()):
        write_frames(tmp_path / f"{9 - k}.dcm", [volume], [k], number=k, series=series)
    assert_same(tmp_path, volume)


def test_frames_that_make_no_volume(tmp_path):
    volume = volume_on("LPS")
    fails(write_frames(tmp_path / "nowhere.dcm", [volume], placed=False), "do not say where they lie")
    missing = [k for k in range(volume.GetDepth()) if k != 4]
    fails(write_frames(tmp_path / "missing.dcm", [volume], missing), "not evenly spaced")
    whole = write_frames(tmp_path / "whole.dcm", [volume]).read_bytes()
    for share in (0.05, 0.3, 0.6, 0.95):
        (tmp_path / "cut.dcm").write_bytes(whole[: int(share * len(whole))])
        fails(tmp_path / "cut.dcm", "cut.dcm")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_file_that_lacks_its_last_voxels(tmp_path, syntax):
    """Which is longer than its voxels, because of what stands before them. ITK until 2025 fills up such files."""
    path = write_frames(tmp_path / "whole.dcm", [volume_on("LPS")])
    file = pydicom.dcmread(path)
    file.file_meta.TransferSyntaxUID = syntax
    file.save_as(path)
    whole, (one, *_) = path.read_bytes(), dicom.stacks(path)[0]
    dicom._check_complete(one)
    (tmp_path / "cut.dcm").write_bytes(whole[:-2])
    assert len(whole) - 2 > one.promised
    with pytest.raises(RegistrationError, match="incomplete or damaged"):
        dicom._check_complete(dataclasses.replace(one, file=str(tmp_path / "cut.dcm")))


def test_a_picture_with_a_palette_is_not_called_damaged(tmp_path):
    """ITK shows three values for each of the indices that the file holds."""
    path = write_frames(tmp_path / "palette.dcm", [volume_on("LPS")], [0])
    file = pydicom.dcmread(path)
    file.PhotometricInterpretation, file.SamplesPerPixel = "PALETTE COLOR", 1
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.Rows = file.Columns = 100
    file.PixelData = bytes(100 * 100)
    for colour in ("Red", "Green", "Blue"):
        file.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        setattr(file, f"{colour}PaletteColorLookupTableData", np.arange(256, dtype="<u2").tobytes())
    file.save_as(path)
    fails(path, "3 values per voxel")


@pytest.mark.parametrize("rows, frames", [(60000, 1), (60000, 10), (12, 100000)])
def test_headers_that_promise_too_much(tmp_path, rows, frames):
    """One slice of 60000 × 60000 would take 7 GB."""
    path = write_frames(tmp_path / "lying.dcm", [volume_on("LPS")])
    file = pydicom.dcmread(path)
    file.Rows, file.Columns, file.NumberOfFrames = rows, rows, frames
    file.save_as(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fails(path, "lying.dcm", "incomplete or damaged" if rows == 60000 else "")
    file.Rows = file.Columns = 65535
    file.NumberOfFrames, file.SamplesPerPixel = 2**31 - 1, 3  # more bytes than 64 bits can count
    file.save_as(path)
    fails(path, "lying.dcm")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
