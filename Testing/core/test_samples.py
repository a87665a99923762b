"""The sample pair: checksums, the cache, and a demo that works without a network."""

import hashlib
import io as streams
import json
import shutil
import sys
import time

import pytest
from neuralreg import cli, io, samples
from neuralreg.commands import demo
from neuralreg.evaluate import read_landmarks
from neuralreg.job import RegistrationError
from neuralreg.workspace import claimed


@pytest.fixture
def net(monkeypatch):
    """Two files and a server that counts what it is asked."""
    contents = [b"first volume" * 1000, b"second volume" * 1000]
    digests = [hashlib.sha256(c).hexdigest() for c in contents]
    monkeypatch.setattr(samples, "BRAIN_TUMOR_1", ("one.nrrd", digests[0]))
    monkeypatch.setattr(samples, "BRAIN_TUMOR_2", ("two.nrrd", digests[1]))
    asked = []

    def connect(url):
        asked.append(url)
        return streams.BytesIO(contents[digests.index(url.removeprefix(samples.URL))])

    return connect, asked


def test_downloads_are_checked_and_kept(net, tmp_path):
    connect, asked = net
    first = samples.sample_pair(tmp_path / "demo", tmp_path / "cache", connect=connect)
    second = samples.sample_pair(tmp_path / "demo", tmp_path / "cache", connect=connect)
    assert first == second and len(asked) == 2
    assert first.moving.read_bytes().startswith(b"second") and first.landmarks is None
    first.fixed.write_bytes(b"damaged")
    samples.sample_pair(tmp_path / "demo", tmp_path / "cache", connect=connect)
    assert len(asked) == 3 and first.fixed.read_bytes().startswith(b"first")


@pytest.mark.parametrize("fault", ["offline", "changed", "silent", "endless"])
def test_without_the_files_the_phantom_is_registered(fault, net, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "ANSWER_WITHIN", 0.2)
    monkeypatch.setattr(samples, "LARGEST_FILE", 1 << 17)
    monkeypatch.setattr(samples, "demo_phantom", lambda spacing: make_small(6.0))

    def connect(url):
        if fault == "offline":
            raise OSError("no route to host")
        if fault == "silent":
            time.sleep(1)
        return streams.BytesIO(b"x" * (1 << 20 if fault == "endless" else 5))

    found = samples.sample_pair(tmp_path / "demo", tmp_path / "cache", connect=connect)
    assert "phantom" in found.note and "could not be downloaded" in found.note
    assert not (tmp_path / "cache").exists()
    fixed, labels = io.read_image(found.fixed), io.read_labels(found.fixed_labels)
    assert fixed.grid.same_as(labels.grid) and labels.data.max() == 8
    points = read_landmarks(found.landmarks)
    assert points[0].shape == points[1].shape == (3, 50)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="other systems have other places for caches")
def test_without_a_home_the_phantom_is_registered(tmp_path, monkeypatch):
    """As in a container whose user has no name."""
    import pwd

    for name in ("HOME", "XDG_CACHE_HOME", "NEURALREG_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    monkeypatch.setattr(samples, "demo_phantom", lambda spacing: make_small(6.0))
    assert "phantom" in samples.sample_pair(tmp_path / "demo").note


def run_demo(tmp_path, monkeypatch, *options):
    """The demo with a small phantom; returns its report and the addresses that it opened."""
    monkeypatch.setattr(samples, "demo_phantom", lambda spacing: make_small(6.0))
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    assert cli.main(["demo", "--offline", "--preset", "fast", "-o", str(tmp_path / "demo"), *options]) == 0
    return tmp_path / "demo" / "result" / "report.html", opened


def test_the_demo_without_browser_ends_with_the_path_of_its_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "open_page", lambda *_, **__: pytest.fail("nobody wanted a page"))
    report, opened = run_demo(tmp_path, monkeypatch, "--no-browser")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(report) and report.is_file() and not opened
    assert "phantom" in lines[0] and any("Landmarks (TRE)" in line for line in lines)
    values = json.loads((report.parent / "evaluation.json").read_text())["measurements"]
    assert values["tre_mean_mm"] < 4 < values["tre_before_mean_mm"] and values["folds_percent"] == 0


def test_the_demo_replaces_nothing_but_an_earlier_demo(tmp_path, monkeypatch, capsys):
    """Its files are called as the guide calls those of a user: `neuralreg demo -o .` would have replaced them."""
    for _ in range(2):
        run_demo(tmp_path, monkeypatch, "--no-browser")
    for name in ("fixed.nii.gz", "landmarks.csv", "result/job.json"):
        own = shutil.copytree(tmp_path / "demo", tmp_path / name.partition(".")[0])
        (own / name).write_text(json.dumps({"fixed": "mine.nii", "moving": "m.nii", "output": "."}))
        before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
        assert cli.main(["demo", "--offline", "--no-browser", "-o", str(own)]) == 2
        assert "choose another folder" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before


def test_two_demos_do_not_share_a_folder(tmp_path, capsys):
    with claimed(tmp_path / "demo"):
        assert cli.main(["demo", "--offline", "--no-browser", "-o", str(tmp_path / "demo")]) == 2
    assert "Another run is writing" in capsys.readouterr().err and not list((tmp_path / "demo").iterdir())


def test_the_demo_ends_in_the_page_and_without_one_opens_the_report(tmp_path, monkeypatch, capsys):
    pages = []

    def no_page(files, browser):
        pages.append((files, browser))
        raise RegistrationError("The page needs the extra.")

    monkeypatch.setattr(demo, "open_page", no_page)
    report, opened = run_demo(tmp_path, monkeypatch)
    assert pages == [((report.parent,), True)] and opened == [report.as_uri()]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(report) and "The page needs the extra." in lines[-3]


def make_small(spacing_mm):
    from neuralreg.phantom import demo_phantom

    return demo_phantom(spacing_mm)


def test_offline_asks_nobody(net, tmp_path, monkeypatch):
    connect, asked = net
    monkeypatch.setattr(samples, "demo_phantom", lambda spacing: make_small(6.0))
    assert "no download" in samples.sample_pair(tmp_path, tmp_path, offline=True, connect=connect).note and not asked
