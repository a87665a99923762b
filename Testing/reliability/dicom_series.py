"""DICOM series of many scanners as `neuralreg` reads them, against the volumes that dcm2niix makes of them.

    python Testing/reliability/dicom_series.py --data FOLDER [--volumes 40]

FOLDER holds clones of github.com/neurolabusc/dcm_qa and its neighbours (dcm_qa_xa30, dcm_qa_enh, …): pictures of
scanners in In/, and in Ref/ what dcm2niix, the converter of neuroimaging, made of them. Every folder with DICOM files
is read, up to so many of its volumes, and compared with the reference of the same size that is most like it. Printed
are the volumes that differ (a correlation of the values below 0.9999, or corners more than 0.02 mm away), each sentence
with which a folder was refused, and the counts. References that are not there (some are large) are counted as such.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import numpy as np
import SimpleITK as sitk
from neuralreg import dicom
from neuralreg.io.volumes import load_volume
from neuralreg.job import RegistrationError

ALIKE, APART_MM = 0.9999, 0.02
RELATED = 0.97  # less, and the reference is of another picture of the same head


def references(folder: Path) -> dict[str, sitk.Image]:
    """Every volume in the NIfTI files of a folder, its axes along L, P and S."""
    found = {}
    for path in sorted(folder.glob("*.nii*")):
        image = sitk.ReadImage(str(path))
        if image.GetNumberOfComponentsPerPixel() > 1:
            continue
        several = image.GetDimension() > 3
        volumes = [image[:, :, :, k] for k in range(image.GetSize()[3])] if several else [image]
        found |= {f"{path.name}@{k}": sitk.DICOMOrient(volume, "LPS") for k, volume in enumerate(volumes)}
    return found


def difference(volume: sitk.Image, reference: sitk.Image) -> tuple[float, float]:
    """Correlation of the values, and the mm between the same corners."""
    values = [sitk.GetArrayViewFromImage(image).ravel()[::7].astype(float) for image in (volume, reference)]
    alike = np.corrcoef(*values)[0, 1] if min(np.ptp(v) for v in values) > 0 else 0.0
    corners = [(0, 0, 0), tuple(n - 1 for n in volume.GetSize())]
    places = [[image.TransformIndexToPhysicalPoint(c) for c in corners] for image in (volume, reference)]
    return float(alike), float(np.abs(np.subtract(*places)).max())


def compare(name: str, known: dict[str, sitk.Image]) -> str:
    """What came out for a volume: "the same", "without a reference", or what is different."""
    volume = sitk.DICOMOrient(load_volume(name, lambda _: None), "LPS")
    of_its_size = {key: image for key, image in known.items() if image.GetSize() == volume.GetSize()}
    found = {key: difference(volume, image) for key, image in of_its_size.items()}
    best = max(found, key=lambda key: found[key][0], default=None)
    if best is None or found[best][0] < RELATED:
        return "without a reference"
    alike, apart = found[best]
    return "the same" if alike > ALIKE and apart < APART_MM else f"differs from {best}: {alike:.5f}, {apart:.3f} mm"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--volumes", type=int, default=40, help="of one folder, at most")
    options = parser.parse_args()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    counts: Counter[str] = Counter()
    for repository in sorted(options.data.glob("*/In")):
        known = references(repository.parent / "Ref")
        for folder in sorted({path.parent for path in repository.rglob("*") if path.is_file()}):
            try:
                stacks = dicom.stacks(folder)
            except RegistrationError:  # no images in it
                continue
            counts["folders"] += 1
            try:
                names = [f"{folder}@{k}" for k in range(len(stacks))] if len(stacks) > 1 else [str(folder)]
                for name in names[: options.volumes]:
                    outcome = compare(name, known)
                    counts[outcome.split(":")[0].split(" from")[0]] += 1
                    if outcome.startswith("differs"):
                        print(f"{name} {outcome}")
            except RegistrationError as error:
                counts["refused"] += 1
                print(error)
    print(", ".join(f"{what}: {count}" for what, count in counts.items()))


if __name__ == "__main__":
    main()
