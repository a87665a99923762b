"""The widgets of the page: a panel on the left, Slicer's four views beside it, or below it on a narrow screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neuralreg import qa
from NeuralRegistrationLib.colours import FOLDING, GROWING, HIGHEST, KEEPING, SHRINKING
from NeuralRegistrationLib.theme import DARK
from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets import vuetify3 as v3

from .layout_evidence import evidence
from .layout_request import BUSY, NARROW, inputs, method
from .page_request import SENT
from .page_run import HEIGHT, WIDTH

STYLE = """
#page { display: flex; height: 100vh; }
#panel { flex: 0 0 380px; overflow-y: auto; }
#panel .v-selection-control .v-label { font-size: 0.875rem; }
#windows { position: sticky; top: -12px; z-index: 2; }
#views { flex: 1; min-width: 0; }
@media (max-width: 800px) {
  #page { flex-direction: column; height: auto; }
  #panel { flex: none; }
  #views { flex: none; height: min(100vw, 100vh); }
}"""
LIGHTS = f"({ {light: DARK[light] for light in (qa.GREEN, qa.AMBER, qa.RED)} })"
KINDS = f"({ {qa.GREEN: 'success', qa.AMBER: 'warning', qa.RED: 'error'} })"  # each with a sign of its own, too
CURVE = f"""<svg viewBox="0 -3 {WIDTH} {HEIGHT + 6}" preserveAspectRatio="none"
  style="display: block; width: 100%; height: 60px; border-bottom: 1px solid #777">
  <polyline v-for="(points, index) in curve" :key="index" :points="points" fill="none" stroke="{DARK["curve"]}"
    vector-effect="non-scaling-stroke" stroke-width="1.5" /></svg>"""
SHARED = "{{ windows }} windows show this page. They share everything, and the views fit the one that changed last."
# A window says how large its views are when that changes: a pixel's change, so that whoever is left says it again.
TELL_SIZE = "`padding-right: ${windows % 2}px`"
FIRST = "Load the volume that stays and the one that is brought to it, press Register, then look and check. Research \
software, not a medical device: check every result."
GRID_COLOURS = "Lines: green moves 2 mm, yellow 5, red 10 and more"  # Slicer's own scale
# A choice waits in the browser while a call is under way, and a click does not: it brings along what is chosen.
CHOSEN = f"[{{ {', '.join(SENT)} }}]"
DOWNLOADS = (
    ("transform", "Transform", "Fixed → moving, ITK (.h5)"),
    ("warped", "Warped volume", "The moving volume on the fixed grid (.nii.gz)"),
    ("report", "Report", "One page with pictures and numbers (.html)"),
    ("scene", "Scene", "Everything, opens in 3D Slicer (.mrb)"),
)


def build(server: Any, actions: dict[str, Callable], add_views: Callable[[Any], None]) -> None:
    """Draw the page. `add_views` puts the views into the layout it is given."""
    with VAppLayout(server) as layout:
        layout.root.theme = "dark"
        client.Style(STYLE)
        with html.Div(id="page"):
            with html.Div(id="panel", classes="bg-surface pa-3"):
                html.Div("Neural Registration", classes="text-h6 mb-2")
                html.Div(
                    SHARED, v_if=("windows > 1",), id="windows", classes="bg-surface text-caption text-warning py-2"
                )
                html.Div(FIRST, v_if=("!volumes.length",), id="first", classes="text-body-2 mb-3")
                inputs(actions["path"])
                method(actions)
                _run(actions)
                _look()
                _trust(actions)
            with html.Div(id="views", style=(TELL_SIZE,)):
                add_views(layout)


def _heading(text: str, condition: str) -> None:
    html.Div(text, v_if=(condition,), classes="text-subtitle-2 text-medium-emphasis mt-4 mb-1")


def _run(actions: dict[str, Callable]) -> None:
    v3.VBtn("Register", id="register", block=True, color=(f"problem || {BUSY} ? undefined : 'primary'",),
            classes="mt-3", v_if=("!running",), disabled=(f"!!problem || !!{BUSY}",),
            click=(actions["register"], CHOSEN))  # fmt: skip
    html.Div("{{ problem }}", v_if=("problem && !running && volumes.length",), id="problem",
             classes="text-caption text-medium-emphasis mt-1")  # fmt: skip
    with html.Div(v_if=("running",), classes="mt-3"):
        with html.Div(classes="d-flex", style="gap: 8px"):
            wide = {"variant": "tonal", "classes": "flex-grow-1"}
            v3.VBtn(
                "Cancel", id="cancel", title="End the run; everything stays as it is", click=actions["cancel"], **wide
            )
            v3.VBtn("Stop and keep", id="stop", title="End now; the best deformation so far becomes the result",
                    click=actions["stop"], disabled=("stopping",), **wide)  # fmt: skip
        v3.VProgressLinear(model_value=("percent",), id="progress", height=8, color="primary", rounded=True,
                           classes="mt-3")  # fmt: skip
        with html.Div(classes="d-flex justify-space-between text-caption mt-1"):
            html.Span("{{ stage }}", id="stage")
            html.Span("{{ left }}")
        v3.VCheckbox(label="Live preview", v_model=("live_preview",), density="compact", hide_details=True)
    v3.VAlert("{{ message }}", v_if=("message",), id="message", type=("message_kind",), variant="tonal",
              density="compact", classes="mt-3 text-body-2")  # fmt: skip
    # Above all else about a result, where it is seen without scrolling.
    v3.VAlert("{{ verdict }}", v_if=("checks.length && !running",), id="verdict", type=(f"{KINDS}[light]",),
              variant="tonal", density="compact", classes="mt-3 text-body-2")  # fmt: skip
    with html.Div(v_if=("curve.length",), id="curve", classes="mt-2"):
        html.Div(CURVE)
        html.Div("Difference of the volumes, lower is better", classes="text-caption text-disabled text-right")


def _look() -> None:
    _heading("Look", "runs.length && !running")
    with html.Div(v_if=("runs.length && !running",), id="look"):
        v3.VSelect(id="run", items=("runs",), v_model=("run",), v_if=("runs.length > 1",), classes="mb-2", **NARROW)
        with v3.VBtnToggle(v_model=("layer",), mandatory=True, divided=True, density="compact", variant="outlined",
                           classes="d-flex"):  # fmt: skip
            v3.VBtn("{{ one.title }}", v_for="one in layers", key="one.value", value=("one.value",),
                    id=("`layer-${one.value}`",), title=("one.tip",), size="small",
                    classes="flex-grow-1 text-none px-2")  # fmt: skip
        with html.Div(classes="d-flex align-center text-caption mt-2", style="gap: 8px"):
            html.Span("Fixed")
            v3.VSlider(v_model=("blend",), id="blend", min=0, max=1, step=0.01, hide_details=True, density="compact",
                       disabled=("layer === 'checkerboard'",))  # fmt: skip
            html.Span("{{ layer === 'before' ? 'Moving' : layer === 'jacobian' ? 'Jacobian' : 'Warped' }}")
        _colour_bar()
        v3.VSwitch(label="Deformation grid", v_model=("grid",), id="grid", density="compact", color="primary",
                   hide_details=True, classes="ms-2")  # fmt: skip
        html.Div(GRID_COLOURS, v_if=("grid",), classes="text-caption")


def _colour_bar() -> None:
    """What the colours of the Jacobian map mean; it is the same for every run."""
    colours = ", ".join(map(_css, (SHRINKING, KEEPING, GROWING)))
    with html.Div(v_if=("layer === 'jacobian'",), id="colours", classes="text-caption mt-1"):
        html.Div("Times larger in the moving volume; 0 or less: folded")
        with html.Div(classes="d-flex", style="gap: 8px"):
            for flex, background, values in (
                ("0 0 24px", _css(FOLDING), ("≤ 0",)),
                ("1", f"linear-gradient(to right, {colours})", ("0", "0.5", "1", "1.5", f"≥ {HIGHEST:g}")),
            ):
                with html.Div(style=f"flex: {flex}"):
                    html.Div(style=f"height: 12px; background: {background}")
                    with html.Div(classes="d-flex justify-space-between"):
                        for value in values:
                            html.Span(value)


def _css(colour: tuple[float, float, float]) -> str:
    return "rgb({})".format(", ".join(f"{100 * part:.0f}%" for part in colour))


def _trust(actions: dict[str, Callable]) -> None:
    _heading("Trust", "checks.length && !running")
    with html.Div(v_if=("checks.length && !running",), id="trust"):
        html.Div("{{ notes }}", v_if=("notes",), id="notes", classes="text-caption text-warning mb-1")
        with v3.VTable(density="compact", classes="bg-transparent", id="checks"), html.Tbody():  # noqa: SIM117
            with html.Tr(v_for="one in checks", key="one.name", title=("one.rule",)):
                with html.Td(classes="px-0"):
                    v3.VIcon("mdi-circle", size="x-small", color=(f"{LIGHTS}[one.light]",), v_if=("one.light",))
                html.Td("{{ one.name }}", classes="px-1 text-caption")
                html.Td("{{ one.value }}", classes="px-1 text-caption text-right", style="text-wrap: balance")
        html.Div(qa.NOTE, classes="text-caption text-disabled mt-1")
        evidence(actions["measure"])
        html.Div("Download", classes="text-subtitle-2 text-medium-emphasis mt-4 mb-1")
        with v3.VRow(dense=True):
            for what, title, tip in DOWNLOADS:
                with v3.VCol(cols=6):
                    # Without the attribute `download` the browser would take the page for left, and cut its connection.
                    v3.VBtn(title, id=f"download-{what}", href=f"download/{what}", title=tip, block=True, size="small",
                            variant="tonal", prepend_icon="mdi-download", classes="text-none",
                            raw_attrs=["download"])  # fmt: skip
