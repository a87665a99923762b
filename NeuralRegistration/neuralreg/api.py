"""`neuralreg.register`: the whole flow on paths, SimpleITK images or `Image`, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
import torch

from . import io, pipeline
from .image import Grid, Image
from .job import Monitor, RegistrationError, whole_number
from .points import read_pairs
from .transform import Transform
from .usage import enough_memory

if TYPE_CHECKING:
    from .pipeline import Registration

Volume = str | Path | sitk.Image | Image


@contextmanager
def _usual_torch() -> Iterator[None]:
    """Float32 on the processor with gradients, whatever the caller has set for work of its own, which is as before
    afterwards: its threads and its random numbers, too."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)  # else some versions of torch warn
    usual = [torch.inference_mode(False), torch.enable_grad(), *(torch.autocast(kind, enabled=False) for kind in kinds)]
    if torch.empty(0).device.type != "cpu":  # else left out: it slows every operation
        usual.append(torch.device("cpu"))
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as stack:
            for one in (*usual, torch.random.fork_rng(list(gpus))):
                stack.enter_context(one)
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


@enough_memory()
@_usual_torch()
def register(fixed: Volume, moving: Volume, method: str = "DNVF", **settings: Any) -> Registration:
    """Register `moving` to `fixed` -> .transform (fixed → moving, LPS mm), .inverse, .warped, .jacobian, .metrics.

    fixed, moving: path, SimpleITK image or `Image`. settings: those of `pipeline.register` (preset, similarity, affine,
    device, seed, options …); fixed_mask and moving_mask may be paths or images, initial_transform a path, a SimpleITK
    transform or a `Transform`, landmarks two point files or two arrays (n, 3) in LPS mm.
    Raises RegistrationError with one sentence that says what to do.
    """
    for name in ("seed", "threads"):
        value = settings.get(name, 0)
        whole_number(name, value.item() if isinstance(value, np.integer) else value)
    if not isinstance(settings.get("monitor") or Monitor(), Monitor):
        raise RegistrationError(f'"monitor" must be a neuralreg.Monitor; got {settings["monitor"]!r}.')
    if not isinstance(settings.get("options") or {}, Mapping):
        raise RegistrationError(f'"options" must be a table of names and values; got {settings["options"]!r}.')
    notes: list[str] = []
    fixed_image, moving_image = _volume(fixed, "The fixed image", notes), _volume(moving, "The moving image", notes)
    for name, image in (("fixed_mask", fixed_image), ("moving_mask", moving_image)):
        if settings.get(name) is not None:
            settings[name] = _mask(settings[name], image.grid, name.replace("_", " "), notes)
    if settings.get("initial_transform") is not None:
        settings["initial_transform"] = _transform(settings["initial_transform"])
    if settings.get("landmarks") is not None:
        settings["landmarks"] = _landmarks(settings["landmarks"])
    for note in notes:
        warnings.warn(note, stacklevel=4)  # whoever called, past the decorators
    if settings.get("options"):
        settings["options"] = {name: _plain(value) for name, value in settings["options"].items()}
    result = pipeline.register(fixed_image, moving_image, method, **settings)
    return replace(result, warnings=[*notes, *result.warnings])


def _plain(value: Any) -> Any:
    """A number or list of numbers without numpy's types, as a job file would hold it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _volume(volume: Volume, name: str, notes: list[str]) -> Image:
    if isinstance(volume, str | Path):
        return io.read_image(volume, notes.append)
    return io.checked(_image(volume, name), name, notes.append)


def _image(volume: sitk.Image | Image, name: str) -> Image:
    image = io.from_sitk(volume) if isinstance(volume, sitk.Image) else volume
    if not isinstance(image, Image):
        raise RegistrationError(f"{name} must be a path, a SimpleITK image or an Image; got {type(volume).__name__}.")
    return Image(image.data.detach().cpu(), image.grid)


def _mask(mask: Volume, grid: Grid, name: str, notes: list[str]) -> Image:
    if isinstance(mask, str | Path):
        return io.read_mask(mask, grid, notes.append)
    image = _image(mask, f"The {name}")
    if len(image.data) != 1:
        raise RegistrationError(f"The {name} has {len(image.data)} values per voxel; give a mask with one.")
    return io.resampled_mask(Image((image.data > 0).float(), image.grid), grid, f"The {name}", notes.append)


def _landmarks(pair: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        fixed, moving = pair
        if isinstance(fixed, str | Path) and isinstance(moving, str | Path):
            return read_pairs(fixed, moving)
        found = tuple(torch.from_numpy(np.array(points, dtype=np.float64).T.copy()) for points in (fixed, moving))
        if not all(torch.isfinite(points).all() for points in found):
            raise ValueError("a coordinate is no number")
        return found
    except (TypeError, ValueError, RuntimeError) as error:  # the last: a tensor that wants its gradient
        raise RegistrationError(
            f"Landmarks are two point files or two arrays (n, 3) in LPS mm, fixed and moving ({error})."
        ) from error


def _transform(transform: str | Path | sitk.Transform | Transform) -> Transform:
    if isinstance(transform, str | Path):
        return io.read_transform(transform)
    try:
        found = io.from_sitk_transform(transform) if isinstance(transform, sitk.Transform) else transform
    except ValueError as error:
        raise RegistrationError(f"The initial transform cannot be used: {error}.") from error
    if not isinstance(found, Transform):
        raise RegistrationError(
            f"The initial transform must be a path, a SimpleITK transform or a Transform; got {type(found).__name__}."
        )
    return found
