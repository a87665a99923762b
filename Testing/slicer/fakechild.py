"""Plays `neuralreg serve` in tests of the panel: same lines, same files, no torch.

`{"hidden": N}` of the job chooses the play: see PLAYS. It honours the `cancel` and `stop` files and ends with its
caller, as the command line does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from neuralreg.inbox import Inbox
from neuralreg.job import (
    CANCEL,
    INVERSE,
    JACOBIAN,
    RESULT,
    STOP,
    TRANSFORM,
    WARPED,
    Progress,
    RegistrationJob,
    Result,
)

NAMES = ("quick", "endless", "crash", "killed", "sentence", "no result", "with a child", "full disk")
PLAYS = dict(enumerate(NAMES, 1))
STEPS = 20


def command(inbox: Path) -> list[str]:
    """What a Worker runs to have this file as its child."""
    return [sys.executable, __file__, str(inbox), str(os.getpid())]


def say(**values):
    print(Progress(**values).to_line(), flush=True)


def main() -> int:
    say(stage="ready", fraction=0.0, message="cpu: Running on the CPU, because this is a test.", calibration=0.0152)
    inbox = Inbox(Path(sys.argv[1]), int(sys.argv[2]))
    path = inbox.wait()
    if path is None:
        return 0
    job = RegistrationJob.load(path)
    play = PLAYS.get(job.options.get("hidden", 1), "quick")
    output = Path(job.output)
    if play == "sentence":
        print(f"neuralreg: {job.fixed} and {job.moving} have nothing in common; choose others.", file=sys.stderr)
        return 2
    if play == "full disk":
        print(f"neuralreg: The disk of {output} is full; free some space.", file=sys.stderr)
        return 2
    if play == "with a child":
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (output / "grandchild.part").write_text(str(grandchild.pid))
        (output / "grandchild.part").replace(output / "grandchild")
    return optimise(job, output, play, inbox)


def optimise(job, output: Path, play: str, inbox: Inbox) -> int:
    step, endless = 0, play in ("endless", "with a child")
    while step < STEPS or endless:
        if (output / CANCEL).exists() or inbox.abandoned():
            return 130
        if (output / STOP).exists():
            break
        preview = None
        if step % STEPS == 2:
            shutil.copyfile(Path(job.fixed), output / "whole.nrrd")
            (output / "whole.nrrd").replace(output / "preview.nrrd")
            preview = "preview.nrrd"
        say(
            stage="affine" if step < 4 else "deformable",
            fraction=min(step / STEPS, 0.95),
            preview=preview,
            loss=None if step < 4 else -1 + 1 / (step + 1),
            seconds_left=5.0,
        )
        if play == "crash" and step == 5:
            raise RuntimeError("a bug")
        if play == "killed" and step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        if endless:
            time.sleep(0.02)
        step += 1
    if play != "no result":
        write(job, output, stopped=(output / STOP).exists())
    say(stage="done", fraction=1.0)
    return 0


def write(job, output: Path, stopped: bool) -> None:
    """The moving volume where it lies, an identity transform, a Jacobian of 1."""
    import SimpleITK as sitk

    sys.path.append(str(Path(__file__).parent))  # which the panel's children do not look into by themselves
    from plainfile import write_transform

    fixed, moving = sitk.ReadImage(job.fixed), sitk.ReadImage(job.moving)
    shift = sitk.AffineTransform(3)
    shift.SetTranslation((0.5, 0.0, 0.0))
    for name in (TRANSFORM, INVERSE):
        write_transform(shift, output / name)
    sitk.WriteImage(sitk.Resample(moving, fixed), str(output / WARPED))
    sitk.WriteImage(sitk.Cast(fixed, sitk.sitkFloat32) * 0 + 1, str(output / JACOBIAN))
    Result(
        files={}, metrics=METRICS, timings={"affine": 0.1, "total": 1.2}, peak_memory_mb=100.0, device="cpu",
        device_reason="a test", method=job.method, options=job.options, similarity="lncc", seed=0, versions={},
        stopped_early=stopped, warnings=[f"The mask {job.fixed_mask} is small."] if job.fixed_mask else [],
    ).save(output / RESULT)  # fmt: skip


METRICS = {
    "mutual_information_before": 0.41,
    "mutual_information_after": 0.93,
    "folds_percent": 0.0,
    "non_diffeomorphic_volume_percent": 0.0,
    "inverse_consistency_mean_mm": 0.02,
    "inverse_consistency_max_mm": 0.4,
    "jacobian_min": 0.41,
    "jacobian_max": 1.9,
    "displacement_mean_mm": 2.4,
    "displacement_max_mm": 8.7,
    "largest_voxel_mm": 1.5,
}

if __name__ == "__main__":
    raise SystemExit(main())
