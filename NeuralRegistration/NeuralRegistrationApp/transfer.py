"""Files in and out over HTTP: uploads streamed into the private folder, downloads of a run and of the scene."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from neuralreg.job import RegistrationError

from .formats import POINTS, TRANSFORMS, VOLUMES

if TYPE_CHECKING:
    from .page import Page

MEGABYTE = 1 << 20
LONGEST_NAME = 200
SERIES = "DICOM series"


class Transfer:
    """Uploads and downloads of one page. `limit`: bytes that uploads may hold together before they are read."""

    def __init__(self, page: Page, folder: Path, limit: int):
        self._page, self._folder, self._limit = page, folder, limit
        self._held = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/upload/{batch:[a-z0-9]{1,32}}/{name}", self.receive),
            web.post("/upload/{batch:[a-z0-9]{1,32}}", self.load),
            web.get("/download/{what:[a-z]+}", self.send),
        ]

    async def receive(self, request: web.Request) -> web.Response:
        """Store one file of a batch. What goes wrong is said in the page, as one sentence."""
        batch = self._folder / request.match_info["batch"]
        try:
            name = plain_name(request.match_info["name"])
            batch.mkdir(parents=True, exist_ok=True)
            await self._store(request, batch / name)
        except (RegistrationError, OSError) as error:
            self._drop(batch)
            sentence = str(error) if isinstance(error, RegistrationError) else f"The upload failed ({error})."
            self._page.say(sentence, "error")
            return web.Response(status=400, text=sentence)
        return web.Response(text="stored")

    async def _store(self, request: web.Request, path: Path) -> None:
        """Raises RegistrationError as soon as the uploads are larger than the limit."""
        with path.open("wb") as file:
            async for chunk in request.content.iter_chunked(MEGABYTE):
                self._held += len(chunk)
                if self._held > self._limit:
                    raise RegistrationError(
                        f"{path.name} is too large: uploads are limited to {self._limit // MEGABYTE} MB. Name the file "
                        "on the command line instead (neuralreg app FILE), or raise --upload-limit."
                    )
                file.write(chunk)

    async def load(self, request: web.Request) -> web.Response:
        """The batch is complete: read it into the scene, then take it away."""
        batch = self._folder / request.match_info["batch"]
        try:
            if not batch.is_dir():
                return web.Response(status=404, text="There is no such upload.")
            await self._page.open(sources(batch), hidden=batch)
        finally:
            self._drop(batch)
        return web.Response(text="read")

    def _drop(self, batch: Path) -> None:
        shutil.rmtree(batch, ignore_errors=True)
        self._held = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    async def send(self, request: web.Request) -> web.StreamResponse:
        """A file of the chosen run (transform, warped, report), or the scene."""
        try:
            path = await self._page.file(request.match_info["what"])
        except RegistrationError as error:
            self._page.say(str(error), "error")
            return web.Response(status=404, text=str(error))
        disposition = f'attachment; filename="{path.name}"'
        return web.FileResponse(path, headers={"Content-Disposition": disposition, "Cache-Control": "no-store"})


def plain_name(given: str) -> str:
    """A file name without folders. Raises RegistrationError for a name that is none."""
    name = given.replace("\\", "/").split("/")[-1].lstrip(".")
    if not name or len(name) > LONGEST_NAME or re.search(r"[\x00-\x1f]", name):
        raise RegistrationError("An uploaded file has no usable name; rename it and try again.")
    return name


def sources(batch: Path) -> list[Path]:
    """What to read of the files of a batch: volumes and points, or one folder of all when they are slices (DICOM)."""
    files = sorted(path for path in batch.iterdir() if path.is_file())
    known = [path for path in files if path.name.lower().endswith((*VOLUMES, *POINTS, *TRANSFORMS))]
    if len(files) == 1:
        return files
    return known or [_together(files, batch / SERIES)]


def _together(files: list[Path], folder: Path) -> Path:
    """The files in a folder of their own, which gives the volume its name."""
    folder.mkdir()
    for path in files:
        path.rename(folder / path.name)
    return folder
