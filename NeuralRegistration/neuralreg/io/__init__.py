"""Files ⇄ types. Files and SimpleITK objects are LPS mm, as the core is; nothing is converted but the layout."""

from .images import (
    checked,
    from_sitk,
    pixel_type,
    read_grid,
    read_image,
    read_labels,
    read_map,
    read_mask,
    resampled_mask,
    to_sitk,
    write_image,
)
from .segments import read_segments
from .transforms import from_sitk_transform, read_transform, to_sitk_transform, write_transform

__all__ = [
    "checked",
    "from_sitk",
    "from_sitk_transform",
    "pixel_type",
    "read_grid",
    "read_image",
    "read_labels",
    "read_map",
    "read_mask",
    "read_segments",
    "read_transform",
    "resampled_mask",
    "to_sitk",
    "to_sitk_transform",
    "write_image",
    "write_transform",
]
