"""What the images of a training look like, and whether another one is like them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .pyramid import gaussian
from .weights import Manifest

BODY = 0.05  # of the intensity range: what is darker is background
FEWEST = 1000  # voxels, of which something can be said
REACH = 0.07  # of the side of a cube as large as the body: 8 mm of a brain, over which its inside is told from its rim
# How far beyond its training a model may be used without a word: T1 brains of another scanner stray twice as far as
# those of the training set, FLAIR and T2 three to four times.
VOLUME_SLACK, CONTRAST_SLACK = 0.7, 2.5
# Measured at 2 mm: depths of T1 brains 0.51 to 0.70, inverted −0.67 to −0.50; cuts of whole ones up to 0.13, of halves
# along the axes of the volume 0.76 to 1. A half that lies oblique to them looks whole (0.02 to 0.42).
DEPTH_SLACK, CUT_SLACK = 0.3, 0.3
# Of deciles: another sampling alone moves them by 0.05 (T1 brains at 2 and 4 mm) to 0.06 (phantoms).
SMALLEST_STRAY = 0.03


def appearance(image: Tensor, spacing: tuple[float, ...]) -> dict[str, Any]:
    """Volume of the body in ml; deciles of its intensities; `depth`, how they rise from its rim inwards (a
    correlation); `cut`, its cross-section at one of its ends as a share of the largest one: 1 where it ends abruptly.

    image (1, 1, D, H, W) in [0, 1], spacing x, y, z in mm.
    """
    inside, volume = image > BODY, _volume(image, spacing)
    body = image[inside].float()
    if len(body) < FEWEST:
        return {"volume": 0.0, "deciles": [0.0] * 9, "depth": 0.0, "cut": 0.0}
    some = body[:: max(1, len(body) // 100_000)].sort().values
    deciles = [round(float(some[int(len(some) * k / 10)]), 4) for k in range(1, 10)]
    reach = REACH * 10 * volume ** (1 / 3)
    depth = gaussian(inside.float(), [reach / s for s in spacing[::-1]])[inside]
    return {
        "volume": round(volume, 1),
        "deciles": deciles,
        "depth": round(float(torch.corrcoef(torch.stack((depth, body)))[0, 1].nan_to_num()), 3),
        "cut": round(max(_end(inside[0, 0].sum(axes)) for axes in ((0, 1), (0, 2), (1, 2))), 3),
    }


def _volume(image: Tensor, spacing: tuple[float, ...]) -> float:
    return float((image > BODY).count_nonzero()) * float(np.prod(spacing)) / 1000


def _end(areas: Tensor) -> float:
    """The larger one of the first and the last cross-section, but for stray voxels, as a share of the largest."""
    known = [area for area in areas.tolist() if area > 0.002 * float(areas.max())]
    return max(known[0], known[-1]) / max(known)


def domain_of(images: list[dict[str, Any]], any_contrast: bool = False) -> dict[str, Any]:
    """What many appearances have in common: the ranges of volume, cut and depth, the mean deciles and how far single
    images stray from them.

    Of a model for any contrast only the shape counts; of images too small to say anything, nothing does.
    """
    images = [image for image in images if image["volume"]]
    if not images:
        return {}
    ranges = {f"{name}s": [of(i[name] for i in images) for of in (min, max)] for name in ("volume", "cut", "depth")}
    if any_contrast:
        return {name: ranges[name] for name in ("volumes", "cuts")}
    deciles = np.array([image["deciles"] for image in images])
    mean = deciles.mean(axis=0)
    strays = np.abs(deciles - mean).max(axis=1)
    # A handful of images, or those of one scanner, are alike by chance, and everything else would look strange.
    return ranges | {"deciles": mean.round(4).tolist(), "stray": max(float(strays.max()), SMALLEST_STRAY)}


def unlike(manifest: Manifest, image: Tensor, spacing: tuple[float, ...], name: str) -> str | None:
    """A sentence when an image is not like those that the model was trained on; None when it is, or nobody knows."""
    known = manifest.domain
    if not known:
        return None
    volume, brain = _volume(image, spacing), "brain" in manifest.anatomy.lower()
    low, high = known["volumes"]
    if not VOLUME_SLACK * low <= volume <= high / VOLUME_SLACK:
        crop = "strip the skull, crop, or" if brain else "crop it, or"
        advice = crop if volume > high else "it may be a part only, or another organ:"
        return (
            f"The {name} image shows {volume:.0f} ml of tissue, but the model was trained on "
            f"{manifest.anatomy} ({manifest.contrast}) of {low:.0f} to {high:.0f} ml: {advice} use DNVF, "
            "which needs no training."
        )
    found = appearance(*averaged(image, spacing, manifest.training.get("spacing", manifest.spacing)))
    if not found["volume"]:
        return None
    if found["cut"] > max(known.get("cuts", [1.0])) + CUT_SLACK:
        return (
            f"The {name} image ends in the middle of what it shows, unlike those of the model's training "
            f"({manifest.anatomy}): it may be a part only; use DNVF, which needs no training."
        )
    if _other_contrast(known, found):
        other = "the model voxelmorph_anycontrast, or " if brain else ""
        return (
            f"The contrast of the {name} image is unlike that of the model's training ({manifest.contrast}): check the "
            f"result, or use {other}DNVF, which fits every pair by itself."
        )
    return None


def _other_contrast(known: dict[str, Any], found: dict[str, Any]) -> bool:
    """Deciles do not tell an inverted image from one that is not: there brightness falls from the rim inwards."""
    if "deciles" not in known:
        return False
    strays = np.abs(np.array(found["deciles"]) - np.array(known["deciles"])).max() > CONTRAST_SLACK * known["stray"]
    lowest, highest = known.get("depths", (-1.0, 1.0))
    return bool(strays) or not lowest - DEPTH_SLACK <= found["depth"] <= highest + DEPTH_SLACK


def averaged(image: Tensor, spacing: tuple[float, ...], seen: float) -> tuple[Tensor, tuple[float, ...]]:
    """An image as sharp as those of a training that saw `seen` mm, and its spacing: T1 brains at 1 mm differ from the
    same ones at 4 mm, where half of the voxels hold two tissues, as much as from those of another scanner."""
    factors = np.clip(np.floor(seen / np.array(spacing) + 0.3), 1, image.shape[:1:-1]).astype(int)
    return F.avg_pool3d(image, tuple(factors[::-1].tolist())), tuple(factors * np.array(spacing))
