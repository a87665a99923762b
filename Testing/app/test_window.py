"""The page in windows of other sizes: the views show what they showed, and a phone gets the panel above them."""

import numpy as np
import pytest
import SimpleITK as sitk
from test_page import changed, views

WIDE, NARROW, PHONE = (1400, 900), (820, 900), (390, 844)
DARK = 25  # grey value: darker are the slices outside the body, and nothing of the background of the 3D view
CORNER = 0.05  # of the height, by which the corner of a slice may touch the side of the 3D view
ALIKE = 1.5  # mean difference of grey values, as JPEG makes it


@pytest.fixture(scope="module")
def loaded(page, pair):
    empty = views(page)
    page.set_input_files("#files", [str(path) for path in pair])
    page.wait_for_selector("#register:not([disabled])")
    changed(page, empty)
    return page


@pytest.fixture
def shown(loaded, tmp_path):
    """Call it for the grey values of the views (axial, coronal, 3D, sagittal) in a window of that size."""

    def resized(size: tuple[int, int] | None = None) -> list[np.ndarray]:
        before = views(loaded)
        if size is not None:
            resize(loaded, size)
            changed(loaded, before)
        return [grey(view.screenshot(), tmp_path) for view in loaded.locator("#views .layout-grid-item").all()]

    yield resized
    resize(loaded, WIDE)


def resize(page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})


def grey(png: bytes, folder) -> np.ndarray:
    path = folder / "view.png"
    path.write_bytes(png)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[2:-2, 2:-2, :3].mean(axis=-1)  # without the frame


def difference(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    return max(np.abs(one - other).mean() for one, other in zip(first, second, strict=True))


def width_of_body(view: np.ndarray) -> int:
    """In pixels, over the middle of a slice; all of it is to be seen."""
    middle = view[len(view) // 2 - 5 : len(view) // 2 + 5].mean(axis=0)
    assert max(middle[0], middle[-1]) < DARK < middle[len(middle) // 2], "the sides of the volume are cut off"
    return int((middle > DARK).sum())


@pytest.mark.parametrize("size", [NARROW, PHONE, (1400, 450)])
def test_no_view_loses_a_part_of_the_volume(shown, size):
    axial, coronal, space, sagittal = shown(size)
    for view in (axial, coronal, sagittal):
        assert width_of_body(view) > 0.6 * min(view.shape), "the slice fills its view"
    for side in (space[:, 0], space[:, -1]):
        assert (side < DARK).mean() < CORNER, "a slice reaches beyond the 3D view"


def test_the_user_s_zoom_and_place_outlive_another_window(loaded, shown):
    fitted, fitted_narrow = shown(), shown(NARROW)
    assert difference(shown(WIDE), fitted) < ALIKE
    drag(loaded, "right", (0, -60))
    drag(loaded, "middle", (30, 0))
    zoomed = shown()
    ratio = width_of_body(zoomed[0]) / width_of_body(fitted[0])
    assert ratio < 0.9 and difference(zoomed, fitted) > 4 * ALIKE
    assert width_of_body(shown(NARROW)[0]) / width_of_body(fitted_narrow[0]) == pytest.approx(ratio, rel=0.06)
    assert difference(shown(WIDE), zoomed) < ALIKE


def drag(page, button: str, step: tuple[float, float]) -> None:
    """From the middle of the axial view: the right button zooms, the middle one moves."""
    before, box = views(page), page.locator("#views .layout-grid-item").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down(button=button)
    page.mouse.move(x + step[0], y + step[1], steps=4)
    page.mouse.up(button=button)
    page.mouse.move(0, 0)
    changed(page, before)


def test_a_phone_has_the_panel_above_views_as_wide_as_itself(loaded, shown):
    shown(PHONE)
    panel, below = (loaded.locator(name).bounding_box() for name in ("#panel", "#views"))
    assert below["width"] == panel["width"] == PHONE[0] and below["y"] == panel["y"] + panel["height"]
    shown(NARROW)
    panel, beside = (loaded.locator(name).bounding_box() for name in ("#panel", "#views"))
    assert beside["x"] == panel["x"] + panel["width"] and beside["width"] == NARROW[0] - panel["width"]
