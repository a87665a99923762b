"""Mutated images, transforms and point files, each read once: `python fuzz_images.py FOLDER COUNT SEED [NAMES]`.

A process of its own, with little memory to allocate, because a reader that crashes or swallows gigabytes must be seen.
"""

import gzip
import random
import resource
import signal
import struct
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from neuralreg import io
from neuralreg.image import Grid, Image
from neuralreg.job import RegistrationError
from neuralreg.points import Points, read_points, write_points
from neuralreg.transform import Affine, DisplacementField

NAMES = ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mgz", "t.h5", "t.tfm", "u.nii.gz", "p.csv", "p.fcsv",
         "p.mrk.json")  # fmt: skip
PAIRS = ("a.mhd", "a.nhdr")  # a header that names its file of voxels
SECONDS = 20  # of computing for one file, whatever else the computer does; then the alarm ends the process
MEMORY_MB = 1500  # beyond what is in use when the mutations begin


def write_originals(folder: Path) -> None:
    grid = Grid.from_parts((12, 11, 10), (3, -4, 5), (1.0, 1.5, 2.0))
    generator = torch.Generator().manual_seed(0)
    image = Image(torch.rand(1, *grid.shape, generator=generator), grid)
    field = DisplacementField(torch.rand(3, *grid.shape, generator=generator), grid)
    points = Points(np.arange(12.0).reshape(4, 3), ("a", "b", "c", "d"))
    for name in PAIRS:
        sitk.WriteImage(io.to_sitk(image), str(folder / name))
    for name in NAMES:
        if name == "a.mgz":
            nibabel.save(nibabel.MGHImage(image.data[0].numpy().T, np.eye(4)), folder / name)
        elif name[0] == "a":
            io.write_image(image, folder / name)
        elif name[0] == "p":
            write_points(points, folder / name)
        else:
            transform = Affine.identity() @ field if name == "t.h5" else Affine.identity() if name == "t.tfm" else field
            io.write_transform(transform, folder / name)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed (mostly in the header), a piece cut off, doubled or taken out, or numbers in a text blown up."""
    if data[:2] == b"\x1f\x8b" and chance.random() < 0.5:  # what is inside a compressed file
        return gzip.compress(mutated(gzip.decompress(data), chance), 1)
    data = bytearray(data)
    if data[344:348] == b"n+1\0" and chance.random() < 0.3:  # sizes and types that a NIfTI file does not have
        field = chance.choice((40, 42, 44, 46, 48, 70, 72))
        struct.pack_into("<h", data, field, chance.choice((-1, 0, 1, 7, 300, 32767, chance.randrange(-32768, 32768))))
        return bytes(data)
    how = chance.choice(("bytes", "bytes", "header", "header", "header", "cut", "double", "hole", "digits"))
    if how in ("bytes", "header"):
        reach = min(len(data), 400) if how == "header" else len(data)
        for _ in range(chance.choice((1, 2, 4, 16))):
            data[chance.randrange(reach)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    elif how == "digits":
        places = [i for i in range(min(len(data), 1000)) if 48 <= data[i] <= 57]
        for place in chance.sample(places, min(3, len(places))):
            data[place : place + 1] = chance.choice((b"9999999", b"-1", b"0", b"1e30", b"nan", b""))
    else:
        begin = chance.randrange(len(data))
        end = min(len(data), begin + chance.randrange(1, 400))
        data = (
            data[:begin]
            if how == "cut"
            else data[:end] + data[begin:]
            if how == "double"
            else data[:begin] + data[end:]
        )
    return bytes(data)


def read(path: Path) -> str:
    """ "read" or "sentence"; every other end of a reader is an exception that is not caught here."""
    try:
        if path.name.startswith("p"):
            assert np.isfinite(read_points(path).lps).all()
        elif path.name.startswith("a"):
            assert torch.isfinite(io.read_image(path).data).all()
        else:
            io.read_transform(path)
    except RegistrationError as error:
        assert "\n" not in str(error) and str(error).endswith("."), str(error)
        return "sentence"
    return "read"


def main(folder: Path, count: int, seed: int, names: tuple[str, ...] = NAMES) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    write_originals(folder)
    for name in names:
        assert read(folder / name) == "read", name
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_MB * 2**20,) * 2)
    chance, ends, slowest = random.Random(seed), Counter(), 0.0
    for number in range(count):
        name = names[number % len(names)]
        path = folder / f"mutant_{name}" if name[0] not in "ap" else folder / f"{name[0]}_mutant{name[1:]}"
        path.write_bytes(mutated((folder / name).read_bytes(), chance))
        started = time.perf_counter()
        print(number, path.name, file=sys.stderr, flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        ends[read(path)] += 1
        signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} files: {dict(sorted(ends.items()))}, slowest {slowest:.2f} s, peak {peak:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *[tuple(n.split(",")) for n in sys.argv[4:]])
