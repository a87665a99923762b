"""The panel and the slice views as pictures: nothing cut off at 400 px, every state drawn, the grid over the image.

NEURALREG_PICTURES may name a folder in which the pictures are kept, to be looked at.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from clicks import play, register
from fakerun import GRIDS, add_volume, write_run
from NeuralRegistrationLib import look, results
from NeuralRegistrationLib.results import runs
from NeuralRegistrationLib.scene import load_run

pytestmark = pytest.mark.harness_only


@pytest.fixture
def folder(tmp_path):
    kept = Path(os.environ.get("NEURALREG_PICTURES", tmp_path))
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def pixels(path):
    from PySide6 import QtGui

    image = QtGui.QImage(str(path)).convertToFormat(QtGui.QImage.Format_RGBA8888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine() // 4, 4)
    return rows[..., :3].copy()  # the memory is the image's, which ends here


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_panel_in_every_state(panel, wait, folder, dark):
    from harness import pictures
    from PySide6 import QtWidgets

    application = QtWidgets.QApplication.instance()
    before = application.palette()
    application.setStyle("Fusion")
    if dark:
        pictures.use_dark_style(application)
    drawn = {}

    def draw(state):
        path = folder / f"panel_{state}_{'dark' if dark else 'light'}.png"
        pictures.save_panel(panel.parent, path)
        drawn[state] = pixels(path)

    try:
        moving = panel.parameters.movingVolume
        panel.ui.movingSelector.setCurrentNode(None)
        draw("empty")
        panel.ui.movingSelector.setCurrentNode(moving)
        draw("ready")
        play(panel, "endless")
        panel.ui.applyButton.click()
        wait(lambda: panel.ui.progressBar.value > 500)
        draw("running")
        panel.ui.stopButton.click()
        wait(lambda: not panel.logic.running)
        draw("done")
        play(panel, "killed")
        panel.ui.applyButton.click()
        wait(lambda: not panel.logic.running)
        draw("failed")
    finally:
        application.setPalette(before)
    for picture in drawn.values():
        assert picture.shape[1] == pictures.PANEL_WIDTH
        assert (picture.mean() < 90) == dark
    shapes = {picture.shape[0] for picture in drawn.values()}
    assert len(shapes) == 5, "every state looks different"


def test_every_check_can_be_read_at_400_pixels(panel, wait, folder):
    """Also the longest figure: the names beside it were cut down to two letters."""
    from harness import pictures

    register(panel, wait)
    run, table = runs()[0], panel.ui.trustTable
    points = {"tre_mean_mm": 12.25, "tre_max_mm": 25.25, "landmarks": 25, "landmarks_guiding": 25}
    results.write_measurements(run.table, {**run.measurements, **points})
    panel.refresh()
    pictures.save_panel(panel.parent, folder / "panel_landmarks.png")
    assert "guided the registration" in table.item(3, 1).text()
    assert table.columnWidth(0) > 0.3 * table.width and table.columnWidth(0) + table.columnWidth(1) <= table.width


def test_nothing_is_cut_off_at_400_pixels(panel):
    for name in ("start", "advanced", "outputs", "look", "trust", "evidence", "apply", "batch", "models"):
        getattr(panel.ui, f"{name}Section").collapsed = False
    assert panel.parent.minimumSizeHint.width() <= 400


def test_slice_views_show_overlay_and_grid(scene, tmp_path, folder):
    from harness import pictures

    fixed, moving = add_volume("fixed", GRIDS["axial"]), add_volume("moving", GRIDS["oblique"])
    write_run(tmp_path, fixed, moving)
    run = load_run(tmp_path, fixed, moving, "run")
    look.show_after(run)
    try:
        pictures.save_slice("Red", folder / "slice_overlay.png", (240, 240))
    except RuntimeError as error:
        pytest.skip(f"no off-screen rendering here: {error}")
    plain = pixels(folder / "slice_overlay.png").astype(int)
    assert plain.max() > 100 and np.ptp(plain, axis=-1).max() < 10  # grey values only
    look.show_grid(run, True)
    pictures.save_slice("Red", folder / "slice_grid.png", (240, 240))
    assert np.ptp(pixels(folder / "slice_grid.png").astype(int), axis=-1).max() > 100  # coloured lines
    look.show_grid(run, False)
    look.show_map(run, run.jacobian)
    pictures.save_slice("Red", folder / "slice_jacobian.png", (240, 240))
    assert not np.array_equal(pixels(folder / "slice_jacobian.png"), plain)
