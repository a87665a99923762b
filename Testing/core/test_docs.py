"""Everything that README and docs show is typed here, on a small pair: what a stranger copies must work."""

import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import neuralreg
import numpy as np
import pytest
import torch
from doc_pages import FENCE, FILES, PAGES, PROSE, ROOT, Block, blocks, commands
from doc_terminal import Terminal
from neuralreg import cli, io, job, methods, pipeline, qa
from neuralreg.image import Image
from neuralreg.phantom import demo_grid, make_phantom
from neuralreg.points import Points, write_points
from neuralreg.samples import phantom_pair
from neuralreg.transform import Affine
from test_imports import FLOORS

SPACING_MM = 8.0
README = PAGES[0]
NO_PART_OF_A_COPY = (".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "build", "dist", "*.egg-info", "demo")
NUMBER = r"(?<![\w.-])\d+(?:\.\d+)?(?![\w-])"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A copy of the repository, and in it the files that the pages speak of: a pair with labels, landmarks and masks,
    and a folder of images.
    """
    folder = tmp_path_factory.mktemp("copy") / "home"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NO_PART_OF_A_COPY))
    pair = phantom_pair(folder, "small", SPACING_MM)
    other = make_phantom(demo_grid(SPACING_MM), contrasts=("T1", "T2"), seed=7)
    io.write_image(other.moving, folder / "moving_t2.nii.gz", np.int16)
    for name, labels in (("fixed_mask", pair.fixed_labels), ("moving_mask", pair.moving_labels)):
        image = io.read_labels(labels)
        io.write_image(Image((image.data > 0).to(image.data.dtype), image.grid), folder / f"{name}.nii.gz", np.uint8)
    start = np.eye(4)
    start[:3, 3] = (9.0, -6.0, 12.0)
    io.write_transform(Affine(start), folder / "start.h5")
    rows = np.genfromtxt(pair.landmarks, delimiter=",", skip_header=1)
    names = tuple(f"P{i}" for i in range(5))
    for name, points in (("fixed_points", rows[:5, :3]), ("moving_points", rows[:5, 3:])):
        for ending in ("mrk.json", "csv"):
            write_points(Points(points, names), folder / f"{name}.{ending}")
    (folder / "my_images").mkdir()
    for number in range(4):
        subject = make_phantom(demo_grid(SPACING_MM), seed=number)
        io.write_image(subject.fixed, folder / "my_images" / f"subject{number}.nii.gz", np.int16)
        io.write_image(subject.fixed_labels, folder / "my_images" / f"subject{number}_labels.nii.gz", np.int16)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_runs(page, home, tmp_path, monkeypatch):
    folder = tmp_path / "home"
    shutil.copytree(home, folder)
    monkeypatch.chdir(folder)  # and back at the end
    # Small volumes: a second thread costs more than it brings, above all where others compute too.
    monkeypatch.setattr(pipeline, "use_threads", lambda threads: torch.set_num_threads(1))
    monkeypatch.setattr(methods, "SMALL_VOXELS", 0)  # small volumes would get more iterations
    for name, value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE")):  # for processes that are started
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NEURALREG_CACHE", str(folder / "cache"))
    terminal, names = Terminal(folder), {}
    for block in blocks(page):
        if block.language == "bash" and not block.elsewhere:
            terminal.type(block)
        elif block.language == "python" and not block.elsewhere:
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
        elif block.language in FILES:
            (folder / block.file).write_text(block.code, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_of_a_known_kind_and_say_which_other_test_runs_them(page):
    text = page.read_text(encoding="utf-8")
    found = blocks(page)
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(found), "a fence is indented or not closed"
    assert {block.language for block in found} <= {"bash", "python", *FILES, *PROSE}
    assert text.count("<!--") == sum(bool(block.elsewhere) for block in found), "a mark belongs right above a block"
    for block in found:
        assert bool(block.file) == (block.language in FILES), f"name the file of line {block.line} behind its language"
        if block.elsewhere:
            other = (ROOT / block.elsewhere).read_text(encoding="utf-8")
            assert page.name in other, f"{block.elsewhere} does not read the page"


@pytest.mark.parametrize("code", ["magic", "mkdir x; magic | cat", "./magic.sh", "python -m magic", "neuralreg magic"])
def test_a_command_that_nobody_knows_how_to_run_fails(tmp_path, monkeypatch, code):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, SystemExit)):
        Terminal(tmp_path).type(Block("bash", "", code, 1, ""))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_can_be_typed(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for line in re.findall(r"`(neuralreg [^`]+)`", text):
        words = shlex.split(line.replace("…", "x"))
        if "COMMAND" not in words and len(words) > 2:
            assert callable(cli.parser().parse_args(words[1:]).function), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_the_page_names_exist(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", text) + re.findall(r'src="(?!https?:)([^"]+)"', text)
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in _anchors(target), f"{page.name} links to {link}"
    for name in re.findall(r"`((?:Testing|NeuralRegistration|Resources|docs)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def _anchors(page: Path) -> set[str]:
    """Names of headings as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_page_is_reached_from_the_readme():
    linked = set(re.findall(r"\]\(docs/(\w+\.md)", README.read_text(encoding="utf-8")))
    assert linked == {page.name for page in PAGES[1:]}


def test_the_guide_names_every_command_setting_and_similarity():
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    (choices,) = (a.choices for a in cli.parser()._subparsers._group_actions)
    training = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for command in choices:
        assert f"neuralreg {command}" in guide + training, command
    assert '"names"' in guide  # of job.json only
    for name in {f.name for f in fields(job.RegistrationJob)} - {"fixed", "moving", "output", "options", "names"}:
        assert f"--{name.replace('_', '-')}" in guide, name
    assert all(f"`{name}`" in guide for name in job.SIMILARITIES)


def test_the_modules_that_the_architecture_names_stand_on_their_floors():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for number, names in FLOORS.items():
        row = re.search(rf"^\| {number} \| (.*) \|$", text, re.MULTILINE)[1]
        named = set(re.findall(r"`(\w+)`", row)) - {"grid_sample"}
        assert named and named <= names, f"floor {number}"


def test_the_readme_begins_with_the_two_commands_and_promises_no_compliance():
    text = README.read_text(encoding="utf-8")
    scripts = [line for block in blocks(README) for line in commands(block) if line.startswith("./")]
    assert scripts[:2] == ["./demo.sh", "./test.sh"]
    assert "adapted from AAPM TG-132" in text and "Not a medical device" in text
    everything = text + qa.NOTE + "".join(page.read_text(encoding="utf-8") for page in PAGES[1:])
    assert not re.search(r"compliant|certified|approved", everything, re.IGNORECASE)


def test_the_traffic_light_in_the_readme_is_that_of_the_program():
    text = README.read_text(encoding="utf-8")
    limits = re.search(r"\| Dice.*?\| ([\d.]+) and more \| ([\d.]+) and more", text)
    assert tuple(map(float, limits.groups())) == (qa.DICE_GOOD, qa.DICE_FAIR)
    assert re.search(r"\| Alike.*?\| ([\d.]+) and more", text)[1] == str(qa.ALIKE)
    for name in ("Folding", "Volume turned inside out", "Forth and back again", "Landmarks", "Similarity"):
        assert re.search(rf"^\| {name}", text, re.MULTILINE), name


def test_the_figures_in_tables_are_those_of_the_benchmark():
    """As measured, or rounded: a figure of last month stands out."""
    results = (ROOT / "Testing" / "benchmark" / "RESULTS.md").read_text(encoding="utf-8")
    measured = np.array(re.findall(NUMBER, results), float)
    for page in (README, ROOT / "docs" / "comparison.md"):
        _, _, section = page.read_text(encoding="utf-8").partition("\n## Figures\n")
        rows = re.findall(r"^\|.*$", section.partition("\n## ")[0], re.MULTILINE)
        figures = re.findall(NUMBER, " ".join(rows))
        assert len(figures) > 10
        for figure in figures:
            half = 0.5 * 10.0 ** -len(figure.partition(".")[2])
            assert np.abs(measured - float(figure)).min() <= half * (1 + 1e-9), f"{page.name}: {figure}"


def test_versions_agree():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    citation = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)[1]
    newest = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert {citation, newest, neuralreg.__version__} == {version}
