"""Freed memory is kept for the next tensor, and given back at the end; threads that wait leave the processor."""

import os
import subprocess
import sys

import pytest
from child import CORE, python
from neuralreg import allocator
from neuralreg.cli import SPINS

PAGES = """
import resource, sys
import torch
from neuralreg.allocator import keep_memory, kept_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(20_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))

new_pages()
usual = new_pages()
with kept_memory():
    new_pages(), new_pages()  # the remainders that alignment leaves first fill the small bins
    kept, held = new_pages(), resident_mb()
given_back = held - resident_mb()
keep_memory()
new_pages(), new_pages()
print(usual, kept, given_back, new_pages())
"""


@pytest.mark.skipif(allocator._glibc() is None, reason="only glibc hands blocks back at once")
def test_tensors_within_take_no_new_pages(tmp_path):
    """In a process of its own: what the allocator has done before decides what it does next."""
    ran = python(PAGES, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    usual, kept, given_back, kept_for_good = map(float, ran.stdout.split())
    assert max(kept, kept_for_good) < usual / 20, "80 MB each time, ten times"
    assert given_back > 70


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert allocator._glibc() is None
    allocator.keep_memory()
    with allocator.kept_memory():
        pass


def test_an_error_within_ends_it_too(monkeypatch):
    class Recorder:
        calls = []

        def mallopt(self, name, value):
            self.calls.append((name, value))

        def malloc_trim(self, pad):
            self.calls.append("trim")

    monkeypatch.setattr(allocator, "_glibc", Recorder)
    with pytest.raises(ValueError), allocator.kept_memory():
        raise ValueError
    after = Recorder.calls[len(allocator.KEEPING) :]
    assert after == [*allocator.USUAL.items(), "trim"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have another OpenMP")
@pytest.mark.parametrize(("chosen", "heard"), [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"),
                                               ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")])  # fmt: skip
def test_waiting_threads_leave_the_processor_to_others(chosen, heard):
    """As OpenMP tells it when torch is imported; what the user has chosen counts."""
    ours = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = {**ours, "PYTHONPATH": str(CORE), "OMP_DISPLAY_ENV": "VERBOSE", **chosen}
    done = subprocess.run(
        [sys.executable, "-m", "neuralreg", "methods"], env=environment, capture_output=True, text=True
    )
    assert f"GOMP_SPINCOUNT = '{heard}'" in done.stderr, done.stderr
