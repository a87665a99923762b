"""Reading and writing beside other work: both images of a pair at once, and each output while the next one is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from . import io
from .files import reading
from .image import Image, Watch
from .job import INVERSE, JACOBIAN, TRANSFORM, WARPED, Cancelled
from .transform import Transform

OUTPUTS = {"transform": TRANSFORM, "inverse": INVERSE, "warped": WARPED, "jacobian": JACOBIAN}
# Above this a pair is read one after the other: whoever reads a volume holds it twice for a moment.
TOGETHER_BYTES = 100_000_000
POLL = 0.05  # seconds between two looks at whether the user has cancelled
Files = tuple[str, str | None]  # an image and its mask, if any
# The libraries of HDF5 and MINC end the whole process when two threads read at once, that of NRRD when both files are
# damaged (SimpleITK 2.5.7); GDCM is not known to be better.
THREAD_SAFE = (".nii", ".nii.gz", ".mha", ".mhd")


@reading()
def read_both(fixed: Files, moving: Files, warn: Callable[[str], object]) -> list[tuple[Image, Image | None]]:
    """Each image with its mask, at once where that is safe and both are small; what there is to say comes in the order
    of the images.

    Raises RegistrationError, about the fixed image if both are wrong.
    """
    said: list[list[str]] = [[], []]
    workers = 2 if _safe(*fixed, *moving) and _size(fixed[0]) + _size(moving[0]) <= TOGETHER_BYTES else 1
    with ThreadPoolExecutor(workers, "read") as pool:
        found = list(pool.map(_read_one, (fixed, moving), said))
    for sentence in [*said[0], *said[1]]:
        warn(sentence)
    return found


def _safe(*names: str | None) -> bool:
    return all(name is None or name.lower().endswith(THREAD_SAFE) for name in names)


def _size(name: str) -> float:
    """Bytes of a file; a folder, or a volume picked out of a file, counts as large."""
    path = Path(name)
    return path.stat().st_size if path.is_file() else TOGETHER_BYTES


def _read_one(files: Files, said: list[str]) -> tuple[Image, Image | None]:
    name, mask = files
    image = io.read_image(name, said.append)
    return image, io.read_mask(mask, image.grid, said.append) if mask else None


class Writer:
    """Writes outputs into `folder`, one after the other, in a thread of its own: `write` returns at once and `wait`
    when all is written. Leaving the block early, by an error or a signal, ends the writing first."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pool = ThreadPoolExecutor(1, "write")
        self.ended = threading.Event()
        self.written: list[Future[None]] = []

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        try:
            self.pool.shutdown(cancel_futures=True)
        except BaseException:  # a signal in the middle of it; the next one is ignored (see cli)
            self.pool.shutdown()
            raise

    def write(self, name: str, value: Transform | Image) -> None:
        """Begin to write one of OUTPUTS."""
        self.written.append(self.pool.submit(self._write, self.folder / OUTPUTS[name], value))

    def wait(self, watch: Watch) -> None:
        """Wait for all of it. Raises what the writing raised, or what `watch` raises to end it (see Part.step)."""
        for number, future in enumerate(self.written):
            watch(number / len(self.written))
            while not wait([future], POLL).done:
                watch(number / len(self.written))
            future.result()

    def _write(self, path: Path, value: Transform | Image) -> None:
        if isinstance(value, Image):
            io.write_image(value, path, watch=self._go_on)
        else:
            io.write_transform(value, path, self._go_on)

    def _go_on(self, share: float) -> None:
        if self.ended.is_set():
            raise Cancelled
