"""The panel after a registration as a picture: Resources/panel.png.

    python Testing/benchmark/screenshot.py FIXED MOVING Resources/panel.png [--preset Fast]

Runs the real panel and the real worker in the harness, as panel.py does. On a quiet computer: the picture tells the
time.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing" / "slicer"), str(ROOT / "NeuralRegistration")]

import conftest  # noqa: E402  (starts the harness)
import slicer  # noqa: E402
from clicks import wait_for  # noqa: E402
from harness.start import load_module  # noqa: E402

WIDTH = 400  # pixels, of a panel beside the views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--preset", default="Fast", type=str.capitalize)
    options = parser.parse_args()
    panel = load_module(conftest.MODULE_FILE)[2]
    panel.parent.resize(WIDTH, 1000)
    panel.parent.show()
    panel.ui.fixedSelector.setCurrentNode(slicer.util.loadVolume(str(options.fixed), {}))
    panel.ui.movingSelector.setCurrentNode(slicer.util.loadVolume(str(options.moving), {}))
    panel.ui.presetComboBox.setCurrentText(options.preset)
    wait_for(lambda: panel.logic.worker.ready)
    panel.ui.applyButton.click()
    wait_for(lambda: not panel.logic.running)
    for _ in range(3):  # rows find their height once the table has its width, and the panel its height after that
        panel.refresh()
        slicer.app.processEvents()
        panel.parent.resize(WIDTH, panel.parent.layout().heightForWidth(WIDTH))
        time.sleep(0.1)
    panel.parent.grab().save(str(options.picture))
    panel.cleanup()


if __name__ == "__main__":
    main()
