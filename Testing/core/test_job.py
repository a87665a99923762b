"""The contract in JSON: what is written is read back, and what somebody else wrote is checked."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuralreg.job import (
    AFFINE_STAGES,
    DEVICES,
    PRESETS,
    SIMILARITIES,
    Monitor,
    Part,
    Progress,
    RegistrationError,
    RegistrationJob,
    Result,
    choose,
)
from neuralreg.methods import make_method
from neuralreg.portable import load_job, portable

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
jobs = st.builds(
    RegistrationJob,
    fixed=names,
    moving=names,
    output=names,
    method=names,
    preset=st.sampled_from(PRESETS),
    similarity=st.sampled_from(SIMILARITIES),
    affine=st.sampled_from(AFFINE_STAGES),
    device=st.sampled_from(DEVICES),
    initial_transform=st.none() | names,
    fixed_mask=st.none() | names,
    seed=st.integers(0, 2**63 - 1),
    threads=st.integers(0, 64),
    options=st.dictionaries(names, st.booleans() | st.integers(-1000, 1000) | st.floats(-1e9, 1e9) | names, max_size=4),
)


@given(job=jobs)
def test_job_round_trip(tmp_path_factory, job):
    path = tmp_path_factory.getbasetemp() / "job.json"
    job.save(path)
    assert RegistrationJob.load(path) == job


def result(**changes) -> Result:
    return dataclasses.replace(
        Result(
            files={"transform": "transform.h5"},
            metrics={"ncc_after": 0.9},
            timings={"affine": 1.5},
            peak_memory_mb=812.5,
            device="cpu",
            device_reason="no GPU",
            method="DNVF",
            options={"iterations": [1, 2]},
            similarity="lncc",
            seed=3,
            versions={"torch": "2"},
            loss=[[0, 1, -0.5]],
        ),
        **changes,
    )


def test_result_round_trip(tmp_path):
    written = result(warnings=["a"], stopped_early=True, peak_gpu_memory_mb=12.0)
    written.save(tmp_path / "result.json")
    assert Result.load(tmp_path / "result.json") == written


@given(
    progress=st.builds(
        Progress,
        stage=names,
        fraction=st.floats(0, 1),
        message=names | st.just(""),
        loss=st.none() | st.floats(-10, 10),
        seconds_left=st.none() | st.floats(0, 1e6),
        preview=st.none() | names,
    )
)
def test_progress_is_one_line_and_comes_back(progress):
    assert "\n" not in progress.to_line()
    assert Progress.from_line(progress.to_line()) == progress


@pytest.mark.parametrize("line", ["", "loading weights", "[1]", '{"colour": 1}', '{"stage": 1', "3"])
def test_other_lines_are_no_progress(line):
    assert Progress.from_line(line) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("[]", "one JSON object"),
        ('{"fixed": "a", "moving": "b"}', 'lacks "output"'),
        ('{"fixed": "a", "moving": "b", "output": "c", "metod": "DNVF"}', 'did you mean "method"'),
        ('{"fixed": ["a"], "moving": "b", "output": "c"}', '"fixed"'),
        ('{"fixed": "a", "moving": "b", "output": "c", "preset": "fats"}', 'did you mean "fast"'),
        ('{"fixed": "a", "moving": "b", "output": "c", "seed": -1}', '"seed"'),
        ('{"fixed": "a", "moving": "b", "output": "c", "seed": true}', '"seed"'),
        ('{"fixed": "a", "moving": "b", "output": "c", "options": ["x"]}', '"options"'),
        ('{"fixed": "a", "moving": "b", "output": "c", "names": ["x"]}', '"names"'),
        ('{"fixed": "a", "moving": "b", "output": "c", "names": {"fixed": 1}}', '"names"'),
        ('{"fixed": "a", "moving": "b", "output": "c", "initial_transform": {"run": "rm"}}', '"initial_transform"'),
    ],
)
def test_job_from_somebody_else_is_checked(tmp_path, text, words):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(RegistrationError) as raised:
        RegistrationJob.load(tmp_path / "job.json")
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_names_in_a_job_file_may_be_written_in_capitals(tmp_path):
    (tmp_path / "job.json").write_text('{"Fixed": "a", "moving": "b", "OUTPUT": "c", "Preset": "Fast"}')
    job = RegistrationJob.load(tmp_path / "job.json")
    assert (job.fixed, job.output, job.preset) == ("a", "c", "fast")


def test_missing_job_and_foreign_result(tmp_path):
    with pytest.raises(RegistrationError, match="no job file"):
        RegistrationJob.load(tmp_path / "job.json")
    (tmp_path / "result.json").write_text('{"score": 1}')
    with pytest.raises(RegistrationError, match="not the result"):
        Result.load(tmp_path / "result.json")


def test_nearest_name():
    assert choose("method", "dnvf", ["DNVF", "FNOReg"]) == "DNVF"
    with pytest.raises(RegistrationError, match='did you mean "FNOReg"'):
        choose("method", "FNO-Reg", ["DNVF", "FNOReg"])
    with pytest.raises(RegistrationError, match="choose one of DNVF, FNOReg"):
        choose("method", "something else", ["DNVF", "FNOReg"])
    with pytest.raises(
        RegistrationError, match=r'Unknown option of Linear "smoothness": there are none; leave it away\.$'
    ):
        make_method("Linear", "balanced", {"smoothness": 1.0})


def test_stored_job_finds_its_files_from_any_folder(tmp_path, monkeypatch):
    """Relative paths are kept relative, so that no folder names beyond the user's own get into the file."""
    monkeypatch.chdir(tmp_path)
    job = RegistrationJob("data/f.nii", "data/m.nii", "results/one", fixed_mask=str(tmp_path / "mask.nii"))
    (tmp_path / "results" / "one").mkdir(parents=True)
    portable(job).save(tmp_path / "results" / "one" / "job.json")
    stored = json.loads((tmp_path / "results" / "one" / "job.json").read_text())
    assert stored["output"] == "." and stored["fixed_mask"] == str(tmp_path / "mask.nii")
    assert str(tmp_path) not in stored["fixed"] + stored["moving"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load_job("../results/one/job.json")
    for name in ("fixed", "moving", "output", "fixed_mask"):
        assert (tmp_path / "elsewhere" / getattr(loaded, name)).resolve() == (tmp_path / getattr(job, name)).resolve()


def test_stored_job_finds_a_model_of_ones_own_and_keeps_the_name_of_a_known_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "one").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for typed, meant in (("my/model.pt", "my/model.pt"), ("my.pt", "my.pt"), ("~/my.pt", "home/my.pt")):
        job = RegistrationJob("f.nii", "m.nii", "home/one", "VoxelMorph", options={"model": typed, "refine": 3})
        portable(job).save(tmp_path / "home" / "one" / "job.json")
        options = load_job("home/one/job.json").options
        assert Path(options["model"]).resolve() == tmp_path / meant and options["refine"] == 3
    for name in ("auto", "voxelmorph_t1"):
        job = RegistrationJob("f.nii", "m.nii", "home/one", "VoxelMorph", options={"model": name})
        assert portable(job).options == {"model": name}


def test_part_of_a_run_reports_into_the_whole():
    class Notes(Monitor):
        def __init__(self):
            self.seen = []

        def report(self, progress):
            self.seen.append(progress)

    notes = Notes()
    part = Part(notes, "affine", 0.2, 0.6)
    part.report(Progress("anything", 0.5, loss=-1.0))
    part.report(Progress("anything", 7.0))
    assert [(p.stage, p.fraction, p.loss) for p in notes.seen] == [("affine", 0.4, -1.0), ("affine", 0.6, None)]
