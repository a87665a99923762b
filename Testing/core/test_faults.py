"""Faults of the computer and of other people's files, in processes of their own: outputs are whole or absent."""

import json
import os
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from child import PATIENCE, python, start
from geometry import grid_of, image_on
from neuralreg import io, workspace
from neuralreg.image import Grid, Image
from neuralreg.job import RegistrationError, RegistrationJob
from neuralreg.phantom import make_phantom
from neuralreg.portable import load_job, portable
from neuralreg.workspace import RUN_FILES

posix = pytest.mark.skipif(sys.platform == "win32", reason="limits, signals and file modes are POSIX")
OPTIONS = {"image_factors": [1], "velocity_factors": [2], "iterations": [4], "windows": [5], "strides": [1]}
WORDS = [word for name, (value,) in OPTIONS.items() for word in ("--option", f"{name}={value}")]
QUICK = ("--threads", "1", "--affine", "none", *WORDS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A folder with a phantom's two images; its name has spaces and letters of three alphabets."""
    folder = tmp_path_factory.mktemp("faults") / "Frau Müller – 検査 д"
    folder.mkdir()
    phantom = make_phantom(Grid.from_parts((24, 24, 24), (-70, -80, -60), (6.0, 6.6, 5.2)), noise=2.0)
    io.write_image(phantom.fixed, folder / "fixed image.nii.gz")
    io.write_image(phantom.moving, folder / "moving image.nrrd")
    return folder


def inputs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


FULL = """
import resource, sys
from neuralreg import cli, overlap
write = overlap.Writer.write
def limited(*arguments, **settings):  # only what the run writes itself meets the full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    return write(*arguments, **settings)
overlap.Writer.write = limited
sys.exit(cli.main(sys.argv[2:]))
"""


@posix
@pytest.mark.parametrize("room", [0, 2_000, 30_000, 120_000])
def test_disk_that_is_full_after_some_bytes(pair, room):
    before = inputs(pair)
    arguments = ("register", "fixed image.nii.gz", "moving image.nrrd", "-o", "out", "--progress", "none", *QUICK)
    done = python(FULL, room, *arguments, cwd=pair)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("neuralreg: ") and done.stderr.strip().count("\n") == 0
    assert inputs(pair) == before


@posix
def test_two_processes_into_one_folder(pair):
    """One gets the folder, the other a sentence; what is there in the end is one whole result."""
    arguments = ("register", "fixed image.nii.gz", "moving image.nrrd", "-o", "shared", "--progress", "json", *QUICK)
    with start(*arguments, cwd=pair) as first:
        for line in first.stdout:
            if '"loss"' in line:
                break
        first.send_signal(signal.SIGSTOP)  # in the middle of its work, however fast it is
        try:
            with start(*arguments, "--overwrite", cwd=pair) as second:
                _, said = second.communicate(timeout=PATIENCE)
        finally:
            first.send_signal(signal.SIGCONT)
        assert second.returncode == 2 and "Another run is writing" in said
        first.stdout.read()
        assert first.wait(PATIENCE) == 0
    assert sorted(p.name for p in (pair / "shared").iterdir()) == sorted(RUN_FILES)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_output(pair, tmp_path):
    (tmp_path / "sealed").mkdir(mode=0o500)
    arguments = ("register", "fixed image.nii.gz", "moving image.nrrd", "-o", tmp_path / "sealed" / "new", *QUICK)
    with start(*arguments, cwd=pair) as child:
        _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 2 and "choose another one" in said


@posix
def test_links_are_followed_and_never_replaced_by_accident(pair, tmp_path, monkeypatch):
    """Inputs and the output folder may be links; a link among the outputs is replaced, what it names stays."""
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    (tmp_path / "fixed.nii.gz").symlink_to(pair / "fixed image.nii.gz")
    treasure = tmp_path / "treasure.h5"
    treasure.write_text("mine")
    (tmp_path / "real" / "transform.h5").symlink_to(treasure)
    arguments = ("register", "fixed.nii.gz", pair / "moving image.nrrd", "-o", "out", "--overwrite", *QUICK)
    with start(*arguments, cwd=tmp_path) as child:
        _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, said
    assert treasure.read_text() == "mine" and not (tmp_path / "real" / "transform.h5").is_symlink()
    assert sorted(p.name for p in (tmp_path / "real").iterdir()) == sorted(RUN_FILES)
    (tmp_path / "deep" / "down").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "down")
    job = RegistrationJob("fixed.nii.gz", "moving.nrrd", "link")
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / "link" / portable(job).fixed).resolve() == (tmp_path / "fixed.nii.gz").resolve()


@posix
def test_a_link_to_itself_gets_a_sentence(pair, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for moving, output in (("loop", "out"), (pair / "moving image.nrrd", "loop")):
        with start("register", pair / "fixed image.nii.gz", moving, "-o", output, *QUICK, cwd=tmp_path) as child:
            _, said = child.communicate(timeout=PATIENCE)
        assert child.returncode == 2 and said.count("\n") == 1 and "loop" in said


@posix
def test_a_link_among_the_inputs_stays_as_it_was_named(tmp_path, monkeypatch):
    """A study whose data are links to a store can be moved, with its results, where the way to the store is another."""
    for folder in ("store/images", "study/data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "study" / "data" / "images").symlink_to(tmp_path / "store" / "images")
    monkeypatch.chdir(tmp_path / "study")
    stored = portable(RegistrationJob("data/images/fixed.nii.gz", "data/images/moving.nii.gz", "out"))
    assert stored.fixed == "../data/images/fixed.nii.gz"


FOREIGN = [
    {"fixed": "$(touch pwned).nii"},
    {"fixed": "a.nii; touch pwned"},
    {"fixed": "http://example.org/scan.nii.gz"},
    {"fixed": "/dev/zero"},
    {"fixed": "a\0b.nii"},
    {"output": "/proc/nowhere"},
    {"output": "o" * 300},
    {"output": "\ud800"},
    {"fixed": "f" * 300},
    {"initial_transform": "t" * 300},
    {"initial_transform": "/etc/passwd"},
    {"fixed_mask": ".."},
    {"method": "__import__('os').system('touch pwned')"},
    {"options": {"networks": ["__class__"]}},
    {"options": {"iterations": [10**30]}},
    {"options": {"model": "../../../etc/passwd"}, "method": "VoxelMorph"},
    {"seed": 1e400},
]


@posix
@pytest.mark.parametrize("changes", FOREIGN, ids=lambda c: next(iter(c.values())).__repr__()[:24])
def test_job_from_somebody_else_runs_no_code(pair, tmp_path, changes, capsys, monkeypatch):
    """Whatever it says: a sentence and code 2, nothing executed, nothing written outside, no wait."""
    from neuralreg import cli

    job = {"fixed": str(pair / "fixed image.nii.gz"), "moving": str(pair / "moving image.nrrd"), "output": "out"}
    job |= {"affine": "none", "options": OPTIONS, **changes}
    (tmp_path / "job.json").write_text(json.dumps(job))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "job.json"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("neuralreg: ") and said.count("\n") == 0
    assert inputs(tmp_path) == ["job.json"]


@posix
@pytest.mark.parametrize("arguments", [("-o", "o" * 300), ("-o", "out", "--fixed-mask", "m" * 300)])
def test_names_that_are_too_long(pair, arguments, capsys, monkeypatch):
    from neuralreg import cli

    monkeypatch.chdir(pair)
    before = inputs(pair)
    assert cli.main(["register", "fixed image.nii.gz", "moving image.nrrd", *arguments]) == 2
    said = capsys.readouterr().err
    assert "too long" in said.lower() and said.count("\n") == 1 and inputs(pair) == before


def test_a_job_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "job.json").write_text('{"fixed": "f.nii", "moving": "m.nii", "output": "."}', encoding="utf-8-sig")
    assert load_job(tmp_path / "job.json").output == str(tmp_path)


def test_relative_paths_of_a_job_stay_beside_it(tmp_path):
    (tmp_path / "job.json").write_text('{"fixed": "f.nii", "moving": "m.nii", "output": "."}')
    assert Path(load_job(tmp_path / "job.json").fixed) == tmp_path / "f.nii"
    assert load_job(tmp_path) == load_job(tmp_path / "job.json"), "a run may be named by its folder, as everywhere"


# Privacy --------------------------------------------------------------------------------------------------------------


@posix
def test_nothing_of_the_patient_beyond_what_was_named(pair, tmp_path):
    """Logs, file names and results: no header text of the scans, no folder, no user, no host beyond the user's own."""
    import SimpleITK as sitk

    for name in ("fixed", "moving"):
        volume = io.to_sitk(image_on(grid_of("LPS", (16, 16, 16)), len(name)))
        volume.SetMetaData("PatientName", "DOE^JANE")
        volume.SetMetaData("0010|0010", "DOE^JANE")
        sitk.WriteImage(volume, str(tmp_path / f"{name}.nrrd"))
    assert b"DOE^JANE" in (tmp_path / "fixed.nrrd").read_bytes()
    arguments = ("register", "fixed.nrrd", "moving.nrrd", "-o", "out", "--progress", "json", *QUICK)
    with start(*arguments, cwd=tmp_path) as child:
        out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, err
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    texts = "".join((tmp_path / "out" / name).read_text() for name in ("result.json", "job.json"))
    for secret in ("DOE", str(tmp_path), os.uname().nodename):
        assert secret not in out + err + texts
    assert b"DOE^JANE" not in written and str(tmp_path).encode() not in written


@posix
def test_temporary_folders_are_private_and_removed(tmp_path, monkeypatch):
    """Where a scan must be read under another name, nobody else can look and nothing stays."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    modes, make = [], os.mkdir
    monkeypatch.setattr(
        os, "mkdir", lambda path, mode=0o777, **given: (modes.append(mode), make(path, mode, **given))[1]
    )
    for ending in (".nii", ".nii.gz"):
        io.write_image(image_on(grid_of("LPS")), tmp_path / f"scan{ending}")
    io.read_image(tmp_path / "scan.nii.gz")
    assert modes == [0o700] and inputs(temporary) == []
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(RegistrationError):
        io.read_image(tmp_path / "scan.nii.gz")
    assert inputs(temporary) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on memory is Linux's")
@pytest.mark.parametrize("room_mb", [100, 300])
def test_a_volume_that_does_not_fit_into_memory_is_not_called_damaged(tmp_path, room_mb):
    """250 MB, which ITK's NIfTI reader holds twice: the first time and the second one end in words of their own."""
    import resource

    io.write_image(image_on(grid_of("LPS")), tmp_path / "a.nii", np.uint8)
    data = bytearray((tmp_path / "a.nii").read_bytes()[:352])
    struct.pack_into("<8h", data, 40, 3, 1000, 500, 500, 1, 1, 1, 1)
    (tmp_path / "a.nii").write_bytes(data)
    os.truncate(tmp_path / "a.nii", 352 + 250_000_000)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + room_mb * 1_000_000, before[1]))
    try:
        with pytest.raises(RegistrationError, match="does not fit into memory"):
            io.read_image(tmp_path / "a.nii")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", ["huge", "tiny", "negative", "one bright voxel", "almost flat"])
def test_odd_intensities_give_a_finite_result_or_a_sentence(values):
    from neuralreg import pipeline

    grid, random = Grid.from_parts((20, 20, 20)), torch.Generator().manual_seed(0)
    data = torch.zeros(1, *grid.shape)
    data[0, 5:15, 5:15, 5:15] = torch.rand(10, 10, 10, generator=random)
    data = {"huge": data * 3e37, "tiny": data * 1e-30, "negative": data - 1e4, "almost flat": 1 + 1e-6 * data}.get(
        values, data
    )
    if values == "one bright voxel":
        data[0, 9, 9, 9] = 1e9
    moving = Image(data.roll(1, -1), grid)
    for similarity in ("lncc", "nmi", "mind", "local_gradient", "mse", "ncc", "mi"):
        try:
            found = pipeline.register(
                Image(data, grid), moving, affine="none", threads=1, similarity=similarity, options=OPTIONS
            )
        except RegistrationError as error:
            assert str(error).endswith(".")
            continue
        assert np.isfinite([value for _, _, value in found.loss]).all()
        assert torch.isfinite(found.warped.data).all() and torch.isfinite(found.jacobian.data).all()


@pytest.mark.parametrize("step", ["_lock", "_is_open_at", "check_output"])
def test_a_signal_while_the_folder_is_claimed_leaves_nothing(step, tmp_path, monkeypatch):
    usual, struck = getattr(workspace, step), []

    def once(*arguments):
        if not struck:
            struck.append(step)
            raise KeyboardInterrupt
        return usual(*arguments)

    monkeypatch.setattr(workspace, step, once)
    with pytest.raises(KeyboardInterrupt), workspace.workspace(tmp_path / "new" / "run"):
        pytest.fail("the folder was given out")
    assert struck and not list(tmp_path.iterdir())
