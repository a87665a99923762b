"""Many pairs: what the table may hold, what is done once and again, what a failure and a signal leave behind."""

import csv
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from child import PATIENCE, start
from neuralreg import batch, cli, io, workers
from neuralreg.image import Grid, Image
from neuralreg.job import EXIT_CANCELLED, EXIT_USER_ERROR, JOB, RESULT, RegistrationError, RegistrationJob, Result
from neuralreg.methods.start import known_models
from neuralreg.phantom import make_phantom
from neuralreg.workers import Event, Task
from neuralreg.workspace import EVALUATION

STAGE = {"image_factors": "1", "velocity_factors": "2", "windows": "5", "strides": "1"}


def settings(iterations: int) -> list[str]:
    options = {**STAGE, "iterations": str(iterations)}
    words = [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    return [*words, "--threads", "1", "--affine", "none"]


@pytest.fixture
def folder(tmp_path):
    """Two volumes with labels in `data`."""
    phantom = make_phantom(Grid.from_parts((20, 20, 20), (-70, -80, -60), (7.0, 8.0, 6.5)), noise=2.0)
    (tmp_path / "data").mkdir()
    for name in ("fixed", "moving"):
        io.write_image(getattr(phantom, name), tmp_path / "data" / f"{name}.nii.gz")
        io.write_image(getattr(phantom, f"{name}_labels"), tmp_path / "data" / f"{name}_labels.nii.gz", np.uint16)
    return tmp_path


def table(folder, *rows: str, heading: str = "name,fixed,moving,fixed_labels,moving_labels"):
    path = folder / "pairs.csv"
    path.write_text("\n".join([heading, *rows]) + "\n", encoding="utf-8")
    return path


def call(folder, *arguments) -> int:
    return cli.main(["batch", str(folder / "pairs.csv"), "-o", str(folder / "out"), *map(str, arguments)])


def summary(folder) -> dict[str, dict[str, str]]:
    with (folder / "out" / batch.SUMMARY).open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


FILES = "data/fixed.nii.gz,data/moving.nii.gz"
LABELS = "data/fixed_labels.nii.gz,data/moving_labels.nii.gz"


def test_a_failure_ends_nothing_and_what_is_done_stays(folder, capsys):
    table(folder, f"good,{FILES},{LABELS}", "bad,data/fixed.nii.gz,data/none.nii.gz,,", f"plain,{FILES},,")
    assert call(folder, *settings(5), "--jobs", 2, "--progress", "json") == EXIT_USER_ERROR
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert lines[-1]["fraction"] == 1 and {line["message"].split(": ")[0] for line in lines} == {"good", "bad", "plain"}
    assert "1 of 3 pairs failed" in said.err
    rows = summary(folder)
    assert {name: row["status"] for name, row in rows.items()} == {"good": "done", "bad": "failed", "plain": "done"}
    assert float(rows["good"]["dice"]) > 0.1 and rows["plain"]["dice"] == "" and "none.nii.gz" in rows["bad"]["error"]

    before = (folder / "out" / "good" / RESULT).stat().st_mtime_ns
    table(folder, f"good,{FILES},{LABELS}", f"bad,{FILES},,", f"plain,{FILES},{LABELS}")
    assert call(folder, *settings(5), "--progress", "none") == 0  # the last two: the repaired one, and labels for one
    rows = summary(folder)
    assert {row["status"] for row in rows.values()} == {"done"} and float(rows["plain"]["dice"]) > 0.1
    assert (folder / "out" / "good" / RESULT).stat().st_mtime_ns == before
    capsys.readouterr()
    assert call(folder, *settings(6)) == EXIT_USER_ERROR and "--overwrite" in capsys.readouterr().err


def test_a_pair_is_done_where_nothing_that_decides_its_result_has_changed(tmp_path):
    def tasks(**changes):
        settings = {"options": {"iterations": (2, 3)}, **changes}
        return batch.tasks_of(pairs, batch.jobs_of(pairs, tmp_path, settings))

    pairs = [batch.Pair("one", "fixed.nii", "moving.nii")]
    assert [task.name for task in tasks()] == ["one"]
    (tmp_path / "one" / RESULT).write_text('{"inputs": {}}')
    assert not tasks() and not tasks(threads=3) and not tasks(device="cpu")
    for name, value in (
        ("seed", 1),
        ("method", "VoxelMorph"),
        ("preset", "best"),
        ("similarity", "nmi"),
        ("affine", "rigid"),
        ("options", {"iterations": (2, 4)}),
    ):
        with pytest.raises(RegistrationError, match="--overwrite"):
            tasks(**{name: value})


def test_a_result_keeps_its_own_job_until_it_is_replaced(folder, monkeypatch):
    """Else a batch that was cancelled while doing all again would take old results for those of the new settings."""
    table(folder, f"one,{FILES},,")
    assert call(folder, *settings(2), "--progress", "none") == 0

    def cancelled(tasks, slots, note):
        assert all(Path(task.commands[0][1]).is_file() for task in tasks)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workers, "on_this_computer", cancelled)
        assert call(folder, *settings(3), "--overwrite", "--progress", "none") == EXIT_CANCELLED
    assert RegistrationJob.load(folder / "out" / "one" / JOB).options["iterations"] == [2]
    assert not [path.name for path in (folder / "out" / "one").iterdir() if path.name.startswith(".")]
    assert summary(folder)["one"]["status"] == "open" and summary(folder)["one"]["folds_percent"] == ""
    assert call(folder, *settings(3), "--progress", "none") == EXIT_USER_ERROR  # done with other options
    assert call(folder, *settings(3), "--overwrite", "--progress", "none") == 0
    assert Result.load(folder / "out" / "one" / RESULT).options["iterations"] == [3]


def test_a_failure_shows_no_figures_of_an_earlier_result(folder):
    table(folder, f"one,{FILES},{LABELS}")
    assert call(folder, *settings(2), "--progress", "none") == 0
    assert summary(folder)["one"]["dice"]
    (folder / "data" / "moving.nii.gz").unlink()
    assert call(folder, *settings(2), "--overwrite", "--progress", "none") == EXIT_USER_ERROR
    row = summary(folder)["one"]
    assert {name for name, value in row.items() if value} == {"name", "status", "error"} and row["status"] == "failed"


def test_a_model_of_ones_own_is_found_from_where_the_command_was_typed(folder, monkeypatch):
    """Also in the job of a pair, which is read from the folder of the pair, and when the same command goes on."""
    shipped = known_models()[0].parent / "voxelmorph_t1.pt"
    shutil.copy(shipped, folder / "own.pt")
    monkeypatch.chdir(folder)
    table(folder, f"one,{FILES},,")
    words = ("--method", "VoxelMorph", "--option", "model=own.pt", "--affine", "none", "--threads", 1)
    assert call(folder, *words) == 0
    assert call(folder, *words) == 0


def test_two_batches_do_not_share_a_folder(folder, capsys, monkeypatch):
    """The second one would leave its own settings in the folders of pairs that the first one has yet to do."""
    table(folder, f"one,{FILES},,", f"two,{FILES},,")
    first, said = settings(1), []

    def meanwhile(tasks, slots, note):
        said.append(call(folder, *settings(2), "--progress", "none"))
        given = {task.name: RegistrationJob.load(Path(task.commands[0][1])) for task in tasks}
        assert {name: job.options["iterations"] for name, job in given.items()} == {"one": [1], "two": [1]}
        for task in tasks:
            note(Event(task.name, finished=True, error="not done in this test"))

    monkeypatch.setattr(workers, "on_this_computer", meanwhile)
    assert call(folder, *first, "--progress", "none") == EXIT_USER_ERROR
    assert said == [EXIT_USER_ERROR]
    assert "Another run is writing to" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["one", batch.SUMMARY, "two"]


def test_a_pair_of_which_an_image_has_changed_is_registered_again(folder):
    """Under the same name: what lies there is no result of it any more."""
    table(folder, f"one,{FILES},{LABELS}", f"two,data/fixed.nii.gz,{LABELS.split(',')[0]},,")
    assert call(folder, *settings(2), "--progress", "none") == 0
    results = [folder / "out" / name / RESULT for name in ("one", "two")]
    before = [result.read_bytes() for result in results]
    shutil.copytree(folder / "data", folder / "copy")  # newer, and the same
    shutil.rmtree(folder / "data")
    (folder / "copy").rename(folder / "data")
    assert call(folder, *settings(2), "--progress", "none") == 0
    assert [result.read_bytes() for result in results] == before
    shutil.copy(folder / "data" / "fixed.nii.gz", folder / "data" / "moving.nii.gz")
    assert call(folder, *settings(2), "--progress", "none") == 0
    assert results[0].read_bytes() != before[0] and results[1].read_bytes() == before[1]
    assert summary(folder)["one"]["status"] == "done" and Result.load(results[0]).metrics["ncc_before"] > 0.999


def test_a_pair_whose_images_are_gone_stays_done(folder):
    table(folder, f"one,{FILES},,")
    assert call(folder, *settings(2), "--progress", "none") == 0
    shutil.rmtree(folder / "data")
    assert call(folder, *settings(2), "--progress", "none") == 0 and summary(folder)["one"]["status"] == "done"


def test_a_batch_and_its_data_can_be_moved_together(folder, monkeypatch):
    """Where table and output were named by relative paths, the same command in the new place finds all done."""
    table(folder, f"one,{FILES},{LABELS}")
    shutil.copy(known_models()[0].parent / "voxelmorph_t1.pt", folder / "own.pt")
    words = ("batch", "pairs.csv", "-o", "out", "--method", "VoxelMorph", "--affine", "none", "--threads", "1")
    words = (*words, "--option", "model=own.pt", "--progress", "none")
    monkeypatch.chdir(folder)
    assert cli.main(words) == 0
    files = [folder / "out" / "one" / name for name in (JOB, RESULT, EVALUATION)]
    assert not any(str(folder) in file.read_text(encoding="utf-8") for file in files)
    before = [file.stat().st_mtime_ns for file in files]

    moved = folder / "elsewhere"
    moved.mkdir()
    for name in ("data", "out", "own.pt", "pairs.csv"):
        (folder / name).rename(moved / name)
    monkeypatch.chdir(moved)
    assert cli.main(words) == 0 and summary(moved)["one"]["status"] == "done"
    assert [(moved / "out" / "one" / file.name).stat().st_mtime_ns for file in files] == before
    assert call(moved, *words[4:]) == 0, "named by absolute paths, these are the same files"
    assert [(moved / "out" / "one" / file.name).stat().st_mtime_ns for file in files] == before
    monkeypatch.chdir(folder)
    assert cli.main(["run", "elsewhere/out/one", "--overwrite", "--progress", "none"]) == 0


def test_label_maps_that_are_gone_stay_compared_however_the_table_is_named(folder, monkeypatch):
    table(folder, f"one,{FILES},{LABELS}")
    monkeypatch.chdir(folder)
    assert cli.main(["batch", "pairs.csv", "-o", "out", *settings(2), "--progress", "none"]) == 0
    dice = summary(folder)["one"]["dice"]
    (folder / "data" / "fixed_labels.nii.gz").unlink()
    monkeypatch.chdir(folder / "data")
    assert call(folder, *settings(2), "--progress", "none") == 0 and summary(folder)["one"]["dice"] == dice


def test_an_evaluation_of_several_pairs_of_label_maps_is_not_that_of_the_table(folder):
    table(folder, f"one,{FILES},{LABELS}")
    assert call(folder, *settings(2), "--progress", "none") == 0
    dice, labels = summary(folder)["one"]["dice"], [folder / name for name in LABELS.split(",")]
    others = io.read_labels(labels[0])
    io.write_image(Image(100 * others.data, others.grid), folder / "others.nii.gz", np.uint16)
    pairs = (labels, [folder / "others.nii.gz"] * 2)
    words = [w for fixed, moving in pairs for w in ("--fixed-labels", str(fixed), "--moving-labels", str(moving))]
    assert cli.main(["evaluate", str(folder / "out" / "one"), *words]) == 0
    assert call(folder, *settings(2), "--progress", "none") == 0 and summary(folder)["one"]["dice"] == dice


def test_names_that_begin_like_options(folder, monkeypatch):
    for name in ("fixed_labels", "moving_labels"):
        shutil.copy(folder / "data" / f"{name}.nii.gz", folder / f"-{name}.nii.gz")
    table(folder, f"-one,{FILES},-fixed_labels.nii.gz,-moving_labels.nii.gz")
    monkeypatch.chdir(folder)
    assert cli.main(["batch", "pairs.csv", "-o", ".", *settings(2), "--progress", "none"]) == 0
    assert float(next(csv.DictReader((folder / batch.SUMMARY).open()))["dice"]) > 0.1


def test_other_label_maps_are_compared_anew(folder):
    table(folder, f"one,{FILES},{LABELS}")
    assert call(folder, *settings(2), "--progress", "none") == 0
    first = summary(folder)["one"]
    table(folder, f"one,{FILES},data/fixed_labels.nii.gz,data/fixed_labels.nii.gz")
    assert call(folder, *settings(2), "--progress", "none") == 0
    second = summary(folder)["one"]
    assert second["dice_before"] == "1" != first["dice_before"] and second["seconds"] == first["seconds"]


def test_label_maps_that_were_corrected_are_compared_anew(folder):
    table(folder, f"one,{FILES},{LABELS}")
    assert call(folder, *settings(2), "--progress", "none") == 0
    first, corrected = summary(folder)["one"], folder / "data" / "moving_labels.nii.gz"
    shutil.copy(folder / "data" / "fixed_labels.nii.gz", corrected)
    os.utime(corrected, ns=(0, 0))  # as one that was made earlier, and moved here
    assert call(folder, *settings(2), "--progress", "none") == 0
    assert summary(folder)["one"]["dice_before"] == "1" != first["dice_before"]


@pytest.mark.parametrize("content", ["{", "{}"])
@pytest.mark.parametrize("name", [RESULT, EVALUATION])
def test_a_damaged_file_is_made_again_and_ends_no_other_pair(folder, name, content):
    table(folder, f"one,{FILES},{LABELS}")
    assert call(folder, *settings(2), "--progress", "none") == 0
    first = summary(folder)["one"]
    (folder / "out" / "one" / name).write_text(content)
    table(folder, f"one,{FILES},{LABELS}", f"two,{FILES},,")
    assert call(folder, *settings(2), "--progress", "none") == 0
    assert summary(folder)["one"]["dice"] == first["dice"] and summary(folder)["two"]["status"] == "done"


def test_a_signal_leaves_finished_runs_and_nothing_else(folder):
    table(folder, f"long,{FILES},,")
    arguments = ("--progress", "json", *settings(10000))
    with start("batch", "pairs.csv", "-o", "out", *arguments, cwd=folder) as process:
        for line in process.stdout:
            if "deformable" in line:
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_CANCELLED and "the same command goes on" in errors
    assert summary(folder)["long"]["status"] == "open"
    assert [path.name for path in (folder / "out" / "long").iterdir()] == ["job.json"]


def test_the_table_is_checked_before_anything_runs(folder):
    wrong = {
        "holds no pairs": ("fixed,moving",),
        "lacks fixed or moving": ("fixed,moving", "a.nii,"),
        "did you mean": ("fixed,movin", "a.nii,b.nii"),
        'named "X"; give each a name of its own': ("name,fixed,moving", "x,a.nii,b.nii", "X,c.nii,d.nii"),
        'named "b-to-a"; give each': ("fixed,moving", "a.nii,b.nii", "a.nii,b.nii"),
        "cannot be the name of a folder": ("name,fixed,moving", "../x,a.nii,b.nii"),
        "labels of one image": ("fixed,moving,fixed_labels", "a.nii,b.nii,c.nii"),
        "more entries": ("fixed,moving", "a.nii,b.nii,c.nii"),
        "two columns": ("fixed,moving,Moving", "a.nii,b.nii,c.nii"),
    }
    for words, (heading, *rows) in wrong.items():
        with pytest.raises(RegistrationError, match=words):
            batch.read_pairs(table(folder, *rows, heading=heading))
    with pytest.raises(RegistrationError, match="no table of pairs"):
        batch.read_pairs(folder / "none.csv")
    (pair,) = batch.read_pairs(table(folder, "a.nii.gz; scans/b.nii.gz", heading="\ufefffixed ; Moving"))
    assert pair.name == "b-to-a" and pair.moving == str(folder / "scans" / "b.nii.gz")


@pytest.mark.parametrize(
    "text",
    [
        "# first visit\n\nfixed,moving,name\n# b.nii,c.nii,left out\na.nii,b.nii,one\n",
        "fixed\tmoving\tname\r\na.nii\tb.nii\tone\r\n",
        "fixed;moving;name;;\na.nii;b.nii;one;;\n;;;;\n",
        "fixed,moving,name\na.nii,b.nii,one,\n",
    ],
    ids=["comments", "tabs", "columns without a name", "one comma more"],
)
def test_tables_as_spreadsheets_and_people_write_them(folder, text):
    (folder / "pairs.csv").write_bytes(text.encode())
    (pair,) = batch.read_pairs(folder / "pairs.csv")
    assert pair == batch.Pair("one", str(folder / "a.nii"), str(folder / "b.nii"))


def test_a_wrong_line_is_counted_as_an_editor_counts(folder):
    rows = ("# first visit", "", "fixed,moving", "a.nii,b.nii", "# later", "c.nii,")
    with pytest.raises(RegistrationError, match="Line 6 of"):
        batch.read_pairs(table(folder, *rows[1:], heading=rows[0]))


def test_as_many_at_a_time_as_there_are_slots_and_each_in_its_environment(monkeypatch):
    """Stand-ins for `neuralreg`: what they print is the slot they run in."""
    seen = []

    def perform(task, environment, say, started):
        seen.append((task.name, environment["CUDA_VISIBLE_DEVICES"]))
        barrier.wait(timeout=PATIENCE)  # passes only when three run at the same time
        return "" if task.name != "2" else "broken"

    barrier = threading.Barrier(3)
    monkeypatch.setattr(workers, "perform", perform)
    events: list[Event] = []
    slots = [{"CUDA_VISIBLE_DEVICES": name} for name in ("0", "1", "7")]
    workers.on_this_computer([Task(str(number), ()) for number in range(6)], slots, events.append)
    assert sorted(event.name for event in events) == [*"012345"] and {slot for _, slot in seen} == {"0", "1", "7"}
    assert [event.name for event in events if event.error] == ["2"]


def test_last_words_of_a_process_become_the_reason():
    assert workers.perform(Task("a", (("run", "missing.json"),))).startswith("There is no job file")
    assert "signal 9" in workers._reason(-9, []) and "exit code 3" in workers._reason(3, ['{"stage": "read"}'])


def test_pairs_run_on_a_dask_cluster(folder):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra `cluster`)")
    table(folder, f"one,{FILES},,", "bad,data/fixed.nii.gz,data/none.nii.gz,,")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        code = call(folder, *settings(3), "--progress", "none", "--dask", cluster.scheduler_address)
    rows = summary(folder)
    assert code == EXIT_USER_ERROR and rows["one"]["status"] == "done" and "none.nii.gz" in rows["bad"]["error"]


def test_an_absent_cluster_is_said(folder, capsys, monkeypatch):
    table(folder, f"one,{FILES},,")
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    assert call(folder, *settings(3), "--dask", "tcp://127.0.0.1:9") == EXIT_USER_ERROR
    assert "Dask is not installed" in capsys.readouterr().err
