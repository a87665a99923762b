"""A head CT painted from the label map of a brain: there is no real pair of CT and MR at hand.

Tissues have the Hounsfield units of an adult; around the brain lie 2 mm of fluid, 7 mm of bone and 5 mm of skin, then
air. Edges are as soft as a scanner's, the noise is white. What a real CT has besides is missing: beam hardening,
metal, the face, a table.
"""

from __future__ import annotations

import SimpleITK as sitk
import torch
from neuralreg.image import Grid, Image
from neuralreg.pyramid import gaussian

AIR, SKIN, BONE, FLUID, WHITE, GREY = -1000.0, 40.0, 900.0, 8.0, 28.0, 37.0
SHELLS = ((2.0, FLUID), (9.0, BONE), (14.0, SKIN))  # up to so many mm from the brain
BLUR_MM, NOISE_HU = 0.7, 10.0
# Of the label maps of brain_labelled; every other label above 0 is grey matter.
TISSUES = {
    WHITE: (35, 40, 41, 44, 45, 61, 62, 69),
    FLUID: (4, 11, 15, 46, 49, 50, 51, 52),
}


def painted_ct(labels: Image, tissues: dict[float, tuple[int, ...]], seed: int) -> Image:
    """Hounsfield units on the grid of `labels`, which needs 14 mm around the brain for a whole head."""
    names, distance = labels.data[0], _distance(labels)
    values = torch.full(names.shape, AIR)
    for reach, shade in reversed(SHELLS):
        values[distance <= reach] = shade
    values[names > 0] = GREY
    for shade, members in tissues.items():
        values[torch.isin(names.long(), torch.tensor(members))] = shade
    values = gaussian(values[None, None], [BLUR_MM / s for s in labels.grid.spacing[::-1]])[0]
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
    return Image(values + NOISE_HU * noise, labels.grid)


def _distance(labels: Image) -> torch.Tensor:  # -> (D, H, W)
    """How far each voxel is from the brain in mm, 0 in it and in its furrows."""
    brain = _picture(labels.data[0] > 0, labels.grid)
    filled = sitk.BinaryMorphologicalClosing(brain, [max(1, round(4.0 / s)) for s in labels.grid.spacing])
    outside = sitk.SignedMaurerDistanceMap(filled, squaredDistance=False, useImageSpacing=True)
    return torch.from_numpy(sitk.GetArrayFromImage(outside)).clamp(min=0.0)


def _picture(mask: torch.Tensor, grid: Grid) -> sitk.Image:
    picture = sitk.GetImageFromArray(mask.numpy().astype("uint8"))
    picture.SetSpacing(grid.spacing.tolist())
    return picture
