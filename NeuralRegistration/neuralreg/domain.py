"""What the images of a training look like, and whether another one is like them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from .weights import Manifest

# How far beyond its training a model may be used without a word: T1 brains of another scanner stray twice as far as
# those of the training set, FLAIR and T2 three to four times.
VOLUME_SLACK, CONTRAST_SLACK = 0.7, 2.5
# Of deciles: another sampling alone moves them by 0.05 (T1 brains at 2 and 4 mm) to 0.06 (phantoms).
SMALLEST_STRAY = 0.03


def appearance(image: Tensor, spacing: tuple[float, ...]) -> dict[str, Any]:
    """Volume of the body in ml and deciles of its intensities; image (1, 1, D, H, W) in [0, 1], spacing in mm."""
    body = image[image > 0.05].float()
    if len(body) < 1000:
        return {"volume": 0.0, "deciles": [0.0] * 9}
    body = body[:: max(1, len(body) // 100_000)].sort().values
    deciles = [round(float(body[int(len(body) * k / 10)]), 4) for k in range(1, 10)]
    volume = float((image > 0.05).sum()) * float(np.prod(spacing)) / 1000
    return {"volume": round(volume, 1), "deciles": deciles}


def domain_of(images: list[dict[str, Any]], any_contrast: bool = False) -> dict[str, Any]:
    """What many appearances have in common: the range of volumes, the mean deciles and how far single images stray.

    Of a model for any contrast only the volumes count; of images too small to say anything, nothing does.
    """
    images = [image for image in images if image["volume"]]
    if not images:
        return {}
    volumes = [image["volume"] for image in images]
    common: dict[str, Any] = {"volumes": [min(volumes), max(volumes)]}
    if any_contrast:
        return common
    deciles = np.array([image["deciles"] for image in images])
    mean = deciles.mean(axis=0)
    strays = np.abs(deciles - mean).max(axis=1)
    # A handful of images, or those of one scanner, are alike by chance, and everything else would look strange.
    return common | {"deciles": mean.round(4).tolist(), "stray": max(float(strays.max()), SMALLEST_STRAY)}


def unlike(manifest: Manifest, image: Tensor, spacing: tuple[float, ...], name: str) -> str | None:
    """A sentence when an image is not like those that the model was trained on; None when it is, or nobody knows."""
    known = manifest.domain
    if not known:
        return None
    volume, brain = appearance(image, spacing)["volume"], "brain" in manifest.anatomy.lower()
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
    if "deciles" not in known or not found["volume"]:
        return None
    if np.abs(np.array(found["deciles"]) - np.array(known["deciles"])).max() > CONTRAST_SLACK * known["stray"]:
        other = "the model voxelmorph_anycontrast, or " if brain else ""
        return (
            f"The contrast of the {name} image is unlike that of the model's training ({manifest.contrast}): check the "
            f"result, or use {other}DNVF, which fits every pair by itself."
        )
    return None


def averaged(image: Tensor, spacing: tuple[float, ...], seen: float) -> tuple[Tensor, tuple[float, ...]]:
    """An image as sharp as those of a training that saw `seen` mm, and its spacing: T1 brains at 1 mm differ from the
    same ones at 4 mm, where half of the voxels hold two tissues, as much as from those of another scanner."""
    factors = np.clip(np.floor(seen / np.array(spacing) + 0.3), 1, image.shape[:1:-1]).astype(int)
    return F.avg_pool3d(image, tuple(factors[::-1].tolist())), tuple(factors * np.array(spacing))
