"""The child process of a peer: `python -m benchmark.peers NAME FIXED MOVING FOLDER --threads N`."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
from pathlib import Path

import SimpleITK as sitk

from . import PEERS, Task, register

NOTES = "peer.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PEERS)
    for name in ("fixed", "moving", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--fixed-mask", type=Path)
    parser.add_argument("--moving-mask", type=Path)
    parser.add_argument("--lung", action="store_true")
    given = vars(parser.parse_args())
    values = {name: value.resolve() if isinstance(value, Path) else value for name, value in given.items()}
    name = values.pop("name")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(values["threads"])
    task = Task(**values)
    os.chdir(task.folder)  # some peers leave files where they stand
    transform, inverse = register(name, task)
    sitk.WriteTransform(transform, str(task.folder / "transform.h5"))
    if inverse is not None:
        sitk.WriteTransform(inverse, str(task.folder / "inverse.h5"))
    versions = " ".join(f"{package} {importlib.metadata.version(package)}" for package in PEERS[name][1])
    (task.folder / NOTES).write_text(json.dumps({"version": versions, "device": "cpu"}), encoding="utf-8")


if __name__ == "__main__":
    main()
