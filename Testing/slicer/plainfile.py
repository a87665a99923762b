"""Transform files as the core writes them, without importing torch."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from neuralreg import job


def write_transform(transform: sitk.Transform, path) -> None:
    """Write an affine, a field, or a composite of them; the core's package imports torch, its one file does not."""
    spec = importlib.util.spec_from_file_location("plain_hdf5", Path(job.__file__).with_name("hdf5.py"))
    hdf5 = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = hdf5  # dataclasses look there
    spec.loader.exec_module(hdf5)
    parts = [transform]
    if transform.GetName() == "CompositeTransform":
        whole = sitk.CompositeTransform(transform)
        parts = [whole.GetNthTransform(i) for i in range(whole.GetNumberOfTransforms())]
    stored = [hdf5.ItkTransform("CompositeTransform_double_3_3", np.zeros(0), np.zeros(0))] if len(parts) > 1 else []
    for part in parts:
        field = part.GetName() == "DisplacementFieldTransform"
        values = np.array(part.GetParameters(), np.float32 if field else np.float64)
        kind = "DisplacementFieldTransform_float_3_3" if field else "AffineTransform_double_3_3"
        stored.append(hdf5.ItkTransform(kind, np.array(part.GetFixedParameters()), values))
    hdf5.write_itk_transforms(path, stored)
