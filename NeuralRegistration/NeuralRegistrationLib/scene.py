"""MRML scene ⇄ files, in one place: what the page and the tests call.

Files are LPS and in world space: parent transforms are applied on the way out, Slicer converts on the way in.
"""

from .colours import jacobian_colours, show_jacobian
from .results import Run, runs
from .scene_export import export_mask, export_transform, export_volume, volumes_overlap
from .scene_load import CREATE, SKIP, Outputs, load_run, load_transform

__all__ = [
    "CREATE",
    "SKIP",
    "Outputs",
    "Run",
    "export_mask",
    "export_transform",
    "export_volume",
    "jacobian_colours",
    "load_run",
    "load_transform",
    "runs",
    "show_jacobian",
    "volumes_overlap",
]
