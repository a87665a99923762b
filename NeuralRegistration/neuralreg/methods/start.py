"""What feed-forward methods share: a model by name or path, its field as the first link of the chain, a refinement."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import sampling
from ..diffeomorphism import tangled_share
from ..domain import unlike
from ..feedforward import at_spacing, predict
from ..job import ACROSS_CONTRASTS, RegistrationError
from ..optimise import Chain, Fit, Level, Stage
from ..pyramid import Shape, border_window, coarser_shape, coarser_spacing, gaussian
from ..weights import Checkpoint, load

SHIPPED = Path(__file__).resolve().parents[2] / "Resources" / "Models"  # in Slicer and in a checkout
INSTALLED = Path(sys.prefix) / "share" / "neuralreg" / "models"  # by pip
FOR_ONE_CONTRAST = {"VoxelMorph": "voxelmorph_t1", "FNOReg": "fnoreg_t1"}
FOR_TWO_CONTRASTS = {"VoxelMorph": "voxelmorph_anycontrast"}
SMOOTHING = 0.5  # voxels of the training, and of the pass: takes the edges off the interpolated network field
TANGLED = 0.01  # share of cells; brains of the training's kind have up to 0.004, and mending may take minutes beyond
TANGLES = "The network tangles these images where it looks closer: its finer passes were left out. DNVF is better here."
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


def predicted(fit: Fit, checkpoint: Checkpoint, scales: Sequence[float]) -> None:
    """Append the network's map to the fit's chain: one pass for each entry of `scales`, at that many times the spacing
    of its training, each for what is left yet (as in Zhao et al., ICCV 2019, with one network for all passes). It ends
    before a pass that tangles the map, as networks do with images that they do not know.

    Raises RegistrationError for one that moves points by more than half of the image: mending it would take too long.
    """
    images, manifest = fit.images, checkpoint.manifest
    if fit.chain.forward is None:
        seen = (("fixed", images.fixed), ("moving", images.moving))
        fit.warnings += filter(None, (unlike(manifest, image, images.spacing, name) for name, image in seen))
    for scale in scales:
        if TANGLES in fit.warnings:
            break
        spacing = max(scale * manifest.spacing, min(images.spacing))
        chain = _passed(fit, at_spacing(checkpoint, spacing), SMOOTHING * manifest.spacing)
        if fit.chain.forward is not None and tangled_share(chain.forward) > TANGLED:
            fit.warnings.append(TANGLES)
        else:
            fit.chain = chain


def _passed(fit: Fit, checkpoint: Checkpoint, blur_mm: float) -> Chain:
    """The fit's chain with one more pass of the network, which is shown the moving image as warped so far."""
    images, finest = fit.images, min(fit.images.spacing)
    warped = images.moving
    if fit.chain.forward is not None:
        warped = sampling.warp(images.moving, fit.chain.on(images.shape).forward)
        fit.monitor.preview(warped)
    shape = coarser_shape(images.shape, images.spacing, checkpoint.manifest.spacing / finest)
    field = predict(checkpoint, images.fixed, warped, images.spacing, shape, fit.monitor.check)
    lattice = coarser_spacing(images.shape, images.spacing, shape)[::-1]
    field = gaussian(field, [max(blur_mm / side, SMOOTHING) for side in lattice]) * border_window(shape, field)
    if not float(sampling.length(field).max()) <= max(shape) / 2:  # NaN is no less absurd
        raise RegistrationError(
            "The model would move tissue across half of the image: it is damaged or was trained on other images; "
            "choose another model, or DNVF."
        )
    if checkpoint.manifest.diffeomorphic:
        return fit.chain.then(field)
    forward = fit.chain.on(shape).forward_after(field)
    return Chain(forward, sampling.invert(forward, -forward))


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
