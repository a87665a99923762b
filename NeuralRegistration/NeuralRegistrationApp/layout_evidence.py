"""The widgets for further evidence on a result."""

from __future__ import annotations

from collections.abc import Callable

from trame.widgets import html
from trame.widgets import vuetify3 as v3

from .layout_request import fold, optional
from .page_evidence import POINTS, STRUCTURES

STRUCTURES_TIP = "Label maps with the same numbers for the same structures: their overlap (Dice) after the registration"
POINTS_TIP = "Pairs of points, the same labels or the same order: how far partners are apart afterwards (TRE)"
LABELS = ("Fixed structures", "Moving structures", "Fixed landmarks", "Moving landmarks")


def evidence(measure: Callable) -> None:
    """Structures and landmarks to judge the shown run by, and the button that does."""
    kinds = (
        ("label_maps", STRUCTURES_TIP),
        ("label_maps", STRUCTURES_TIP),
        ("points", POINTS_TIP),
        ("points", POINTS_TIP),
    )
    with fold("evidence", "Add evidence (Dice, TRE)"):
        html.Div("Structures or landmarks drawn on both volumes; load them above",
                 classes="text-caption text-disabled")  # fmt: skip
        for name, label, (items, tip) in zip((*STRUCTURES, *POINTS), LABELS, kinds, strict=True):
            optional(name, label, items, tip, "None")
        ready = f"({' && '.join(STRUCTURES)}) || ({' && '.join(POINTS)})"
        v3.VBtn("Measure", id="measure", block=True, variant="tonal", size="small", classes="text-none mt-2",
                loading=("measuring",), disabled=(f"measuring || !({ready})",),
                click=(measure, f"[{{ {', '.join((*STRUCTURES, *POINTS))} }}]"))  # fmt: skip
