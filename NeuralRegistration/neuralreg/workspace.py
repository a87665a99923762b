"""The output folder of a run: claimed by one run at a time, and holding either a whole result or none.

Everything is written into a private folder `.partial` inside the output (so that renaming never crosses a file system)
and renamed at the end, result.json last: a folder without it holds no result. What an earlier run left is set aside in
`.earlier` meanwhile, and comes back when the new result does not become whole.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .job import (
    CANCEL,
    EVALUATION,
    INVERSE,
    JACOBIAN,
    JOB,
    PREVIEW,
    REPORT,
    RESULT,
    STOP,
    TRANSFORM,
    WARPED,
    RegistrationError,
)

RUN_FILES = (TRANSFORM, INVERSE, WARPED, JACOBIAN, JOB, RESULT)  # in the order in which they are renamed
DERIVED_FILES = (EVALUATION, REPORT)  # they must not outlive the result that they are about
SIGNAL_FILES = (CANCEL, STOP, PREVIEW)
PARTIAL, LOCK, EARLIER = ".partial", "lock", ".earlier"


@contextmanager
def workspace(output: Path, overwrite: bool = False) -> Iterator[Path]:
    """A private, empty folder to write the run's files into; `publish` moves them to `output`, otherwise they vanish.

    Raises RegistrationError when `output` is not a folder that this run may fill.
    """
    missing = [folder for folder in (output, *output.parents) if not folder.exists()]  # innermost first
    try:
        _make_folder(output)
        with _locked(output) as partial:
            check_output(output, overwrite)
            try:
                yield partial
            finally:
                try:
                    _remove_signals(output)
                except BaseException:  # a signal in the middle of it; the next one is ignored (see cli)
                    _remove_signals(output)
                    raise
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # somebody else has put a file there meanwhile: it stays
                folder.rmdir()
        raise


def _remove_signals(output: Path) -> None:
    for name in SIGNAL_FILES:
        with suppress(OSError):  # the reason of a failure is what the user must hear
            (output / name).unlink(missing_ok=True)


@contextmanager
def claimed(output: Path) -> Iterator[None]:
    """A folder of results for one batch or demo at a time: two would give each other's runs their own settings.

    Raises RegistrationError when it cannot be made, or another one is at work there.
    """
    _make_folder(output)
    with _locked(output):
        yield


def check_output(output: Path, overwrite: bool) -> None:
    """Raise RegistrationError when `output` is a file, or holds something that the run would mix with its result."""
    if output.exists() and not output.is_dir():
        raise RegistrationError(f"The output {output} is a file; name a folder.")
    for name in (*RUN_FILES, *DERIVED_FILES):
        if (output / name).is_dir():
            raise RegistrationError(f"The output folder {output} holds a folder named {name}; choose another one.")
    if overwrite or not output.exists():
        return
    # A job file alone is a run that waits to be started; hidden files are the system's (.DS_Store) or left by a crash.
    others = sorted(
        p.name for p in output.iterdir() if p.name not in (JOB, *SIGNAL_FILES) and not p.name.startswith(".")
    )
    if others:
        raise RegistrationError(
            f"The output folder {output} is not empty (it holds {others[0]}); choose another one or add --overwrite,"
            " which replaces the files of an earlier result and nothing else."
        )


def publish(partial: Path, output: Path) -> None:
    """Move a finished run from `partial` to `output`. An interruption before the last rename puts back what was there;
    after it the new result stays."""
    try:
        for name in (RESULT, *DERIVED_FILES, *RUN_FILES):
            if os.path.lexists(output / name):
                (output / EARLIER).mkdir(mode=0o700, exist_ok=True)
                (output / name).replace(output / EARLIER / name)
        for name in RUN_FILES:
            (partial / name).replace(output / name)
    finally:
        try:
            _settle(output)
        except BaseException:  # a signal in the middle of it; the next one is ignored (see cli)
            _settle(output)
            raise


def _settle(output: Path) -> None:
    """End a publication, also that of a run which was killed: either the new result is whole, or the earlier one is."""
    earlier, partial = output / EARLIER, output / PARTIAL
    if (partial / RESULT).exists():  # it is moved last
        arrived = [output / name for name in RUN_FILES if not (partial / name).exists()]
        for path in arrived:
            path.unlink(missing_ok=True)
    if not earlier.is_dir():
        return
    if not (output / RESULT).exists():
        for path in sorted(earlier.iterdir(), key=lambda path: path.name == RESULT):
            path.replace(output / path.name)
    shutil.rmtree(earlier, ignore_errors=True)


def unreplaced(output: Path) -> Callable[[], None]:
    """What raises RegistrationError once another run replaces the result that `output` holds now: figures and pictures
    of the one must not come to lie beside the other."""
    before = _result_of(output)

    def check() -> None:
        if _result_of(output) != before:
            raise RegistrationError(f"Another run has replaced the result in {output} meanwhile; do this again.")

    return check


def _result_of(output: Path) -> bytes | None:
    try:
        return (output / RESULT).read_bytes()
    except OSError:
        return None


def written_since(output: Path, since: float) -> bool:
    """Whether `output` holds a result that is not older than `since` (seconds since 1970)."""
    try:
        return (output / RESULT).stat().st_mtime >= since
    except OSError:
        return False


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RegistrationError(f"The output {output} is a file; name a folder.") from error
    except OSError as error:
        raise RegistrationError(
            f"The output folder {output} cannot be made ({error.strerror}); choose another one."
        ) from error


@contextmanager
def _locked(output: Path) -> Iterator[Path]:
    """The folder `.partial`, empty but for the lock that this process holds on it."""
    partial = output / PARTIAL
    lock, ours = None, False
    try:  # a signal may come at any line
        try:
            partial.mkdir(mode=0o700, exist_ok=True)
            lock = (partial / LOCK).open("ab")
        except OSError as error:
            raise RegistrationError(
                f"The output folder {output} cannot be written to ({error.strerror}); choose another one."
            ) from error
        ours = _is_ours(lock, partial)
        if not ours:
            raise RegistrationError(f"Another run is writing to {output}; wait for it or choose another folder.")
        _settle(output)
        for left_over in partial.iterdir():  # of a run that was killed
            if left_over.name != LOCK:
                left_over.unlink()
        yield partial
    finally:
        if lock is None:
            with suppress(OSError):  # another run has its lock in there
                partial.rmdir()
        elif ours or _is_ours(lock, partial):
            _remove(partial, lock)
        else:
            lock.close()


def _remove(partial: Path, lock: BinaryIO) -> None:
    if os.name == "nt":  # Windows cannot remove an open file; elsewhere the lock is kept until the folder is gone
        lock.close()
    try:
        shutil.rmtree(partial, ignore_errors=True)
    except BaseException:  # a signal in the middle of it; the next one is ignored (see cli)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        lock.close()


def _is_ours(lock: BinaryIO, partial: Path) -> bool:
    """Whether this process holds the lock of the folder that is there now."""
    return _lock(lock) and _is_open_at(lock, partial / LOCK)


def _lock(file: BinaryIO) -> bool:
    """Whether this process got the lock, or there are none here, as on some network drives: then nobody can tell of
    another run. The system gives it back when the process ends, however it ends."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def _is_open_at(file: BinaryIO, path: Path) -> bool:
    """Whether the file at `path` is still the open one: a run that just ended may have removed it."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
