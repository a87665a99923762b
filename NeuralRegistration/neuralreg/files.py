"""Files that are whole or absent, and those that may not be read. Standard library only."""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from .job import RegistrationError, RegistrationJob

HEADERS = (".mhd", ".nhdr", ".hdr", ".img")  # formats whose voxels lie beside them, under the same name
STRAY = ("Thumbs.db", "desktop.ini")
CHUNK = 1 << 20
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def reading() -> Iterator[None]:
    """Files in a folder that the user may not enter, as a sentence: else it is the output that seems to fail."""
    try:
        yield
    except PermissionError as error:
        raise RegistrationError(
            f"You may not read {error.filename}; ask its owner for the permission, or for a copy."
        ) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise RegistrationError(too_long(error)) from error


def too_long(error: OSError) -> str:
    """The sentence for a name that the system does not take."""
    return f"The name {str(error.filename)[:40]}… is too long for this computer; choose a shorter one."


def check_name(path: str | Path) -> None:
    """Raise RegistrationError for what names no file, and for a name that is no UTF-8, as old archives bring: ITK would
    end the whole process."""
    if not isinstance(path, str | Path):
        raise RegistrationError(f"A file is named by a text or a pathlib.Path; got {type(path).__name__}.")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="replace").decode()
        raise RegistrationError(f"{shown} has characters that are not in UTF-8 in its name; rename it.") from error


def split_number(name: str) -> tuple[Path, int | None]:
    """`scan.nii.gz@3` → (scan.nii.gz, 3), unless a file has that very name."""
    match = re.fullmatch(r"(.+)@(\d{1,6})", name)
    if match and not Path(name).exists():
        return Path(match[1]), int(match[2])
    return Path(name), None


def checksum(name: str) -> str:
    """Of an input's bytes as they are now: the file's, those beside a header, or all in a folder; "" where it cannot be
    read. Not of its name or date, so that data may be moved and copied."""
    path, _ = split_number(name)
    try:
        found, parts = 0, [part for part in _parts(path) if part.is_file()]  # a pipe would be waited for
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(CHUNK):
                    found = zlib.crc32(block, found)
    except (OSError, ValueError):  # the latter: a name that no file can have
        return ""
    return f"{found:08x}" if parts else ""


def changed(job: RegistrationJob, checksums: Mapping[str, str], folder: str | Path = "") -> str:
    """A sentence on the inputs of a job that hold something else than when they had these checksums, by the job's
    fields; empty where there are none. Files that are gone do not count. Relative paths count from `folder`."""
    then = {name: seen for name, seen in checksums.items() if seen and getattr(job, name, None)}
    now = {name: checksum(str(Path(folder, getattr(job, name)))) for name in then}
    names = [name.replace("_", " ") for name in then if now[name] not in ("", then[name])]
    if not names:
        return ""
    return f"Changed since the run: {', '.join(names)}. What is shown is what the files hold now; register again."


def _parts(path: Path) -> list[Path]:
    if path.is_dir():  # but for what file managers leave there
        return sorted(part for part in path.iterdir() if not part.name.startswith(".") and part.name not in STRAY)
    if path.suffix.lower() in HEADERS:
        return sorted(part for part in path.parent.iterdir() if _holds_voxels(part, path.stem))
    return [path]


def _holds_voxels(part: Path, stem: str) -> bool:
    """Whether a file is the header `stem`, or the voxels beside it; a table of points of that name is neither."""
    bare = part.with_suffix("") if part.suffix.lower() == ".gz" else part
    return bare.stem == stem and bare.suffix.lower() in (*HEADERS, ".raw", ".zraw")


def check_folder(path: Path) -> None:
    """Raise RegistrationError when the folder of a file to write is not there."""
    if not path.parent.is_dir():
        raise RegistrationError(f"There is no folder {path.parent} to write to; make it or choose another one.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it replaces `path` when the block succeeds and vanishes when it fails. What is
    no file is written to itself.

    Raises RegistrationError where there is no such folder, OSError when the disk is full.
    """
    path = Path(path)
    check_folder(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe, or /dev/null, which root could replace
        yield path
        return
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.filename == str(partial):  # a name that nobody has given
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):  # the reason of the failure is what the user must hear
            partial.unlink(missing_ok=True)


def check_written(path: Path, needed: int) -> None:
    """Raise OSError (no space left) unless a file just written holds `needed` bytes, decompressed if it is gzip."""
    with path.open("rb") as file:
        gzip = file.read(2) == b"\x1f\x8b"
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 4, 0))
        trailer = file.read()
    # A complete gzip file ends with the size of its content, modulo 2³².
    whole = trailer == struct.pack("<I", needed % 2**32) if gzip else size >= needed
    if not whole:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@contextmanager
def alone(path: Path) -> Iterator[Path]:
    """A name under which a file has no sibling that would be read in its place.

    The NIfTI library takes the header from scan.nii.gz but the voxels from scan.nii, if that lies in the same folder.
    """
    if not path.name.lower().endswith(".nii.gz") or not path.with_name(path.name[:-3]).exists():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="neuralreg-") as folder:
        only = Path(folder) / "volume.nii.gz"
        try:
            only.symlink_to(path.resolve())
        except OSError:  # Windows lets few users make links
            shutil.copyfile(path, only)
        yield only
