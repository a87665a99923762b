"""The folders of runs on the disk: that of the run at work, and those of finished ones as long as there is room."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import slicer
from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

from . import run_files
from .results import Run

PREFIX = "NeuralRegistration-"  # of the temporary folders


class RunFolders:
    """A folder holds `inputs` and `run`; the second one is as the command line writes it."""

    def __init__(self):
        self.keepBytes = 0  # of the files of finished runs that stay when the next one begins
        self.current: Path | None = None  # of the run at work
        self._finished: dict = {}  # {table: folder}, the oldest first

    def begin(self) -> Path:
        """The new folder of a run; the oldest of the finished ones make room for it. Raises OSError."""
        self._remove_oldest(self.keepBytes)
        self.current = _new_folder()
        return self.current

    def end(self, run: Run | None) -> None:
        """The run at work has ended, with a result or without: then its files go."""
        if run is not None:
            self._finished[run.table] = self.current
        elif self.current is not None:
            shutil.rmtree(self.current, ignore_errors=True)
        self.current = None

    def of(self, run: Run | None) -> Path | None:
        """The run directory of a finished run, as long as it is there."""
        folder = self._finished.get(run.table) if run is not None else None
        return folder / "run" if folder is not None else None

    def problem(self, run: Run, sides: tuple[str, ...]) -> str:
        """Why the directory of a run is not to be had with the volumes of some sides; empty where it is."""
        return "" if run_files.has(self.of(run), sides) else run_files.problem(run, sides)

    def whole(self, run: Run, sides: tuple[str, ...]) -> Path:
        """The directory of a run; where it is gone, as in a scene that was opened again, it is made from the nodes.

        Raises RegistrationError where that cannot be done.
        """
        if not run_files.has(self.of(run), sides):
            folder = _restored(run, sides)
            shutil.rmtree(self._finished.pop(run.table, folder / "none"), ignore_errors=True)
            self._finished[run.table] = folder
        return self.of(run)

    def hand_over(self, run: Run) -> Path:
        """The directory of a finished run, which is the caller's from now on."""
        return self._finished.pop(run.table) / "run"

    def drop(self) -> None:
        """Take the files of all finished runs away: hundreds of megabytes of a scene that is closed."""
        self._remove_oldest(0)

    def _remove_oldest(self, limit: int) -> None:
        """Until `limit` bytes are left; and all whose run is no longer in the scene."""
        used = 0
        for table, folder in reversed(list(self._finished.items())):
            used += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            if used > limit or limit == 0 or table.GetScene() is None:
                shutil.rmtree(folder, ignore_errors=True)
                del self._finished[table]


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=slicer.app.temporaryPath))


def _restored(run: Run, sides: tuple[str, ...]) -> Path:
    try:
        folder = _new_folder()
        try:
            run_files.restore(run, folder, sides)
        except (OSError, RegistrationError):
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise RegistrationError(
            _("The files of this registration cannot be made again ({reason}); check the free space of the "
              "temporary folder.").format(reason=error.strerror or error)
        ) from error  # fmt: skip
    return folder
