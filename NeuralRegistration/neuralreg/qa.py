"""A traffic-light reading of a run's measurements. Standard library only: panel, report and command line share it.

The limits are adapted from AAPM TG-132 (Brock et al., Med Phys 2017): errors within the largest voxel dimension, Dice
of organs 0.8 to 0.9, no folding. They are a first look for a person who judges the images, not a certificate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GREEN, AMBER, RED = "green", "amber", "red"
DICE_GOOD, DICE_FAIR = 0.8, 0.6
# Of the linear stage. Measured (Testing/RELIABILITY.md): volumes that belong together 0.27 and more, in any contrast;
# other parts of the body up to 0.21; a head the wrong way round 0.15 to 0.30.
ALIKE = 0.25
LANDMARKS, OVERLAP = "Landmarks (TRE)", "Overlap of structures (Dice)"  # the checks that see a wrong alignment
NOTE = (
    "Adapted from AAPM TG-132. A reading aid for the person who looks at the images: it does not replace looking, and "
    "it is not a clearance for clinical use."
)


@dataclass(frozen=True)
class Check:
    """One line of the table: what was measured, its light and the rule in words."""

    name: str
    value: str
    light: str
    rule: str


def read(values: Mapping[str, Any], largest_voxel_mm: float) -> list[Check]:
    """The checks that can be made with the measurements at hand (names as in result.json and evaluation.json)."""
    makers = (_folds, _inverted_volume, _inverse_consistency, _landmarks, _dice, _alike, _similarity)
    checks = (make(values, largest_voxel_mm) for make in makers)
    return [check for check in checks if check is not None]


def worst(checks: Sequence[Check]) -> str:
    """The most serious light of a table."""
    return max((check.light for check in checks), key=(GREEN, AMBER, RED).index, default=GREEN)


def caution(checks: Sequence[Check]) -> str:
    """What a green table without evidence from outside does not say; empty for any other one."""
    if worst(checks) != GREEN or any(check.name in (LANDMARKS, OVERLAP) for check in checks):
        return ""
    return "No structures or landmarks were compared: a smooth but wrong alignment would pass, too."


def _folds(values: Mapping[str, Any], voxel: float) -> Check | None:
    percent = values.get("folds_percent")
    if percent is None:
        return None
    light = GREEN if percent == 0 else RED
    return Check("Folding (Jacobian ≤ 0)", f"{percent:.3g} % of the voxels", light, "Green: none. Red: any.")


def _inverted_volume(values: Mapping[str, Any], voxel: float) -> Check | None:
    percent = values.get("non_diffeomorphic_volume_percent")
    if percent is None:
        return None
    light = GREEN if percent == 0 else AMBER if percent <= 0.01 else RED
    rule = "Green: none. Amber: up to 0.01 %. Red: more."
    return Check("Volume turned inside out", f"{percent:.3g} % of the volume", light, rule)


def _inverse_consistency(values: Mapping[str, Any], voxel: float) -> Check | None:
    mean, largest = values.get("inverse_consistency_mean_mm"), values.get("inverse_consistency_max_mm")
    if mean is None or largest is None:
        return None
    light = GREEN if largest <= voxel else AMBER if mean <= voxel else RED
    rule = f"Green: nowhere above the largest voxel side ({voxel:.2g} mm). Amber: below it on average. Red: above."
    return Check("Forth and back again", f"mean {mean:.3f} mm, largest {largest:.2f} mm", light, rule)


def _landmarks(values: Mapping[str, Any], voxel: float) -> Check | None:
    mean = values.get("tre_mean_mm")
    if mean is None:
        return None
    limit = max(2 * voxel, 3.0)
    light = GREEN if mean <= voxel else AMBER if mean <= limit else RED
    name, value = LANDMARKS, f"mean {mean:.2f} mm, largest {values.get('tre_max_mm', mean):.2f} mm"
    rule = (
        f"Mean error. Green: within the largest voxel side ({voxel:.2g} mm). Amber: up to {limit:.2g} mm. Red: above."
    )
    guiding = values.get("landmarks_guiding", 0)
    if not guiding:
        return Check(name, value, light, rule)
    value += f" ({guiding} of {values.get('landmarks', guiding)} guided the registration)"
    rule += " Never green here: landmarks that guided the registration are near because they were used; take others."
    return Check(name, value, AMBER if light == GREEN else light, rule)


def _dice(values: Mapping[str, Any], voxel: float) -> Check | None:
    mean = values.get("dice_mean")
    if mean is None:
        return None
    light = GREEN if mean >= DICE_GOOD else AMBER if mean >= DICE_FAIR else RED
    rule = f"Mean. Green: {DICE_GOOD} and more. Amber: {DICE_FAIR} and more (usual for small structures). Red: below."
    return Check(OVERLAP, f"{mean:.3f}", light, rule)


def _alike(values: Mapping[str, Any], voxel: float) -> Check | None:
    correlation = values.get("linear_correlation")
    if correlation is None:
        return None
    light = GREEN if correlation >= ALIKE else AMBER
    rule = (
        f"Mean squared local correlation, from 0 to 1. Green: {ALIKE} and more. Amber: less, as volumes have that show "
        "different parts of the body, or that the linear stage did not bring together."
    )
    return Check("Alike after the linear stage", f"{correlation:.2f}", light, rule)


def _similarity(values: Mapping[str, Any], voxel: float) -> Check | None:
    before, after = values.get("mutual_information_before"), values.get("mutual_information_after")
    if before is None or after is None:
        return None
    light = GREEN if after > before else AMBER if after > 0.98 * before else RED
    rule = "Mutual information. Green: higher after. Amber: unchanged (down by at most 2 %). Red: lower."
    return Check("Similarity of the images", f"{before:.3f} → {after:.3f}", light, rule)
