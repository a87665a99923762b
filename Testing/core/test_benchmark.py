"""The benchmark on two small brains with stand-ins for methods: one knows the answer, one fails, one does nothing."""

import dataclasses
import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from neuralreg import io
from neuralreg.image import Grid, Image, resample
from neuralreg.intensities import is_ct
from neuralreg.job import RegistrationJob
from run_folder import write_run
from short_runs import LISTS

# By its path: with the folder Testing on sys.path, slicer-core would take Testing/slicer for a part of itself.
HOME = Path(__file__).parents[1] / "benchmark"
SPEC = importlib.util.spec_from_file_location("benchmark", HOME / "__init__.py", submodule_search_locations=[str(HOME)])
sys.modules["benchmark"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sys.modules["benchmark"])

from benchmark import __main__ as program  # noqa: E402
from benchmark import breathing, chest_ct, methods, profile, table  # noqa: E402
from benchmark.measure import COLUMNS  # noqa: E402
from benchmark.pairs import brain_labelled, pairs_of, spread  # noqa: E402


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
    assert "| +0.000 | 1.0 × |" in lines["oracle"] and lines["lazy"].endswith("| – | – |")


def test_our_own_methods_are_called_as_users_call_them(data, tmp_path):
    pair = pairs_of(data, ["brain_labelled"])[0]
    (command,) = methods.commands("DNVF:fast:smoothness=2;seed=1").values()
    line = command(pair, tmp_path, 2)
    assert line[1:5] == ["-m", "neuralreg", "register", str(pair.fixed)] and line[-2:] == [
        "--option=smoothness=2",
        "--option=seed=1",
    ]
    assert set(methods.commands("ours")) == set(methods.OURS)
    lists = "DNVF:fast:directions=both,alternate;smoothness=2"
    assert list(methods.commands(f"greedy, {lists},DNVF:balanced:iterations=9,8,7,ants")) == [
        "greedy", lists, "DNVF:balanced:iterations=9,8,7", "ants",
    ]  # fmt: skip
    with pytest.raises(SystemExit, match="no method gredy"):
        methods.commands(f"{lists},gredy")


def test_a_peer_gets_its_files_and_says_why_it_cannot_run(data, tmp_path, monkeypatch):
    (pair, _) = pairs_of(data, ["brain_labelled"])
    monkeypatch.setenv(methods.PYTHON, "/elsewhere/python")
    line = methods.PEERS["greedy"](pair, tmp_path, 3)
    assert line[:4] == ["/elsewhere/python", "-m", "benchmark.peers", "greedy"]
    assert line[4:6] == [str(pair.fixed), str(pair.moving)] and line[-2:] == ["--threads", "3"]
    monkeypatch.delenv(methods.PYTHON)
    rows = run(data, tmp_path, "voxelmorph")
    assert len(rows) == 2 and all("weights" in row["error"] and not row["dice"] for row in rows)


def test_matrices_of_greedy_become_itk_transforms(tmp_path):
    """A matrix in RAS is the same map in LPS: x and y change their sign before and after it."""
    from benchmark.peers.greedy import itk_affine

    matrix = np.array([[0.9, 0.1, -0.2, 5], [0.05, 1.1, 0.3, -7], [0.02, -0.1, 1.0, 3], [0, 0, 0, 1.0]])
    np.savetxt(tmp_path / "affine.mat", matrix)
    x, y, z, _ = matrix @ [-10, -20, 30, 1]
    assert np.allclose(itk_affine(tmp_path / "affine.mat").TransformPoint((10, 20, 30)), (-x, -y, z))


def test_a_few_pairs_are_spread_and_the_first_few_are_always_the_same(tmp_path):
    pairs = brain_pairs(tmp_path)
    assert len(pairs) == 30 and sorted(p.name for p in spread(pairs)) == sorted(p.name for p in pairs)
    few = [pair.name for pair in spread(pairs)[:3]]
    assert len({name.split("-")[0] for name in few}) == 3 and len({name.split("-")[1] for name in few}) == 3


def brain_pairs(folder):
    for subject in range(6):
        (folder / f"{subject}_labels.nii.gz").touch()
    return brain_labelled(folder)


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `benchmark`)")
    from benchmark.plot import plot

    row = dict.fromkeys(COLUMNS, "") | {"dataset": "brain_labelled", "pair": "1-2", "cpu_s": "3", "dice": "0.6"}
    plot([row | {"method": "ants"}, row | {"method": "DNVF:fast", "error": "no"}], tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000
    with pytest.raises(SystemExit, match="no row"):
        plot([row | {"method": "ants", "error": "no"}], tmp_path / "p.png")


def test_the_published_rows_make_the_published_table():
    rows = table.read(HOME / "results_1mm.csv")
    assert tuple(rows[0]) == COLUMNS and not any(row["error"] for row in rows)
    results = (HOME / "RESULTS.md").read_text(encoding="utf-8")
    for name in ("DNVF:balanced", "ants", "greedy"):
        for row in table.by_method(rows)["brain_labelled"][name]:
            assert f"{float(row['dice']):.3f}" in results and f" {float(row['cpu_s']):.0f} " in results


def test_the_stages_of_a_run_are_all_of_it(data, tmp_path):
    images = [str(pair.fixed) for pair in pairs_of(data, ["brain_labelled"])]
    lists = {name: [2, 2] if name == "iterations" else 2 * value for name, value in LISTS.items()}
    job = RegistrationJob(*images, str(tmp_path / "out"), affine="rigid", threads=1, options=lists)
    stages = profile.staged(job)
    names = [stage.name for stage in stages]
    expected = [name.format("1") for *_, name in profile.STAGES]
    assert list(dict.fromkeys(names)) == [*expected, profile.WHOLE] and names.count("deformable, images at 1") == 2
    whole, parts = stages[-1].wall_s, sum(stage.wall_s for stage in stages[:-1])
    assert 0.8 * whole < parts <= whole and all(stage.cpu_s > 0 for stage in stages)
    averages = profile.profiled(dataclasses.replace(job, affine="none"))
    assert profile.own_seconds(averages[0]) >= profile.own_seconds(averages[1]) > 0
    assert any(average.key == "aten::grid_sampler_3d" for average in averages)
    assert len(profile.operators_table(averages, 3).splitlines()) == 5
    assert f"| {profile.WHOLE} |" in profile.stages_table(stages)


@pytest.fixture
def chest(tmp_path):
    """A lung full of waves in a cube of muscle, as the data set names its files."""
    grid = Grid.from_parts((30, 26, 28), (10, -70, 5), (4.0, 4.0, 4.0))
    points = grid.points()
    inside = ((points - torch.as_tensor(grid.center).view(3, 1, 1, 1)).norm(dim=0) < 38)[None]
    waves = -800 + 60 * torch.sin(points / 9).sum(0, keepdim=True)
    (tmp_path / "lung_ct").mkdir()
    for name, values in (("ct", torch.where(inside, waves, torch.tensor(40.0))), ("mask", inside.float())):
        io.write_image(Image(values.float(), grid), tmp_path / "lung_ct" / f"followup_{name}.mha")
    return tmp_path


def test_a_breath_is_what_its_truth_says(chest):
    moving = io.read_image(chest / "lung_ct" / "followup_ct.mha")
    lung = io.read_mask(chest / "lung_ct" / "followup_mask.mha", moving.grid)
    fixed, inside, noisy, truth = breathing.breath_pair(moving, lung, 12.0, seed=0)
    points = fixed.grid.points()[:, inside.data[0] > 0]
    assert 4 < float((truth(points) - points).norm(dim=0).mean()) < 14
    warped = resample(noisy, truth, fixed.grid)
    difference = (warped.data - fixed.data)[inside.data > 0]
    assert float(difference.std()) < 1.5 * breathing.NOISE_HU < float((noisy.data - fixed.data)[inside.data > 0].std())


def test_methods_are_held_against_the_breath(chest, monkeypatch, capsys):
    stay = "import SimpleITK as s; s.WriteTransform(s.TranslationTransform(3), sys.argv[1] + '/transform.h5')"
    monkeypatch.setitem(methods.PEERS, "stays", script(stay))
    monkeypatch.setitem(methods.PEERS, "fails", script("sys.exit('no licence')"))
    breathing.main(["--data", str(chest), "--methods", "stays,fails", "--descent", "12"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1:3] for row in rows] == [[m, n] for m in ("no", "yes") for n in ("stays", "fails")]
    for staying, failing in (rows[:2], rows[2:]):
        assert staying[3] == staying[4] and float(staying[4]) > 4 and float(staying[6]) == 0
        assert "no licence" in failing[3]


def test_a_chest_in_mr_becomes_a_ct_of_the_same_chest(tmp_path):
    """Muscle at 400, fat at 900 and the lung at 40, as a scanner of MR might have them, in air."""
    grid = Grid.from_parts((24, 22, 20), (-5, 60, 0), (4.0, 4.0, 4.0))
    away = (grid.points() - torch.as_tensor(grid.center).view(3, 1, 1, 1)).norm(dim=0)[None]
    levels = ((38.0, 900.0), (36.0, 400.0), (22.0, 40.0))
    mr = torch.zeros_like(away)
    for reach, value in levels:
        mr[away < reach] = value
    with pytest.raises(SystemExit, match="holds no pairs"):
        chest_ct.main(["--data", str(tmp_path)])
    folder = tmp_path / "lungs_mr"
    folder.mkdir()
    for person in (1, 2):
        io.write_image(Image(mr, grid), folder / f"lungs_{person}.nii.gz")
        io.write_image(Image((away < 22).float(), grid), folder / f"lungs_{person}_labels.nii.gz")
    chest_ct.main(["--data", str(tmp_path)])
    first, second = pairs_of(tmp_path, ["chests_ct"])
    ct, labels = io.read_image(first.fixed), io.read_labels(first.fixed_labels)
    assert (first.name, second.name, first.dataset) == ("1-2", "2-1", "chests_ct")
    assert labels.grid.same_as(ct.grid) and np.allclose(ct.grid.spacing, chest_ct.SPACING_MM)
    assert np.allclose(ct.grid.center, grid.center, atol=0.1) and is_ct(ct.data)
    away = (ct.grid.points() - torch.as_tensor(grid.center).view(3, 1, 1, 1)).norm(dim=0)[None]
    means = [float(ct.data[(away > low) & (away < high)].mean()) for low, high in ((0, 18), (26, 30), (50, 90))]
    assert means == pytest.approx([-900, 0, -1000], abs=5)
    assert float(ct.data[away > 50].std()) == pytest.approx(chest_ct.NOISE_HU, rel=0.1)
    assert set(labels.data[away < 18].tolist()) == {1} and set(labels.data[away > 26].tolist()) == {0}
    assert not torch.equal(ct.data, io.read_image(second.fixed).data), "each scan has its own noise"


def test_wrong_names_end_with_a_sentence(data, tmp_path):
    with pytest.raises(SystemExit, match="no method"):
        run(data, tmp_path, "magic")
    with pytest.raises(SystemExit, match="holds no pairs"):
        pairs_of(data, ["lung_ct"])
    with pytest.raises(SystemExit, match="no data set"):
        pairs_of(data, ["moon"])
    with pytest.raises(SystemExit, match="no results"):
        program.main(["report", str(tmp_path / "none.csv")])
    (tmp_path / "old.csv").write_text("dataset,pair\n")
    with pytest.raises(SystemExit, match="another version"):
        table.append(tmp_path / "old.csv", {})
