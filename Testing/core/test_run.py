"""A run leaves a whole result or none. The registration itself is a stand-in here; test_cli has the real one."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from geometry import image_on, points_in, transform_on
from neuralreg import io, pipeline, workspace
from neuralreg import run as run_module
from neuralreg.files import checksum
from neuralreg.image import Image
from neuralreg.job import RESULT, Cancelled, RegistrationError, RegistrationJob, Result
from neuralreg.usage import peak_memory_mb
from neuralreg.workspace import RUN_FILES
from stand_in import FIXED, MOVING, left, stand_in


def test_whole_result(job, tmp_path):
    result = run_module.run(job())
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == sorted(RUN_FILES)
    assert Result.load(out / "result.json") == result
    assert all((out / name).exists() for name in result.files.values())
    assert result.warnings == ["a note"] and result.peak_memory_mb > 50
    assert {"read", "affine", "write", "total"} <= result.timings.keys()
    assert {"neuralreg", "python", "torch", "SimpleITK", "numpy"} <= result.versions.keys()
    points = points_in(FIXED)
    oracle = sitk.ReadTransform(str(out / "transform.h5"))
    expected = np.array([oracle.TransformPoint(p) for p in points.T.tolist()]).T
    np.testing.assert_allclose(transform_on(FIXED)(points), expected, atol=1e-4)
    assert io.read_grid(out / "warped.nii.gz").same_as(FIXED, 1e-3)
    assert (out / "jacobian.nii.gz").stat().st_mode & 0o044 == (out / "job.json").stat().st_mode & 0o044


def test_masks_transform_and_settings_reach_the_registration(job, tmp_path, monkeypatch):
    io.write_image(Image(torch.ones(1, *FIXED.shape), FIXED), tmp_path / "mask.nii")
    io.write_transform(transform_on(FIXED), tmp_path / "start.h5")
    seen = {}
    monkeypatch.setattr(pipeline, "register", lambda **given: seen.update(given) or stand_in(**given))
    run_module.run(
        job(
            fixed_mask=str(tmp_path / "mask.nii"),
            moving_mask=str(tmp_path / "mask.nii"),
            initial_transform=str(tmp_path / "start.h5"),
            preset="fast",
            similarity="mi",
            affine="rigid",
            seed=7,
            threads=1,
        )
    )
    assert seen["fixed_mask"].grid.same_as(FIXED) and seen["moving_mask"].grid.same_as(MOVING)
    points = points_in(FIXED)
    np.testing.assert_allclose(seen["initial_transform"](points), transform_on(FIXED)(points), atol=1e-4)
    assert [seen[n] for n in ("preset", "similarity", "affine", "seed", "threads")] == ["fast", "mi", "rigid", 7, 1]


def test_result_names_nothing_that_the_user_did_not(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_module.run(job(fixed="f.nii.gz", moving="m.nrrd", output="out"))
    for name in ("result.json", "job.json"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text()
    header = sitk.ReadImage(str(tmp_path / "out" / "warped.nii.gz"))
    assert all("m.nrrd" not in header.GetMetaData(key) for key in header.GetMetaDataKeys())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RegistrationError("The volumes do not overlap."),
    ],
)
def test_failure_is_a_sentence_and_leaves_nothing(job, tmp_path, error):
    with pytest.raises(RegistrationError) as raised:
        run_module.run(job(options={"fail_at": 2, "error": error}))
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled(), ZeroDivisionError("a bug")])
def test_interruption_and_bugs_leave_nothing_either(job, tmp_path, error):
    with pytest.raises(type(error)):
        run_module.run(job(options={"fail_at": 1, "error": error}))
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", RUN_FILES)
def test_disk_that_fills_up_at_any_file(job, tmp_path, monkeypatch, name):
    def full(original):
        def write(*arguments, **named):
            if any(str(a).endswith(name) for a in arguments):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **named)

        return write

    for module, function in ((io, "write_image"), (io, "write_transform"), (RegistrationJob, "save"), (Result, "save")):
        monkeypatch.setattr(module, function, full(getattr(module, function)))
    with pytest.raises(RegistrationError, match="is full"):
        run_module.run(job())
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", RUN_FILES)
def test_interruption_between_two_renames(job, tmp_path, monkeypatch, name):
    """Even then there is no folder that looks whole, with the result of an earlier run in it or not."""
    replace = type(tmp_path).replace

    def interrupted(path, target):
        if target.name == name and path.parent.name == workspace.PARTIAL:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_module.run(job())
    assert left(tmp_path) == []


@pytest.mark.parametrize("whole", [True, False])
def test_interruption_while_tidying_up(job, tmp_path, monkeypatch, whole):
    remove, struck = workspace.shutil.rmtree, []

    def interrupted(*arguments, **named):
        if not struck:
            struck.append(True)
            raise Cancelled
        remove(*arguments, **named)

    monkeypatch.setattr(workspace.shutil, "rmtree", interrupted)
    with pytest.raises(Cancelled):
        run_module.run(job(options={} if whole else {"fail_at": 1, "error": ZeroDivisionError("a bug")}))
    assert left(tmp_path) == (["out"] if whole else [])
    assert not whole or sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(RUN_FILES)


def test_output_that_must_not_be_used(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(RegistrationError, match=r"not empty \(it holds thesis.tex\).*--overwrite"):
        run_module.run(job())
    run_module.run(job(), overwrite=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"
    with pytest.raises(RegistrationError, match="not empty"):
        run_module.run(job())
    with pytest.raises(RegistrationError, match="is a file"):
        run_module.run(job(output=str(tmp_path / "f.nii.gz")))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_output_that_cannot_be_written(job, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    for output in (tmp_path / "locked", tmp_path / "locked" / "new"):
        with pytest.raises(RegistrationError, match="cannot be"):
            run_module.run(job(output=str(output)))


INPUTS = ("fixed", "moving", "fixed_mask", "moving_mask", "initial_transform", "fixed_landmarks", "moving_landmarks")


@pytest.mark.parametrize("which", INPUTS)
def test_an_input_that_may_not_be_read_is_not_taken_for_an_output(job, tmp_path, monkeypatch, which):
    """It lies in somebody else's folder, of which a user may not even know what it holds."""
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n")
    secret, stat = tmp_path / "secret" / "file", Path.stat

    def refused(path, **how):
        if path == secret.with_suffix(path.suffix):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", refused)
    landmarks = which.endswith("landmarks")
    given = dict.fromkeys(INPUTS[-2:], str(tmp_path / "points.csv")) if landmarks else {}
    with pytest.raises(RegistrationError, match=r"(You may not read|There is no) .*secret"):
        run_module.run(job(**given | {which: str(secret.with_suffix(".csv" if landmarks else ".h5"))}))
    assert not (tmp_path / "out").exists()


def test_overwriting_replaces_a_result_only_when_the_new_one_is_whole(job, tmp_path):
    run_module.run(job(seed=1))
    (tmp_path / "out" / "report.html").write_text("about seed 1")
    with pytest.raises(Cancelled):
        run_module.run(job(seed=2, options={"fail_at": 2, "error": Cancelled()}), overwrite=True)
    assert Result.load(tmp_path / "out" / "result.json").seed == 1
    assert (tmp_path / "out" / "report.html").exists()
    run_module.run(job(seed=3), overwrite=True)
    assert Result.load(tmp_path / "out" / "result.json").seed == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(RUN_FILES)


def test_two_runs_into_one_folder(job, tmp_path, monkeypatch):
    def second_run_meanwhile(**given):
        with pytest.raises(RegistrationError, match="Another run is writing"):
            run_module.run(job())
        return stand_in(**given)

    monkeypatch.setattr(pipeline, "register", second_run_meanwhile)
    run_module.run(job())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(RUN_FILES)


def test_what_a_killed_run_left_does_not_matter(job, tmp_path):
    partial = tmp_path / "out" / workspace.PARTIAL
    partial.mkdir(parents=True)
    (partial / "transform.h5").write_text("half of it")
    (partial / "lock").write_text("")
    run_module.run(job())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(RUN_FILES)


def test_temporary_folder_is_private_and_the_inputs_are_not_touched(job, tmp_path, monkeypatch):
    def look(**given):
        partial = tmp_path / "out" / workspace.PARTIAL
        if os.name != "nt":
            assert partial.stat().st_mode & 0o077 == 0
        assert [p.name for p in (tmp_path / "out").iterdir()] == [workspace.PARTIAL]
        return stand_in(**given)

    before = (tmp_path / "f.nii.gz").read_bytes()
    monkeypatch.setattr(pipeline, "register", look)
    run_module.run(job())
    assert (tmp_path / "f.nii.gz").read_bytes() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_sees_an_allocation():
    before = peak_memory_mb()
    block = np.ones(int(before * 1e6) // 8 + 10_000_000)
    assert peak_memory_mb() > before
    del block


def test_a_result_knows_its_inputs_by_what_they_hold(job, tmp_path):
    result = run_module.run(job())
    assert result.inputs == {
        "fixed": checksum(str(tmp_path / "f.nii.gz")),
        "moving": checksum(str(tmp_path / "m.nrrd")),
    }
    assert Result.load(tmp_path / "out" / RESULT).inputs == result.inputs and str(tmp_path) not in str(result.inputs)


@pytest.mark.parametrize("name", ["warped.nii.gz", "warped.nii.gz@0"])
def test_a_result_does_not_replace_what_it_is_made_of(job, tmp_path, name):
    """A second run from the warped volume of the first one, into the same folder."""
    run_module.run(job())
    io.write_image(image_on(FIXED), tmp_path / "out" / "warped.nii.gz")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(RegistrationError, match="is an input, which the result would replace"):
        run_module.run(job(moving=str(tmp_path / "out" / name)), overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert run_module.run(job(moving=str(tmp_path / "out" / name), output=str(tmp_path / "second")))


def test_what_lies_beside_an_input_by_chance_does_not_change_its_checksum(tmp_path):
    (tmp_path / "series").mkdir()
    for name in ("series/1", "a.hdr", "a.img"):
        (tmp_path / name).write_text(name)
    inputs = [str(tmp_path / name) for name in ("series", "a.hdr")]
    before = [checksum(name) for name in inputs]
    for name in ("series/.DS_Store", "series/Thumbs.db", "a.csv", "a.json"):
        (tmp_path / name).write_text(name)
    assert [checksum(name) for name in inputs] == before


def test_the_checksum_of_an_input_is_that_of_all_its_files(tmp_path):
    (tmp_path / "series").mkdir()
    for name in ("series/1", "series/2", "a.raw", "a.mhd", "b.raw", "c.nii", "d.nhdr", "d.raw.gz"):
        (tmp_path / name).write_text(name)
    inputs = [str(tmp_path / name) for name in ("series", "a.mhd", "c.nii", "d.nhdr", "c.nii@1")]
    before = [checksum(name) for name in inputs]
    assert before[2] == before[4] and len(set(before)) == 4 and all(before)
    for changed, name in enumerate(("series/2", "a.raw", "c.nii", "d.raw.gz")):
        (tmp_path / name).write_text("other")
        assert checksum(inputs[changed]) != before[changed]
    (tmp_path / "b.raw").write_text("other")
    assert checksum(inputs[1]) == checksum(inputs[1]) != checksum(str(tmp_path / "missing")) == ""
