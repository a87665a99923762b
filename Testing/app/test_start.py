"""How the page begins, by the very commands of docs/app.md, and how it ends in the middle of a run."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from serving import ENVIRONMENT, SECONDS, Site
from test_page import answered, download, make_endless, says

PAGE = Path(__file__).resolve().parents[2] / "docs" / "app.md"
# Also what ssh runs at its far end.
COMMANDS = re.findall(r"^(?:ssh .* )?neuralreg app(.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def home(pair, tmp_path_factory):
    """The files of which the documentation speaks: a pair, and the output folder of a run."""
    folder = tmp_path_factory.mktemp("home")
    for path, name in zip(pair, ("fixed", "moving"), strict=True):
        shutil.copy(path, folder / f"{name}.nii.gz")
    python = os.environ.get("NEURALREG_TEST_PYTHON") or sys.executable
    words = ["register", "fixed.nii.gz", "moving.nii.gz", "-o", "result", "--preset", "fast"]
    command = [str(Path(python).absolute()), "-m", "neuralreg", *words]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def begin(browser, home, tmp_path):
    """`begin(arguments)` starts a page and opens it: (site, tab)."""
    started = []

    def start(*arguments):
        site = Site(tmp_path, *arguments, home=home)
        started.append(site)
        tab = browser.new_page(viewport={"width": 1400, "height": 900}, accept_downloads=True)
        tab.set_default_timeout(1000 * SECONDS)
        tab.goto(site.address)
        tab.wait_for_selector("#register")
        return site, tab

    yield start
    for site in started:
        if site.process.poll() is None:
            site.stop()


@pytest.mark.parametrize("arguments", COMMANDS)
def test_the_commands_of_the_documentation_open_the_page(begin, arguments, tmp_path):
    words = shlex.split(arguments)
    port = words[words.index("--port") + 1] if "--port" in words else ""
    if port and taken(int(port)):
        pytest.skip(f"another program has port {port}")
    site, tab = begin(*words)
    assert f":{port}" in site.root
    if words and not port:
        tab.wait_for_function("document.querySelector('#moving')?.value === 'moving'")
        assert tab.input_value("#fixed") == "fixed"
    if words == ["result"]:  # as if it had just been made
        says(tab, "#checks", "Similarity of the images")
        tab.wait_for_selector("#register:not([disabled])")
        report = download(tab, "report", tmp_path).read_text(encoding="utf-8")
        assert "Similarity of the images" in report
    assert site.stop() == 0 and not list(site.folder.iterdir()) and "Traceback" not in site.log()


def taken(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_the_documentation_shows_each_way_to_begin():
    assert {arguments.strip() for arguments in COMMANDS} == {
        "", "fixed.nii.gz moving.nii.gz", "result", "--no-browser --port 8800",
    }  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="has no second address of its own")
def test_whoever_comes_from_elsewhere_cannot_name_files_of_this_computer(begin, home):
    site, tab = begin("--host", "127.0.0.2")
    assert "Others on the network" in site.log() and not tab.locator("#path").count()
    tab.evaluate("window.trame.state.set('paths', true)")
    tab.fill("#path", str(home / "fixed.nii.gz"))
    tab.press("#path", "Enter")
    answered(tab)
    assert not tab.evaluate("window.trame.state.get('reading') || window.trame.state.get('message')")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc for processes")
def test_the_end_of_the_page_is_the_end_of_its_run(begin):
    site, tab = begin("fixed.nii.gz", "moving.nii.gz")
    tab.wait_for_selector("#register:not([disabled])")
    make_endless(tab)
    tab.click("#register")
    tab.wait_for_selector("#curve polyline")
    children = descendants(site.process.pid)
    assert children
    assert site.stop(signal.SIGTERM) == 0, site.log()
    assert not list(site.folder.iterdir()) and "Traceback" not in site.log()
    end = time.monotonic() + SECONDS
    while any(map(alive, children)):
        assert time.monotonic() < end, "the run goes on without its page"
        time.sleep(0.1)


def status(pid: int) -> list[str]:
    """State, parent and so on of a process; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(pid: int) -> bool:
    return bool(status(pid)) and status(pid)[:1] != ["Z"]


def descendants(pid: int) -> set[int]:
    every = {int(path.name): status(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    children = {child for child, fields in every.items() if fields and int(fields[1]) == pid}
    return children.union(*map(descendants, children))
