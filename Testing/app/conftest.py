"""What the tests of the page share: a small pair of volumes and a headless browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

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
            chromium = running.chromium.launch(executable_path=found, args=BROWSER_ARGUMENTS)
        except playwright.Error as error:
            reason = str(error).splitlines()[0]
            pytest.skip(f"no browser ({reason}): `playwright install chromium`, or install the package chromium")
        yield chromium
        chromium.close()
