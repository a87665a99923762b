"""A registration that knows its answer and a writer that never ends: runs are tested with them, files to files."""

import threading

import torch
from geometry import grid_of, transform_on
from neuralreg.image import Image, resample
from neuralreg.job import Progress
from neuralreg.pipeline import Registration

FIXED, MOVING = grid_of("RAS", (12, 11, 10)), grid_of("oblique, left-handed", (10, 12, 11))
PATIENCE = 30.0  # seconds after which a test gives up waiting


def stand_in(fixed, moving, method, *, options, monitor, device, ready, **settings) -> Registration:
    """A registration that knows its answer, asks the monitor as the real one does, and does as `options` say."""
    for step in range(4):
        monitor.check()
        monitor.report(Progress("deformable", step / 4, loss=-0.1 * step))
        monitor.preview(moving)
        if step == options.get("fail_at"):
            raise options["error"]
        if monitor.stop_and_keep():
            break
    transform = transform_on(fixed.grid)
    warped = resample(moving, transform, fixed.grid)
    ones = Image(torch.ones(1, *fixed.grid.shape), fixed.grid)
    outputs = {"transform": transform, "inverse": transform.inverse(), "warped": warped, "jacobian": ones}
    for name, value in outputs.items():
        ready(name, value)
    return Registration(
        *outputs.values(), {"ncc_after": 0.9}, {"affine": 0.1}, [[0, 0, -0.1]], ["a note"],
        "cpu", "no GPU", "lncc", {"given": sorted(settings)}, fixed.grid, step < 3,
    )  # fmt: skip


def left(tmp_path) -> list[str]:
    """What a run left beside its inputs, hidden files included."""
    return sorted(p.name for p in tmp_path.iterdir() if p.name not in ("f.nii.gz", "m.nrrd"))


class Endless:
    """Stands for a writer of images that takes until it is ended."""

    def __init__(self):
        self.begun, self.ended = threading.Event(), threading.Event()

    def __call__(self, image, path, watch):
        self.begun.set()
        try:
            for _ in range(int(PATIENCE / 0.01)):
                watch(0.5)
                self.ended.wait(0.01)
        finally:
            self.ended.set()
