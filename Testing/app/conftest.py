"""What the tests of the page share: a small pair of volumes and a headless browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

MILLISECONDS = 240_000  # for whatever computes, on a busy computer
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A browser that asks nobody on the network, in a container, without a GPU.
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                     "--disable-background-networking", "--disable-component-update"]  # fmt: skip


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """Two small volumes, fixed and moving: a body with structures, and the same body bent by some millimetres."""
    import SimpleITK as sitk

    folder = tmp_path_factory.mktemp("pair")
    index = np.stack(np.meshgrid(*[np.arange(n) for n in (28, 32, 30)], indexing="ij"), axis=-1) * 3.0
    place = index - index.reshape(-1, 3).mean(axis=0)
    paths = []
    for name, bend in (("first", 0.0), ("second", 5.0)):
        z, y, x = np.moveaxis(place + bend * np.exp(-(place**2).sum(-1, keepdims=True) / 650), -1, 0)
        inside = 1 / (1 + np.exp(((x / 34) ** 2 + (y / 38) ** 2 + (z / 32) ** 2 - 1) * 12))
        grey = inside * (100 + 60 * np.exp(-((x - 12) ** 2 + y**2 + z**2) / 90) + 12 * np.sin(x / 4) * np.sin(y / 5))
        image = sitk.GetImageFromArray(grey.astype(np.float32))
        image.SetSpacing((3.0, 3.0, 3.0))
        paths.append(folder / f"{name}.nii.gz")
        sitk.WriteImage(image, str(paths[-1]))
    return tuple(paths)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium: the system's, else the one that playwright has fetched."""
    playwright = pytest.importorskip("playwright.sync_api", reason="these tests need a browser: pip install playwright")
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    with playwright.sync_playwright() as running:
        try:
            chromium = running.chromium.launch(executable_path=found, args=BROWSER_ARGUMENTS, timeout=MILLISECONDS)
        except playwright.Error as error:
            reason = str(error).splitlines()[0]
            pytest.skip(f"no browser ({reason}): `playwright install chromium`, or install the package chromium")
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A page for the tests of one file; at the end it has left nothing behind."""
    from serving import Site  # skips where there can be no page

    one = Site(tmp_path_factory.mktemp("page"))
    yield one
    assert one.stop() == 0, one.log()
    assert not list(one.folder.iterdir()), "the page left files behind"
    assert "Traceback" not in one.log(), one.log()


@pytest.fixture(scope="module")
def page(browser, site):
    """The page in a browser, without an error of its scripts up to the end."""
    tab = browser.new_page(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    tab.set_default_timeout(MILLISECONDS)
    problems = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(site.address)
    tab.wait_for_selector("#register")
    yield tab
    tab.close()
    assert not problems
