"""The widgets that say what to register, and how."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

from trame.widgets import html
from trame.widgets import vuetify3 as v3

NARROW = {"density": "compact", "hide_details": True, "variant": "outlined"}
WHILE_IDLE = {"disabled": ("running",)}
BUSY = "(uploading || reading)"  # what the browser sends, then what the server does with it
NOT_THE_PAIR = "volumes.filter((one) => one.value !== fixed && one.value !== moving)"
MASK_TIP = "Where this volume counts: a label map, every value above 0 is inside"
POINTS_TIP = "Pairs of points that pull the registration: same labels in both lists, or the same order"
START_TIP = (
    "Where to start: a transform from fixed to moving, such as that of an earlier run; the linear stage goes on from it"
)
#: state, label, what it may be, tip, what it is without a choice
OPTIONAL = (
    ("fixed_mask", "Fixed mask", NOT_THE_PAIR, MASK_TIP, "Whole volume"),
    ("moving_mask", "Moving mask", NOT_THE_PAIR, MASK_TIP, "Whole volume"),
    ("fixed_points", "Fixed landmarks", "points", POINTS_TIP, "None"),
    ("moving_points", "Moving landmarks", "points", POINTS_TIP, "None"),
    ("initial_transform", "Initial transform", "transforms", START_TIP, "None"),
)
METHOD = (
    ("method", "Method", "How the deformation is found; the line below says what the method is for"),
    ("preset", "Preset", "Speed against accuracy"),
)
CHOICES = (
    ("contrast", "Contrast", "Whether both volumes show tissues in the same brightness"),
    (
        "linear",
        "Linear stage",
        "What happens before the deformation: position, rotation, and for affine scale and shear",
    ),
    ("device", "Device", "What computes; a GPU is taken by itself where there is one"),
)
SEED_TIP = "Same seed, same computer: the same result to the last byte"


def inputs(open_path: Callable) -> None:
    html.Input(
        type="file", multiple=True, id="files", style="display: none",
        change="utils.neuralreg.upload($event.target.files); $event.target.value = ''",
    )  # fmt: skip
    v3.VBtn(
        "Load files", id="load", block=True, variant="tonal", prepend_icon="mdi-folder-open-outline",
        click="window.document.getElementById('files').click()", loading=(f"!!{BUSY}",), disabled=("running",),
        title="Volumes: NIfTI, NRRD, MHA, or all slices of a DICOM series. Masks: label maps. Landmarks: "
              "CSV (x, y, z in LPS mm), FCSV, MRK.JSON. Transforms: H5, TFM, MAT (ITK)",
    )  # fmt: skip
    html.Div(f"{{{{ {BUSY} }}}}", v_if=(BUSY,), classes="text-caption mt-1", id="reading")
    html.Div("NIfTI, NRRD, MHA, DICOM; masks, landmarks too", classes="text-caption text-disabled mt-1",
             v_else=True)  # fmt: skip
    v3.VTextField(label="or a path on this computer", id="path", v_if=("paths",), v_model=("path",),
                  title="A file, a DICOM folder or the output folder of an earlier run; then Enter",
                  change=(open_path, "[$event.target.value]"), classes="mt-1",
                  **NARROW, disabled=(f"running || !!{BUSY}",))  # fmt: skip
    for role, tip in (("fixed", "The volume that stays"), ("moving", "The volume that is brought to the fixed one")):
        with html.Div(title=tip, classes="mt-2"):
            v3.VSelect(label=f"{role.capitalize()} volume", id=role, items=("volumes",), v_model=(role,),
                       no_data_text="Nothing is loaded yet", **NARROW, **WHILE_IDLE)  # fmt: skip
    v3.VCheckbox(label="Centre the moving volume on the fixed one first", v_model=("centre",), id="centre",
                 v_if=("apart",), density="compact", hide_details=True, **WHILE_IDLE)  # fmt: skip
    with fold("optional", "Masks, landmarks, initial transform (optional)"):
        for chosen in OPTIONAL:
            optional(*chosen)
        html.Div("{{ landmark_note }}", v_if=("landmark_note",), id="landmark-note",
                 classes=("['text-caption', 'mt-1', landmark_warning ? 'text-warning' : 'text-info']",))  # fmt: skip


def optional(name: str, label: str, items: str, tip: str, nothing: str) -> None:
    """A list from which nothing may be chosen, too; `nothing` says what that means."""
    with html.Div(title=tip, classes="mt-2"):
        v3.VSelect(label=label, id=name, items=(items,), v_model=(name,), clearable=True, placeholder=nothing,
                   persistent_placeholder=True, no_data_text="Nothing of this kind is loaded", **NARROW,
                   **WHILE_IDLE)  # fmt: skip


def method(actions: dict[str, Callable]) -> None:
    with v3.VRow(dense=True, classes="mt-2"):
        for name, label, tip in METHOD:
            with v3.VCol(cols=6, title=tip):
                v3.VSelect(label=label, id=name, items=(f"{name}s",), v_model=(name,), **NARROW, **WHILE_IDLE)
    html.Div("{{ summary }}", classes="text-caption text-medium-emphasis mt-1")
    html.Div("{{ estimate }}", v_if=("estimate && !running",), id="estimate",
             classes="text-caption text-disabled")  # fmt: skip
    html.Div("{{ computes }}", v_if=("computes",), id="computes",
             classes=("['text-caption', computes_warning ? 'text-warning' : 'text-disabled']",))  # fmt: skip
    with fold("advanced", "Advanced"):
        for name, label, tip in CHOICES:
            with html.Div(title=tip, classes="mt-2"):
                v3.VSelect(label=label, id=name, items=(f"{name}s",), v_model=(name,), **NARROW, **WHILE_IDLE)
        v3.VTextField(label="Seed", id="seed", v_model=("seed",), title=SEED_TIP, classes="mt-2", **NARROW,
                      **WHILE_IDLE)  # fmt: skip
        with (
            v3.VRow(dense=True, classes="mt-1", id="options"),
            v3.VCol(cols=6, v_for="one in options", key="`${drawn}-${one.name}`", title=("one.help",)),
        ):
            _option(actions["option"])
        v3.VBtn("Restore the values of the preset", id="restore", click=actions["restore"], block=True, size="small",
                variant="tonal", classes="text-none mt-1",
                disabled=("running || !(changed_options || options.some((one) => one.wrong))",))  # fmt: skip


def _option(change: Callable) -> None:
    """The widget of one option, of whichever kind it is."""
    shared = {"id": ("`option-${one.name}`",), "label": ("one.label",), **WHILE_IDLE}
    v3.VCheckbox(v_if=("one.kind === 'bool'",), model_value=("one.value",), density="compact", hide_details=True,
                 update_modelValue=(change, "[one.name, $event]"), **shared)  # fmt: skip
    v3.VSelect(v_else_if=("one.kind === 'choice'",), model_value=("one.value",), items=("one.choices",),
               update_modelValue=(change, "[one.name, $event]"), **NARROW, **shared)  # fmt: skip
    v3.VTextField(v_else=True, model_value=("one.value",), error_messages=("one.wrong",),
                  change=(change, "[one.name, $event.target.value]"),
                  **{**NARROW, "hide_details": ("!one.wrong",)}, **shared)  # fmt: skip


@contextmanager
def fold(name: str, title: str):
    """A part that is shown when its title is clicked; the state `NAME_open` says whether it is."""
    opened = f"{name}_open"
    v3.VBtn(title, id=name, click=f"{opened} = !{opened}", variant="text", size="small", block=True,
            prepend_icon=(f"{opened} ? 'mdi-chevron-down' : 'mdi-chevron-right'",),
            classes="text-none justify-start px-1 mt-2")  # fmt: skip
    with html.Div(v_if=(opened,), id=f"{name}-part"):
        yield
