"""What feed-forward methods share: a model by name or path, its field as the first link of the chain, a refinement."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import sampling
from ..domain import unlike
from ..feedforward import predict
from ..job import ACROSS_CONTRASTS, RegistrationError
from ..optimise import Chain, Fit, Level, Stage
from ..pyramid import Shape, border_window, coarser_shape, gaussian
from ..weights import Checkpoint, load

SHIPPED = Path(__file__).resolve().parents[2] / "Resources" / "Models"  # in Slicer and in a checkout
INSTALLED = Path(sys.prefix) / "share" / "neuralreg" / "models"  # by pip
FOR_ONE_CONTRAST = {"VoxelMorph": "voxelmorph_t1", "FNOReg": "fnoreg_t1"}
FOR_TWO_CONTRASTS = {"VoxelMorph": "voxelmorph_anycontrast"}
SMOOTHING = 0.5  # voxels of the field's lattice: takes the edges off the interpolated network field
REFINE_VELOCITY = 2.0  # lattice of the refinement, in image voxels


def known_models() -> list[Path]:
    """Checkpoints that come with the extension, and those that the user added in the panel."""
    shipped = SHIPPED if SHIPPED.is_dir() else INSTALLED
    return [*_models_in(shipped), *_models_in(Path("~/.neuralreg/models"))]


def _models_in(folder: Path) -> list[Path]:
    """None where the folder may not be entered, or lies in a home that nobody knows: the shipped ones are there yet."""
    try:
        return sorted(folder.expanduser().glob("*.pt"))
    except (OSError, RuntimeError):
        return []


def model(name: str, method: str, similarity: str = "lncc") -> Checkpoint:
    """The checkpoint of a shipped model's name or of a path; "auto" takes the shipped one that suits the similarity.

    Raises RegistrationError when it is of another method.
    """
    name = _named(name, method, similarity)
    named = next((path for path in known_models() if path.stem == name), None)
    checkpoint = load(named or os.path.expanduser(name))  # noqa: PTH111 (raises where nobody knows the home)
    if checkpoint.manifest.method != method:
        raise RegistrationError(
            f"{name} is a model of {checkpoint.manifest.method}; choose that method (with Cas-DNVF, the "
            f"option network={checkpoint.manifest.method}), or a model of {method}."
        )
    return checkpoint


def check_model(name: str, method: str, similarity: str) -> None:
    """Raise what `model` raises; where the similarity is yet to be chosen, for each that may be."""
    possible = ("lncc", "nmi") if similarity == "auto" else (similarity,)
    for each in {_named(name, method, similarity) for similarity in possible}:
        model(each, method)


def _named(name: str, method: str, similarity: str) -> str:
    if name != "auto":
        return name
    return (similarity in ACROSS_CONTRASTS and FOR_TWO_CONTRASTS.get(method)) or FOR_ONE_CONTRAST[method]


def predicted(fit: Fit, checkpoint: Checkpoint) -> None:
    """Put the network's map at the front of the fit's empty chain.

    Raises RegistrationError for one that moves points by more than half of the image: mending it would take too long.
    """
    images, manifest = fit.images, checkpoint.manifest
    shape = coarser_shape(tuple(images.fixed.shape[2:]), images.spacing, manifest.spacing / min(images.spacing))
    for name, image in (("fixed", images.fixed), ("moving", images.moving)):
        warning = unlike(manifest, image, images.spacing, name)
        fit.warnings += [warning] if warning else []
    field = predict(checkpoint, images.fixed, images.moving, images.spacing, shape, fit.monitor.check)
    field = gaussian(field, [SMOOTHING] * 3) * border_window(shape, field)
    if not float(sampling.length(field).max()) <= max(shape) / 2:  # NaN is no less absurd
        raise RegistrationError(
            "The model would move tissue across half of the image: it is damaged or was trained on other images; "
            "choose another model, or DNVF."
        )
    if manifest.diffeomorphic:
        fit.chain = fit.chain.then(field)
    else:
        fit.chain = Chain(field, sampling.invert(field, -field))


def refined(fit: Fit, iterations: int, spacing_mm: float) -> None:
    """Instance optimisation: append exp(v), v on a free lattice, fitted to this pair. The network stays as it is."""
    factor = spacing_mm / min(fit.images.spacing)
    level = Level(max(factor, 1.0), max(REFINE_VELOCITY * factor, 1.0), iterations)
    fit.run([Stage(FreeVelocity, [level])], begin=0.2)


class FreeVelocity(nn.Module):
    """Coefficients of a velocity (1, 3, d, h, w) in voxels of their lattice, every number of which is a parameter."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.values = nn.Parameter(torch.zeros(1, 3, *shape))

    def forward(self, shape: Shape) -> Tensor:
        return sampling.resize_displacement(self.values, shape)
