"""The benchmark on two small brains with stand-ins for methods: one knows the answer, one fails, one does nothing."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from run_folder import write_run

# By its path: with the folder Testing on sys.path, slicer-core would take Testing/slicer for a part of itself.
HOME = Path(__file__).parents[1] / "benchmark"
SPEC = importlib.util.spec_from_file_location("benchmark", HOME / "__init__.py", submodule_search_locations=[str(HOME)])
sys.modules["benchmark"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sys.modules["benchmark"])

from benchmark import __main__ as program  # noqa: E402
from benchmark import methods, table  # noqa: E402
from benchmark.pairs import pairs_of  # noqa: E402


@pytest.fixture
def data(tmp_path):
    """Two brains as the data set lays them out, and the transform from the first to the second."""
    write_run(tmp_path / "made")
    folder = tmp_path / "data" / "brain_labelled"
    folder.mkdir(parents=True)
    for subject, name in (("1", "fixed"), ("2", "moving")):
        shutil.copy(tmp_path / "made" / f"{name}.nii.gz", folder / f"{subject}_T1w_brain.nii.gz")
        shutil.copy(tmp_path / "made" / f"{name}_labels.nii.gz", folder / f"{subject}_labels.nii.gz")
    return tmp_path / "data"


def script(code):
    """A method that runs a line of Python with the folder as its argument."""
    return lambda pair, folder, threads: [sys.executable, "-c", f"import sys, shutil; {code}", str(folder), pair.name]


def run(data, tmp_path, names):
    program.main(
        [
            "run",
            "--data",
            str(data),
            "--datasets",
            "brain_labelled",
            "--methods",
            names,
            "--out",
            str(tmp_path / "r.csv"),
        ]
    )
    return table.read(tmp_path / "r.csv")


def test_rows_resume_and_failures_are_listed(data, tmp_path, monkeypatch):
    known = tmp_path / "made" / "run"
    copy = f"[shutil.copy(f'{known}/{{a}}.h5', f'{{sys.argv[1]}}/{{b}}.h5') for a, b in "
    copy += "((('transform', 'transform'), ('inverse', 'inverse')) if sys.argv[2] == '1-2' "
    copy += "else (('inverse', 'transform'),))]"
    monkeypatch.setitem(methods.PEERS, "oracle", script(copy))
    monkeypatch.setitem(methods.PEERS, "broken", script("sys.exit('the peer is not installed')"))
    monkeypatch.setitem(methods.PEERS, "lazy", script("pass"))
    rows = run(data, tmp_path, "oracle,broken,lazy")
    found = {(row["pair"], row["method"]): row for row in rows}
    assert len(rows) == 6
    there, back = found["1-2", "oracle"], found["2-1", "oracle"]
    for row in (there, back):
        assert float(row["dice"]) > float(row["dice_before"]) + 0.15 and not row["error"]
        assert float(row["folds_percent"]) == 0 and float(row["wall_s"]) > 0 and float(row["memory_mb"]) > 1
    assert float(there["inverse_mean_mm"]) < 0.1 and back["inverse_mean_mm"] == ""
    assert "not installed" in found["1-2", "broken"]["error"] and "transform" in found["1-2", "lazy"]["error"]
    assert len(run(data, tmp_path, "oracle")) == 6  # nothing to do
    monkeypatch.setitem(methods.PEERS, "broken", script(copy))
    assert len(run(data, tmp_path, "broken")) == 8  # failures are tried again
    text = table.markdown(table.read(tmp_path / "r.csv"), reference="oracle")
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "| 2 |" in lines["oracle"] and "| 2 |" in lines["broken"] and "| 0 of 2 |" in lines["lazy"]
    assert "speed vs oracle" in lines["method"] and "- lazy:" in text and "- broken:" not in text


def test_our_own_methods_are_called_as_users_call_them(data, tmp_path):
    pair = pairs_of(data, ["brain_labelled"])[0]
    (command,) = methods.commands("DNVF:fast:smoothness=2;seed=1").values()
    line = command(pair, tmp_path, 2)
    assert line[1:5] == ["-m", "neuralreg", "register", str(pair.fixed)] and line[-2:] == [
        "--option=smoothness=2",
        "--option=seed=1",
    ]
    assert set(methods.commands("ours")) == set(methods.OURS)


def test_wrong_names_end_with_a_sentence(data, tmp_path):
    with pytest.raises(SystemExit, match="no method"):
        run(data, tmp_path, "magic")
    with pytest.raises(SystemExit, match="holds no pairs"):
        pairs_of(data, ["lung_ct"])
    with pytest.raises(SystemExit, match="no data set"):
        pairs_of(data, ["moon"])
    with pytest.raises(SystemExit, match="no results"):
        program.main(["report", str(tmp_path / "none.csv")])
