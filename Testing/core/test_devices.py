"""A GPU that is there and does not work, or runs out of memory: the run goes on, and says why and what would help."""

import pytest
import torch
from neuralreg import calibration, devices, pipeline
from neuralreg.devices import choose_device
from neuralreg.image import Grid
from neuralreg.job import Monitor, RegistrationError
from neuralreg.methods.dnvf import DNVF
from neuralreg.phantom import make_phantom

FAULTS = {
    "too old": (
        RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might"),
        "install a PyTorch that was built for this GPU",
    ),
    "driver": (
        RuntimeError("CUDA driver version is insufficient for CUDA runtime version"),
        "update the graphics driver",
    ),
    "unable": (
        NotImplementedError("The operator 'aten::grid_sampler_3d' is not currently implemented for the MPS device."),
        "install a newer PyTorch",
    ),
    "full": (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."), "close other programs"),
}


@pytest.fixture
def gpu(monkeypatch):
    """A computer with a GPU whose first kernel ends in an error."""

    def with_fault(error):
        def ones(*shape, device=None):
            raise error

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old Card 6")
        monkeypatch.setattr(devices.torch, "ones", ones)

    return with_fault


@pytest.mark.parametrize("fault", FAULTS)
def test_a_gpu_that_does_not_work_is_left_alone(gpu, fault):
    error, remedy = FAULTS[fault]
    gpu(error)
    device, reason = choose_device("auto")
    assert device == "cpu" and "Old Card 6 does not work" in reason and remedy in reason and "\n" not in reason
    with pytest.raises(RegistrationError, match=remedy) as raised:
        choose_device("cuda")
    assert str(raised.value).endswith("choose the device cpu.")


def test_wrong_numbers_are_a_fault_too(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tired Card")
    monkeypatch.setattr(devices.torch, "ones", lambda *shape, device: torch.full(shape, 2.0))
    assert choose_device("auto")[0] == "cpu" and "wrong results" in choose_device("auto")[1]


def test_a_gpu_that_computes_is_used(monkeypatch):
    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Good Card")
    monkeypatch.setattr(devices.torch, "ones", lambda *shape, device: ones(*shape))
    assert choose_device("auto") == ("cuda", "Good Card was found.")


class Forgetful:
    """A method that runs out of memory wherever it is not on the CPU."""

    def __init__(self, options, error):
        self.devices, self.method, self.error = [], DNVF(**options), error

    def __call__(self, pair, similarity, device, monitor):
        self.devices.append(device)
        if device != "cpu":
            raise self.error
        return self.method(pair, similarity, device, monitor)


FULL = (
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.13 GB)."),
)


@pytest.mark.parametrize("error", FULL)
def test_a_full_gpu_hands_over_to_the_cpu_and_says_so(error):
    phantom = make_phantom(Grid.from_parts((20, 22, 20), (-60, -70, -60), (7.0, 7.0, 7.0)), amplitude_mm=6.0)
    pair = pipeline.make_pair(phantom.fixed, phantom.moving, lambda p: p, phantom.fixed.grid)
    lists = {"image_factors": 1.0, "velocity_factors": 2.0, "iterations": 2, "windows": 5, "strides": 1}
    options = {name: (value,) for name, value in lists.items()}
    method, given = Forgetful(options, error), pipeline._Given(phantom.fixed, phantom.moving)
    fit, where, reason = pipeline._fit(method, pair, "lncc", "cuda", "found", 0, given)
    assert method.devices == ["cuda", "cpu"] and where == "cpu" and "ran out of memory" in reason
    assert len(given.warnings) == 1 and "too little free memory" in given.warnings[0] and fit.chain.forward is not None
    alone, _, _ = pipeline._fit(DNVF(**options), pair, "lncc", "cpu", "asked for", 0, given)
    assert torch.equal(alone.chain.forward, fit.chain.forward)  # the failed try leaves no trace in the result
    method.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"):
        pipeline._fit(method, pair, "lncc", "cuda", "found", 0, given)


def test_previews_are_copied_only_for_those_who_look():
    class Blind(Monitor):
        pass

    class Looking(Monitor):
        seen = None

        def preview(self, warped):
            self.seen = warped

    class NeverCopied:
        shape = (1, 1, 4, 4, 4)

        def __getitem__(self, index):
            raise AssertionError("copied for nobody")

    grid = Grid((4, 4, 4), torch.eye(4).double().numpy())
    pipeline._Deformable(Blind(), grid).preview(NeverCopied())
    looking = Looking()
    pipeline._Deformable(looking, grid).preview(torch.zeros(1, 1, 4, 4, 4))
    assert looking.seen.data.shape == (1, 4, 4, 4)


@pytest.mark.parametrize("gpu", [True, False])
def test_a_device_that_does_not_exist_is_no_gpu(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(devices, "_fault", lambda name: None)
    monkeypatch.setattr(devices, "_title", lambda name: "A GPU")
    assert choose_device("CPU")[0] == "cpu"
    for name in ("gpu", "cpuu", "cuda:1"):  # the last is for a training only
        with pytest.raises(RegistrationError, match=f'Unknown device "{name}"'):
            choose_device(name)


def test_the_computer_is_timed_on_one_thread_and_keeps_its_threads(monkeypatch):
    assert calibration.calibrate() > 0
    threads, times = torch.get_num_threads(), iter([3.0, 1.0, *[2.0] * calibration.REPEATS])

    def timed(*_):
        assert torch.get_num_threads() == 1
        return next(times)

    monkeypatch.setattr(calibration, "_seconds", timed)
    torch.set_num_threads(3)
    try:
        assert calibration.calibrate() == 1.0 and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
