"""Data to try the module with: Slicer's pair of brain tumour MRIs in one click, and a small synthetic pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

THUMBNAIL = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "BrainPair.png"
SERVER = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
BRAIN_PAIR = {
    "MRBrainTumor1": "998cb522173839c78657f4bc0ea907cea09fd04e44601f17c82ea27927937b95",
    "MRBrainTumor2": "1a64f3f422eb3d1c9b093d1a18da354b13bcf307907c66317e2463ee530b7a97",
}
SMALL = (28, 32, 30)  # (D, H, W) of the synthetic pair
SPACING_MM = 3.0


def registerSampleData() -> None:
    """Offer the pair in the Sample Data module; nothing is downloaded before the user clicks on it."""
    import SampleData

    category = "Neural Registration"
    if hasattr(SampleData.SampleDataLogic, "registerCustomSampleDataCategory"):  # since Slicer 5.12
        SampleData.SampleDataLogic.registerCustomSampleDataCategory(category, title=_("Neural Registration"))
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=category,
        sampleName="Neural registration: brain pair",
        thumbnailFileName=str(THUMBNAIL),
        uris=[SERVER + checksum for checksum in BRAIN_PAIR.values()],
        fileNames=[f"{name}.nrrd" for name in BRAIN_PAIR],
        checksums=[f"SHA256:{checksum}" for checksum in BRAIN_PAIR.values()],
        nodeNames=list(BRAIN_PAIR),
    )


def addSmallPair():
    """A body with a few structures, and the same body bent by some millimetres, as two volume nodes."""
    geometry = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    geometry[:3, 3] = -geometry[:3, :3] @ (np.array(SMALL[::-1]) - 1) / 2
    return tuple(
        slicer.util.addVolumeFromArray(_body(geometry, bend), geometry, name)
        for name, bend in (("Small fixed", 0.0), ("Small moving", 5.0))
    )


def _body(geometry: np.ndarray, bend: float) -> np.ndarray:
    """Grey values (D, H, W) of an ellipsoid with structures, displaced by up to `bend` mm in its middle."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SMALL[::-1]], indexing="ij"), axis=-1)
    ras = index @ geometry[:3, :3].T + geometry[:3, 3]
    weight = np.exp(-(ras**2).sum(axis=-1, keepdims=True) / (2 * 18.0**2))
    x, y, z = np.moveaxis(ras + bend * weight * np.array([1.0, -0.7, 0.5]), -1, 0)
    inside = 1 / (1 + np.exp(((x / 34) ** 2 + (y / 38) ** 2 + (z / 32) ** 2 - 1) * 12))
    structures = 0.5 * np.exp(-((x - 12) ** 2 + y**2 + z**2) / 90) + 0.5 * np.exp(-((x + 12) ** 2 + y**2 + z**2) / 90)
    folds = 0.2 * np.sin(x / 4) * np.sin(y / 5) * np.cos(z / 4)
    return np.ascontiguousarray((inside * (100 + 60 * structures + 60 * folds)).T).astype(np.float32)
