"""What the panel remembers, stored in the scene with everything else."""

from __future__ import annotations

import enum
from typing import Annotated, Union, get_type_hints

from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTransformNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Minimum, parameterNodeWrapper

# Not `A | B`: Slicer 5.8 knows only this form; and without None Slicer refuses to store "no mask".
MaskNode = Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007

OUTPUTS = ("Transform", "Inverse", "Warped", "Jacobian")  # each with a field `want…` and a field `output…`


class Preset(enum.Enum):
    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"

    def label(self):
        return {"fast": _("Fast"), "balanced": _("Balanced"), "best": _("Best")}[self.value]


class Contrast(enum.Enum):
    AUTO = "auto"
    SAME = "lncc"
    DIFFERENT = "nmi"

    def label(self):
        return {
            "auto": _("Decide from the images"),
            "lncc": _("Same (T1 to T1, CT to CT)"),
            "nmi": _("Different (T1 to T2, CT to MR)"),
        }[self.value]


class Linear(enum.Enum):
    AFFINE = "affine"
    RIGID = "rigid"
    NONE = "none"

    def label(self):
        return {"affine": _("Affine"), "rigid": _("Rigid"), "none": _("None: already aligned")}[self.value]


class Device(enum.Enum):
    AUTO = "auto"
    CPU = "cpu"

    def label(self):
        return {"auto": _("Automatic"), "cpu": _("CPU only")}[self.value]


@parameterNodeWrapper
class NeuralRegistrationParameterNode:
    """Inputs, settings and outputs; an output that is wanted and has no node is created.

    options: JSON, {method: {option: value}} with what differs from the preset.
    """

    fixedVolume: vtkMRMLScalarVolumeNode
    movingVolume: vtkMRMLScalarVolumeNode
    fixedMask: MaskNode
    movingMask: MaskNode
    initialTransform: vtkMRMLTransformNode
    fixedLandmarks: vtkMRMLMarkupsFiducialNode
    movingLandmarks: vtkMRMLMarkupsFiducialNode
    centre: bool = False
    method: str = "DNVF"
    preset: Preset = Preset.BALANCED
    contrast: Contrast = Contrast.AUTO
    linear: Linear = Linear.AFFINE
    device: Device = Device.AUTO
    seed: Annotated[int, Minimum(0)] = 0
    options: str = "{}"
    livePreview: bool = True
    wantTransform: bool = True
    wantInverse: bool = True
    wantWarped: bool = True
    wantJacobian: bool = True
    outputTransform: vtkMRMLTransformNode
    outputInverse: vtkMRMLTransformNode
    outputWarped: vtkMRMLScalarVolumeNode
    outputJacobian: vtkMRMLScalarVolumeNode


def forget_unknown(node) -> None:
    """Take the choices out of a node that only another version of this extension knows: Slicer cannot wrap it else."""
    for name, kind in get_type_hints(NeuralRegistrationParameterNode).items():
        if isinstance(kind, enum.EnumMeta) and node.GetParameter(name) not in kind.__members__:
            node.UnsetParameter(name)
