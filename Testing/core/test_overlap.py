"""Both images of a pair are read at once, outputs are written while others are made, and nothing outlives the block."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from neuralreg import io, overlap
from neuralreg.image import Grid, Image
from neuralreg.job import Cancelled, RegistrationError
from neuralreg.overlap import OUTPUTS, Writer, read_both
from neuralreg.transform import Affine
from stand_in import PATIENCE, Endless

GRID = Grid.from_parts((12, 10, 9), (1.0, 2.0, 3.0), (1.0, 1.5, 2.0))


def volume(seed: int, broken: float | None = None) -> Image:
    data = torch.rand(1, *GRID.shape, generator=torch.Generator().manual_seed(seed))
    if broken is not None:
        data[0, 0, 0, 0] = broken
    return Image(data, GRID)


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Two images in which one voxel each is no number, so that there is something to say of both."""
    names = [str(tmp_path / name) for name in ("fixed.nii.gz", "moving.mha")]
    for seed, name in enumerate(names):
        io.write_image(volume(seed, float("nan")), name)
    return names


def meeting(monkeypatch, timeout: float) -> None:
    """Reading goes on only when two readers are there at the same time."""
    barrier, read = threading.Barrier(2), io.read_image

    def together(*arguments):
        barrier.wait(timeout)
        return read(*arguments)

    monkeypatch.setattr(io, "read_image", together)


def test_small_images_are_read_at_once(files, monkeypatch):
    meeting(monkeypatch, PATIENCE)
    said = []
    (fixed, mask), (moving, nothing) = read_both((files[0], files[0]), (files[1], None), said.append)
    assert torch.equal(fixed.data[0, 1:], volume(0).data[0, 1:]) and torch.equal(
        moving.data[0, 1:], volume(1).data[0, 1:]
    )
    assert fixed.grid.same_as(GRID) and nothing is None
    assert mask.data.max() == 1.0
    assert files[0] in said[0] and files[1] in said[1] and len(said) == 2


def test_large_images_are_read_one_after_the_other(files, monkeypatch):
    monkeypatch.setattr(overlap, "TOGETHER_BYTES", 0)
    meeting(monkeypatch, 0.3)
    with pytest.raises(threading.BrokenBarrierError):
        read_both((files[0], None), (files[1], None), lambda _: None)


def test_what_no_two_threads_may_read_is_read_one_after_the_other(tmp_path):
    """Two readers of HDF5, or of damaged NRRD files, would end the process without a word."""
    reading, most, lock = [], [], threading.Lock()

    def read(name, warn):
        with lock:
            reading.append(name)
            most.append(len(reading))
        time.sleep(0.02)
        reading.remove(name)
        return volume(0)

    plain = str(tmp_path / "a.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "read_image", read)
        patch.setattr(io, "read_mask", lambda name, grid, warn: read(name, warn))
        for ending in ("h5", "hdf5", "mnc", "nrrd", "dcm"):
            other = str(tmp_path / f"b.{ending}")
            for path in (plain, other):
                Path(path).touch()
            for pair in (
                ((other, None), (plain, None)),
                ((plain, None), (other, None)),
                ((plain, None), (plain, other)),
            ):
                read_both(*pair, lambda _: None)
    assert max(most) == 1


def test_of_two_wrong_files_the_fixed_one_is_named(tmp_path, files):
    absent = [str(tmp_path / name) for name in ("no fixed.nii", "no moving.nii")]
    with pytest.raises(RegistrationError, match=r"no fixed\.nii"):
        read_both((absent[0], None), (absent[1], None), lambda _: None)
    with pytest.raises(RegistrationError, match=r"no moving\.nii"):
        read_both((files[0], None), (absent[1], None), lambda _: None)


def test_what_is_written_beside_other_work_is_what_is_written_alone(tmp_path):
    values = {"transform": Affine(np.diag([1.0, 1.1, 0.9, 1.0])), "warped": volume(1), "jacobian": volume(2)}
    (tmp_path / "beside").mkdir()
    with Writer(tmp_path / "beside") as writer:
        for name, value in values.items():
            writer.write(name, value)
        shares = []
        writer.wait(shares.append)
    io.write_transform(values["transform"], tmp_path / OUTPUTS["transform"])
    io.write_image(values["warped"], tmp_path / OUTPUTS["warped"])
    io.write_image(values["jacobian"], tmp_path / OUTPUTS["jacobian"])
    for name in values:
        assert (tmp_path / "beside" / OUTPUTS[name]).read_bytes() == (tmp_path / OUTPUTS[name]).read_bytes()
    assert shares == sorted(shares) and 0 <= shares[0] <= shares[-1] < 1


@pytest.mark.parametrize("waiting", [True, False])
def test_nothing_is_written_any_more_once_the_block_is_left(tmp_path, monkeypatch, waiting):
    """Not even what was waiting for its turn: a cancelled run removes the folder next."""
    endless = Endless()
    monkeypatch.setattr(io, "write_image", endless)

    def cancel(share: float) -> None:
        raise Cancelled

    def be_cancelled() -> None:
        with Writer(tmp_path) as writer:
            writer.write("warped", volume(1))
            writer.write("transform", Affine.identity())
            assert endless.begun.wait(PATIENCE)
            if waiting:
                writer.wait(cancel)
            raise Cancelled

    with pytest.raises(Cancelled):
        be_cancelled()
    assert endless.ended.is_set() and list(tmp_path.iterdir()) == []


def test_a_signal_while_a_cancelled_run_waits_for_the_writing_does_not_leave_it_behind(tmp_path, monkeypatch):
    """The panel asks a run to end, and then ends its process."""
    endless, joined = Endless(), []
    monkeypatch.setattr(io, "write_image", endless)

    def be_cancelled() -> None:
        with Writer(tmp_path) as writer:
            shutdown = writer.pool.shutdown

            def interrupted(**how) -> None:
                joined.append(how)
                if len(joined) == 1:
                    writer.ended.clear()  # so far nobody has noticed
                    raise KeyboardInterrupt
                writer.ended.set()
                shutdown(**how)

            monkeypatch.setattr(writer.pool, "shutdown", interrupted)
            writer.write("warped", volume(1))
            assert endless.begun.wait(PATIENCE)
            raise Cancelled

    with pytest.raises(KeyboardInterrupt):
        be_cancelled()
    assert endless.ended.is_set()


def test_failures_of_the_writing_reach_the_caller(tmp_path):
    with Writer(tmp_path / "absent") as writer:
        writer.write("warped", volume(1))
        with pytest.raises(RegistrationError, match="no folder"):
            writer.wait(lambda _: None)
