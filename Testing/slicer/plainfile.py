"""Transform files as the core writes them."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from neuralreg.hdf5 import ItkTransform, composed, write_itk_transforms


def write_transform(transform: sitk.Transform, path) -> None:
    """Write an affine, a field, or a composite of them."""
    parts = [transform]
    if transform.GetName() == "CompositeTransform":
        whole = sitk.CompositeTransform(transform)
        parts = [whole.GetNthTransform(i) for i in range(whole.GetNumberOfTransforms())]
    stored = []
    for part in parts:
        field = part.GetName() == "DisplacementFieldTransform"
        values = np.array(part.GetParameters(), np.float32 if field else np.float64)
        kind = "DisplacementFieldTransform_float_3_3" if field else "AffineTransform_double_3_3"
        stored.append(ItkTransform(kind, np.array(part.GetFixedParameters()), values))
    write_itk_transforms(path, composed(stored))
