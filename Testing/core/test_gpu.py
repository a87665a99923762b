"""The way over a GPU, on a simulated one: the answer is the CPU's, and no operation mixes devices."""

import neuralreg
import pytest
import torch
from geometry import tilted_grid
from neuralreg import pipeline, train
from neuralreg.image import Image
from neuralreg.job import SIMILARITIES, Monitor
from neuralreg.methods import METHODS
from neuralreg.phantom import make_phantom
from neuralreg.training import crew, data
from neuralreg.training.objective import Objective
from simulated_gpu import DEVICE, FarTensor, SimulatedGpu
from training_setup import config

STAGES = {
    "iterations": (5, 5),
    "image_factors": (2.0, 1.0),
    "velocity_factors": (2.0, 2.0),
    "windows": (5, 5),
    "strides": (1, 2),
}
REFINED = {"refine": 4, "refine_spacing": 5.0}
OPTIONS = {"DNVF": STAGES, "Cas-DNVF": STAGES, "VoxelMorph": REFINED, "FNOReg": REFINED}


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(tilted_grid((24, 26, 20), (7.0, 7.2, 7.6)), amplitude_mm=10.0, noise=2.0)


def register(phantom, name="DNVF", gpu=None, monkeypatch=None, **settings):
    """On the CPU, or on a simulated GPU."""
    settings = {"affine": "none", "threads": 1, "options": OPTIONS[name], **settings}
    if gpu is None:
        return pipeline.register(phantom.fixed, phantom.moving, name, device="cpu", **settings)
    with monkeypatch.context() as patched, gpu:
        patched.setattr(pipeline, "choose_device", lambda wanted: (str(DEVICE), "It is simulated."))
        return pipeline.register(phantom.fixed, phantom.moving, name, **settings)


def difference_mm(one, other) -> float:
    points = one.grid.points().reshape(3, -1)
    return float((one.transform(points) - other.transform(points)).norm(dim=0).max())


@pytest.mark.parametrize("name", [name for name in METHODS if name != "Linear"])
def test_every_method_gives_the_answer_of_the_cpu(phantom, monkeypatch, name):
    gpu = SimulatedGpu()
    there, here = register(phantom, name, gpu, monkeypatch), register(phantom, name)
    assert there.device == str(DEVICE) and there.warnings == here.warnings
    assert gpu.calls > 500 and gpu.peak > 1e5, "nothing was computed there"
    assert difference_mm(there, here) < 0.03  # sums of other slabs
    assert torch.float64 not in gpu.types, "many GPUs are slow at float64, Apple's have none"
    assert not any(isinstance(t, FarTensor) for t in (there.warped.data, there.jacobian.data))


@pytest.mark.parametrize("similarity", [name for name in SIMILARITIES if name != "auto"])
def test_every_similarity_with_masks_and_landmarks(phantom, monkeypatch, similarity):
    def mask(image: Image) -> Image:
        inside = torch.zeros(1, *image.grid.shape)
        inside[:, 2:-2, 2:-2, 3:-3] = 1.0
        return Image(inside, image.grid)

    settings = {
        "similarity": similarity,
        "fixed_mask": mask(phantom.fixed),
        "moving_mask": mask(phantom.moving),
        "landmarks": phantom.landmarks(5),
        "options": {**STAGES, "folding": 1.0, "bending": 1.0, "iterations": (2, 2)},
    }
    there = register(phantom, gpu=SimulatedGpu(), monkeypatch=monkeypatch, **settings)
    assert difference_mm(there, register(phantom, **settings)) < 1e-2


def test_the_gpu_is_not_kept_waiting_at_every_iteration(phantom, monkeypatch):
    """An iteration is some hundred small kernels, which it queues while the host goes on."""

    def waits(iterations: int) -> int:
        gpu = SimulatedGpu()
        options = {**STAGES, "iterations": (iterations, iterations)}
        register(phantom, gpu=gpu, monkeypatch=monkeypatch, options=options)
        return gpu.waits

    few, many = waits(5), waits(25)
    assert many - few <= 2 * 20 / 5 * 3  # two stages, one look in five iterations


@pytest.mark.parametrize("name", [name for name in METHODS if name != "Linear"])
def test_a_full_gpu_is_left_empty(phantom, monkeypatch, name):
    """The CPU takes over with the same answer, and what the failed try held is free for others."""

    class Watch(Monitor):
        held = None

        def check(self) -> None:
            if gpu.full:
                self.held = gpu.held

    gpu, watch = SimulatedGpu(memory=1.5e5), Watch()
    there = register(phantom, name, gpu, monkeypatch, monitor=watch)
    assert there.device == "cpu" and any("too little free memory" in warning for warning in there.warnings)
    assert watch.held == 0
    assert difference_mm(there, register(phantom, name)) == 0


TRAININGS = {
    "unsupervised": {},
    "supervised": {"known": 1.0, "objective": Objective({"known": 1.0}, squarings=4)},
    "labels": {"labels": (1,), "objective": Objective({"dice": 1.0, "lncc": 0.5}, squarings=4)},
    "painted": {"painted": 1.0},
    "FNOReg": {"method": "FNOReg", "network": {"modes": (4, 4, 4), "width": 8, "layers": 1}},
}


@pytest.mark.parametrize("kind", TRAININGS)
def test_training_learns_what_it_learns_on_the_cpu(pack, tmp_path, monkeypatch, kind):
    def trained() -> tuple[list[float], torch.Tensor]:
        """What two iterations and the validation say, and the gradient of the first iteration."""
        trainer = train.trainer_of(config(pack, tmp_path, **TRAININGS[kind]), data.Pack.load(pack))
        first = sum(trainer.step().values())
        gradient = torch.cat([p.grad.cpu().flatten() for p in trainer.network.parameters()])
        return [first, sum(trainer.step().values()), *trainer.validate().values()], gradient

    values, gradient = trained()
    monkeypatch.setattr(crew, "choose_device", lambda wanted: (str(DEVICE), "It is simulated."))
    with SimulatedGpu() as gpu:
        values_there, gradient_there = trained()
    assert values_there == pytest.approx(values, abs=1e-4)
    assert (gradient_there - gradient).norm() < 1e-3 * gradient.norm()
    assert gpu.calls > 100 and torch.float64 not in gpu.types


def test_volumes_and_masks_may_lie_on_a_gpu(phantom):
    """A caller's tensors may be anywhere; files, measurements and the affine stage want them on the processor."""
    mask = Image((phantom.fixed_labels.data > 0).float(), phantom.fixed.grid)

    def found(place):
        fixed, moving, inside = (Image(place(i.data), i.grid) for i in (phantom.fixed, phantom.moving, mask))
        return neuralreg.register(fixed, moving, fixed_mask=inside, device="cpu", threads=1, options=STAGES)

    here = found(lambda data: data)
    with SimulatedGpu():
        there = found(lambda data: data.to(DEVICE))
    assert torch.equal(there.warped.data, here.warped.data) and there.metrics == here.metrics
