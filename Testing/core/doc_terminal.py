"""Whoever types the commands of a page: in a copy of the repository, with the files that the pages speak of.

Every program has its way of being run here (PROGRAMS); a command without one fails. Where a command would need a
network, a GPU, another computer, Slicer or hours, the docstring of its way says what is left out; the rest is done.
"""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from child import CORE, ENVIRONMENT, PATIENCE, two_processes
from doc_pages import Block, commands
from neuralreg import __version__, cli
from packaging.requirements import Requirement
from run_folder import write_run

SHELL = set("|&;<>$`(){}")  # a block with one of these in a command is for a shell
WITHIN_SHELL = {"neuralreg", "mkdir", "cp", "mv", "wait"}
# Slicer's part of run_in_slicer.py is played by the harness.
IN_HARNESS = """import importlib.util, runpy, sys
spec = importlib.util.spec_from_file_location("harness", "Testing/harness/__init__.py",
                                              submodule_search_locations=["Testing/harness"])
sys.modules["harness"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["harness"])
from harness.start import boot
boot()
import slicer.util
slicer.util.exit = sys.exit
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")"""


class Terminal:
    """Types one block after another in `home`, each from there. Raises AssertionError for what does not work."""

    def __init__(self, home: Path):
        self.home = home

    def type(self, block: Block) -> None:
        os.chdir(self.home)
        lines = commands(block)
        if any(SHELL & set(line) for line in lines):
            self._script(block.code, lines)
            return
        for line in lines:
            words = shlex.split(line, comments=True)
            name = Path(words[0]).name
            assert name in PROGRAMS, f"nothing here knows how to run `{line}`: give {name} a way in PROGRAMS"
            PROGRAMS[name](self, words)

    def _script(self, code: str, lines: list[str]) -> None:
        parts = [part.split() for line in lines for part in re.split("[|&;]+", line)]
        unknown = {words[0] for words in parts if words} - WITHIN_SHELL
        assert not unknown, f"nothing here knows how to run {unknown}: add them to WITHIN_SHELL"
        self.run("bash", "-ec", code)

    def run(self, *words: str, **variables: str) -> str:
        """Run a program where `neuralreg` and `python` are this checkout and this interpreter; returns what it says."""
        done = subprocess.run(
            words, env={**self._shell(), **variables}, capture_output=True, encoding="utf-8", timeout=PATIENCE
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    def _shell(self) -> dict[str, str]:
        scripts = self.home / ".scripts"
        scripts.mkdir(exist_ok=True)
        for name, call in (("python", '"$@"'), ("neuralreg", '-m neuralreg "$@"')):
            script = scripts / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call}\n', encoding="utf-8")
            script.chmod(0o755)
        paths = os.pathsep.join((str(scripts), ENVIRONMENT["PATH"]))
        # Passive: threads that wait for each other on busy cores must not burn them.
        return {**ENVIRONMENT, "PATH": paths, "PYTHONPATH": str(CORE), "OMP_WAIT_POLICY": "PASSIVE"}

    def neuralreg(self, words: list[str]) -> None:
        """In this process, as its script would call it, so that torch is imported once."""
        words = on_this_computer(words)
        assert cli.main(words[1:]) == 0, words
        for option in ("-o", "--output", "--json"):
            if option in words:
                assert Path(words[words.index(option) + 1]).exists(), f"{words} wrote nothing"

    def cd(self, words: list[str]) -> None:
        os.chdir(words[1])

    def python(self, words: list[str]) -> None:
        """`-m venv`: pip is not copied into it, as that of this environment will do. `-m benchmark`: see there."""
        if words[1:3] == ["-m", "benchmark"]:
            self._benchmark(words)
        else:
            assert words[1:3] == ["-m", "venv"], f"nothing here knows how to run {words}"
            self.run(*words, "--without-pip")

    def _benchmark(self, words: list[str]) -> None:
        """On one pair of a miniature of the data; what is not installed is listed with its error."""
        if "run" in words:
            words = [str(miniature(self.home / "DIR")) if word == "DIR" else word for word in words]
            self.run(*words, "--datasets", "brain_labelled", "--pairs", "1", "--threads", "1")
            return
        if "--plot" in words and not installed("matplotlib"):
            words = words[: words.index("--plot")]
        told = self.run(*words)
        assert all(f"| {name} |" in told for name in ("DNVF:balanced", "ants", "greedy", "elastix")), told

    def pip(self, words: list[str]) -> None:
        """Builds and installs the project, without network: its requirements are those of this environment, and those
        of an extra are held against what is here of them. The installed program then runs.
        """
        if not (installed("pip") and installed("setuptools>=77")):
            pytest.skip("pip and setuptools 77 are not installed (extra `test`)")
        python = Path(words[0]).parent / "python" if "/" in words[0] else self.home / ".own" / "bin" / "python"
        if not python.exists():
            self.run("python", "-m", "venv", "--without-pip", str(python.parents[1]))
        libraries = sysconfig.get_path("purelib")
        options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
        self.run(str(python), "-m", "pip", *words[1:], *options, PYTHONPATH=libraries)
        place = self.run(str(python), "-c", "import neuralreg; print(neuralreg.__file__)", PYTHONPATH="").strip()
        assert Path(place).is_relative_to(self.home), f"{place} is not what was installed"
        program = str(python.with_name("neuralreg"))
        assert f"neuralreg {__version__}" in self.run(program, "--version", PYTHONPATH="")
        for extra in re.findall(r"\[([\w,]+)\]", " ".join(words)):
            check_extras(python, extra.split(","))
        if words[-1] == ".":  # from its own place, with the models that come along
            assert "voxelmorph" in self.run(program, "models", PYTHONPATH=libraries)

    def demo(self, words: list[str]) -> None:
        """With the environment that is here, on the phantom, the fastest preset, and without the page at its end;
        Testing/app/test_start.py shows a result in the page.
        """
        options = ("--no-browser", "--offline", "--preset", "fast")
        told = self.run("bash", words[0], *words[1:], *options, NEURALREG_ENVIRONMENT=sys.prefix)
        report = Path(told.split()[-1])
        assert report.is_relative_to(self.home) and report.stat().st_size > 10_000

    def test(self, words: list[str]) -> None:
        """With the environment that is here; without a file, which would run this test again, a small one is given."""
        given = words[1:] or ["Testing/release/test_extension.py"]
        told = self.run("bash", words[0], *given, NEURALREG_ENVIRONMENT=sys.prefix)
        assert " passed" in told and "All checks passed!" in told

    def torchrun(self, words: list[str]) -> None:
        """Two processes without GPUs, from the first iteration on."""
        if not torch.distributed.is_available():
            pytest.skip("this PyTorch has no torch.distributed")
        words = on_this_computer(words)
        output = Path(words[words.index("--output") + 1])
        shutil.rmtree(output, ignore_errors=True)
        start = words.index("-m")
        assert words[1:start] == ["--nproc-per-node", words[2]]
        done = two_processes(words[start:], self._shell())
        assert done.returncode == 0 and (output / "model.pt").exists(), done.stderr[-4000:]

    def ssh(self, words: list[str]) -> None:
        """Nobody is called: ssh says how it reads the line, and the ports are held against what the page listens to.

        Testing/app/test_start.py does what the other computer would: it starts the page.
        """
        start = words.index("neuralreg")
        options = cli.parser().parse_args(words[start + 1 :])
        assert words[start + 1] == "app" and options.no_browser and options.host == "127.0.0.1"
        assert words[words.index("-L") + 1] == f"{options.port}:{options.host}:{options.port}"
        if shutil.which("ssh"):
            told = self.run("ssh", "-F", "none", "-G", *words[1:start])
            assert f"localforward {options.port} [{options.host}]:{options.port}" in told
            assert "requesttty true" in told, "without a terminal Ctrl-C would leave the page running over there"

    def python_slicer(self, words: list[str]) -> None:
        """This Python stands in for Slicer's, and has pytest."""
        self.run("python", *words[1:], "--no-index")

    def slicer(self, words: list[str]) -> None:
        """The same script in the harness, with one file of tests; for all of them Slicer is needed."""
        if not (installed("slicer-core") and installed("PySide6-Essentials")):
            pytest.skip("the harness needs slicer-core and PySide6-Essentials (extra `slicer`)")
        script = words[words.index("--python-script") + 1]
        told = self.run("python", "-c", IN_HARNESS, script, "-k", "test_scene_export")
        assert " passed" in told and "failed" not in told


PROGRAMS: dict[str, Callable[[Terminal, list[str]], None]] = {
    "neuralreg": Terminal.neuralreg,
    "cd": Terminal.cd,
    "python": Terminal.python,
    "pip": Terminal.pip,
    "demo.sh": Terminal.demo,
    "test.sh": Terminal.test,
    "torchrun": Terminal.torchrun,
    "ssh": Terminal.ssh,
    "PythonSlicer": Terminal.python_slicer,
    "Slicer": Terminal.slicer,
}


def on_this_computer(words: list[str]) -> list[str]:
    """The processor where there is no GPU."""
    return words if torch.cuda.is_available() else ["cpu" if word == "cuda" else word for word in words]


def installed(requirement: str) -> bool:
    wanted = Requirement(requirement)
    try:
        return importlib.metadata.version(wanted.name) in wanted.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


def check_extras(python: Path, extras: list[str]) -> None:
    """The wheel knows the extras, and what is here of their requirements has a version that they allow."""
    (info,) = (python.parents[1] / "lib").glob("python*/site-packages/neuralreg-*.dist-info")
    built = importlib.metadata.PathDistribution(info)
    assert set(extras) <= set(built.metadata.get_all("Provides-Extra"))
    for requirement in map(Requirement, built.requires):
        if requirement.marker and any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            name = requirement.name
            # slicer-core: the panel's tests pin one version, the page brings another.
            if installed(name) and name != "slicer-core":
                assert importlib.metadata.version(name) in requirement.specifier, requirement


def miniature(folder: Path) -> Path:
    """A data set as the benchmark wants it: two small brains, both of them phantoms."""
    write_run(folder / "made")
    brains = folder / "brain_labelled"
    brains.mkdir()
    for subject, role in (("1", "fixed"), ("2", "moving")):
        shutil.copy(folder / "made" / f"{role}.nii.gz", brains / f"{subject}_T1w_brain.nii.gz")
        shutil.copy(folder / "made" / f"{role}_labels.nii.gz", brains / f"{subject}_labels.nii.gz")
    return folder
