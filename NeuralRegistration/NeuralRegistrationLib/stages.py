"""What the stages of a run are called where people read it."""

from slicer.i18n import tr as _

STAGES = {
    "read": _("Reading the volumes"),
    "affine": _("Linear alignment"),
    "prepare": _("Preparing the working grid"),
    "deformable": _("Deformable registration"),
    "outputs": _("Resampling the results"),
    "metrics": _("Measuring"),
    "write": _("Writing the results"),
    "done": _("Loading the results"),
}
