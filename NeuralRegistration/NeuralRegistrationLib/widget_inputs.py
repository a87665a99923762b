"""Inputs: whether the volumes are images that overlap, and the landmarks pairs; said beside the selectors."""

from __future__ import annotations

from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

from . import landmarks, options
from .moved import mover
from .scene_export import volumes_overlap
from .section import Section
from .theme import paint_text

OPTIONAL = ("fixedMask", "movingMask", "initialTransform", "fixedLandmarks", "movingLandmarks")


class InputsSection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        self._watched: list = []
        self._title = self.ui.startSection.text

    def refresh(self) -> None:
        self._count_optional(self.parameters)
        self._refresh_overlap(self.parameters)
        self._refresh_landmarks(self.parameters)

    def _count_optional(self, node) -> None:
        """Say in the title what the closed section hides: the mask of one patient would go on counting for the next."""
        count = sum(getattr(node, name) is not None for name in OPTIONAL)
        self.ui.startSection.text = (
            _("{title}: {count} chosen").format(title=self._title, count=count) if count else self._title
        )

    def _refresh_overlap(self, node) -> None:
        pair = node.fixedVolume, node.movingVolume
        apart = _apart(*pair)
        warning = apart or _label_map(*pair)
        self.ui.overlapLabel.text = warning or _brought(node.movingVolume)
        self.ui.overlapLabel.visible = bool(self.ui.overlapLabel.text)
        self.ui.centreCheckBox.visible = bool(apart) or node.centre
        paint_text(self.ui.overlapLabel, "warning" if warning else "info")

    def _refresh_landmarks(self, node) -> None:
        lists = (node.fixedLandmarks, node.movingLandmarks)
        self._watch(list(dict.fromkeys(markups for markups in lists if markups is not None)))
        chosen = options.chosen(node.options, node.method)
        label = self.ui.landmarksLabel
        label.text, warning = landmarks.remark(*lists, node.method, node.preset.value, chosen)
        label.visible = bool(label.text)
        paint_text(label, "warning" if warning else "info")

    def _watch(self, lists: list) -> None:
        """Hear of points that are placed or deleted while a list is chosen."""
        for markups in self._watched:
            for event in _events(markups):
                self.panel.removeObserver(markups, event, self.panel.onSceneChanged)
        self._watched = lists
        for markups in lists:
            for event in _events(markups):
                self.panel.addObserver(markups, event, self.panel.onSceneChanged)


def _apart(fixed, moving) -> str:
    """Why two volumes cannot be registered where they lie; empty where they can, or one is missing."""
    if fixed is None or moving is None:
        return ""
    try:
        overlap = volumes_overlap(fixed, moving)
    except RegistrationError as error:
        return str(error)
    return (
        "" if overlap else _("The volumes do not overlap in space: centre them, or choose an initial transform below.")
    )


def _label_map(*volumes) -> str:
    """What to say of a label map that was chosen as a volume: every check of its result may be green."""
    for volume in volumes:
        if volume is not None and volume.IsA("vtkMRMLLabelMapVolumeNode"):
            text = _('"{name}" is a label map: its numbers count as brightness. Was the image meant on which it lies?')
            return text.format(name=volume.GetName())
    return ""


def _brought(moving) -> str:
    """What to say of a moving volume that an earlier result has brought to where it lies."""
    moved_by = mover(moving, moving, []) if moving is not None else None
    text = _('The moving volume lies where "{name}" has brought it; what comes now starts there and goes on top.')
    return text.format(name=moved_by.name) if moved_by is not None else ""


def _events(markups) -> tuple:
    return (
        markups.PointAddedEvent,
        markups.PointRemovedEvent,
        markups.PointPositionDefinedEvent,
        markups.PointPositionUndefinedEvent,
        markups.PointPositionMissingEvent,
        markups.PointPositionNonMissingEvent,
    )
