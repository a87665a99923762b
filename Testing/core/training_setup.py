"""Five small subjects, the pack of them, and the settings of a training that takes seconds."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from neuralreg.training.augment import Augmentation
from neuralreg.training.config import TrainingConfig
from neuralreg.training.loop import Schedule
from neuralreg.training.objective import Objective
from neuralreg.training.packing import Packing, build_pack, find_subjects, save_pack

SMALL = {"size": "voxelmorph-1", "half_resolution": True, "width": 0.5}
STILL = Augmentation((0.0,) * 3, *[0.0] * 10)  # no view differs from the subject itself


class Executed:
    """A pickle that would make an empty file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def blob(seed: int, n: int = 20) -> np.ndarray:
    """A lumpy bright ball with an inner one, as (n, n, n) in 0 … 200."""
    generator = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n)] * 3, indexing="ij")
    shift = generator.normal(0, 0.08, 3)
    radius = np.sqrt((x - shift[0]) ** 2 + (y - shift[1]) ** 2 * 1.1 + (z - shift[2]) ** 2)
    bumps = 0.1 * np.sin(4 * x + seed) * np.cos(3 * y)
    return 120.0 * (radius + bumps < 0.75) + 80.0 * (radius - bumps < 0.4)


def write_subjects(folder: Path, count: int = 5) -> None:
    """Images with masks as label maps, 20³ voxels of 2 mm."""
    for number in range(count):
        volumes = {"T1w": blob(number).astype(np.float32), "labels": (blob(number) > 100).astype(np.uint8)}
        for name, values in volumes.items():
            image = sitk.GetImageFromArray(values)
            image.SetSpacing((2.0, 2.0, 2.0))
            sitk.WriteImage(image, str(folder / f"s{number}_{name}.nii.gz"))


def pack_of(table: Path, path: Path) -> Path:
    """The pack of a folder or a table of subjects, on voxels of 2 mm, as they lie."""
    save_pack(path, build_pack(find_subjects(table), Packing(2.0, align=False), lambda text: None))
    return path


def config(pack, output, **changes) -> TrainingConfig:
    values = {
        "data": str(pack),
        "output": str(output),
        "network": SMALL,
        "spacing": 2.0,
        "lattice": (17, 17, 17),
        "objective": Objective({"lncc": 1.0, "smoothness": 0.1}, {"lncc": {"window": 3}}, scales=1, squarings=4),
        "schedule": Schedule(iterations=6, validate_every=3, warmup=1, checkpoint_minutes=0.0),
        "validation_subjects": 2,
        "validation_pairs": 1,
    }
    return TrainingConfig(**values | changes)
