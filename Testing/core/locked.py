"""A folder that the user may not enter; as root, who may enter all, too."""

import errno
import os
from pathlib import Path


def lock(folder: Path, monkeypatch) -> None:
    """Let everything in `folder` be refused."""

    def refusing(function):
        def refuse(path, *arguments, **named):
            if isinstance(path, str | os.PathLike) and Path(folder).absolute() in Path(path).absolute().parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *arguments, **named)

        return refuse

    for name in ("stat", "mkdir", "scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
