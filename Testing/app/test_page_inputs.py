"""Masks, landmarks and the options of a method in the page: chosen, checked before the run, and part of the job."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from test_page import choose, says

# On a slow connection: what was chosen waits in the browser while a call is under way, and the click comes first.
HURRY = """() => {
  window.trame.client.getRemote().Trame.trigger("nothing", [], {});
  window.trame.state.set("linear", "none");
  document.querySelector("#register").click();
}"""
POINTS = np.array([(30.0, 40.0, 40.0), (50.0, 60.0, 45.0), (45.0, 45.0, 30.0)])  # LPS mm


@pytest.fixture(scope="module")
def extras(pair, tmp_path_factory):
    """A mask of each volume (a segmentation with layers for the moving one), an atlas, and point lists."""
    folder = tmp_path_factory.mktemp("extras")
    image = sitk.ReadImage(str(pair[0]))
    body = image > 50
    sitk.WriteImage(body, str(folder / "body.nii.gz"))
    half = sitk.GetArrayFromImage(body)
    half[:, :, 15:] = 0
    blocks = np.indices(half.shape) // 6
    regions = sitk.GetImageFromArray((1 + blocks[0] + 10 * blocks[1] + 100 * blocks[2]).astype(np.int16))
    regions.CopyInformation(body)
    sitk.WriteImage(regions, str(folder / "atlas.nii.gz"))  # read before the volumes, and with many labels
    layers = [body, sitk.GetImageFromArray(half)]
    layers[1].CopyInformation(body)
    sitk.WriteImage(sitk.Compose(layers), str(folder / "drawn.seg.nrrd"))
    for name, points in (("fixed", POINTS), ("moving", POINTS + 2), ("short", POINTS[:2])):
        rows = "\n".join(",".join(map(str, point)) for point in points)
        (folder / f"{name}_points.csv").write_text(f"x,y,z\n{rows}\n")
    return folder


@pytest.fixture(scope="module")
def loaded(page, pair, extras):
    """Everything in one upload: what is a mask or a point list is not taken for a volume to register."""
    files = [
        *pair,
        extras / "body.nii.gz",
        extras / "drawn.seg.nrrd",
        extras / "atlas.nii.gz",
        *sorted(extras.glob("*_points.csv")),
    ]
    page.set_input_files("#files", [str(path) for path in files])
    page.wait_for_selector("#landmark-note")
    page.wait_for_function("document.querySelector('#moving')?.value === 'second'")
    page.wait_for_selector("#register:not([disabled])")
    return page


def test_each_file_finds_its_place(loaded):
    assert loaded.input_value("#fixed") == "first"
    assert loaded.input_value("#fixed_points") == "fixed_points"
    assert loaded.input_value("#moving_points") == "moving_points"
    assert not loaded.input_value("#fixed_mask") and not loaded.input_value("#moving_mask")
    says(loaded, "#landmark-note", "guide the registration: 3")
    assert not loaded.locator("#cancel").count()


def test_what_stands_in_the_way_is_said_before_the_run(loaded):
    choose(loaded, "moving_points", "short_points")
    says(loaded, "#landmark-note", "3 and 2 points")
    says(loaded, "#problem", "3 and 2 points")
    loaded.wait_for_selector("#register[disabled]")
    choose(loaded, "moving_points", "moving_points")
    loaded.wait_for_selector("#register:not([disabled])")
    choose(loaded, "method", "FNOReg")
    says(loaded, "#landmark-note", "Set Refine under Advanced")
    loaded.wait_for_selector("#register:not([disabled])")
    choose(loaded, "method", "DNVF")
    says(loaded, "#landmark-note", "guide the registration: 3")


def test_options_are_the_method_s_own_and_checked(loaded):
    loaded.click("#advanced")
    loaded.fill("#seed", "-1")
    says(loaded, "#problem", "seed")
    loaded.fill("#seed", "5")
    loaded.wait_for_selector("#problem", state="detached")
    loaded.fill("#option-smoothness", "much")
    loaded.press("#option-smoothness", "Tab")
    says(loaded, "#options .v-messages", "is no value for")
    loaded.wait_for_selector("#restore:not([disabled])")
    loaded.fill("#option-smoothness", "2.5")
    loaded.press("#option-smoothness", "Tab")
    loaded.wait_for_selector("#options .v-messages", state="detached")
    choose(loaded, "method", "Cas-DNVF")
    loaded.wait_for_selector("#option-network")
    choose(loaded, "option-network", "FNOReg")
    loaded.wait_for_selector("#restore:not([disabled])")
    loaded.click("#restore")
    loaded.wait_for_selector("#restore[disabled]")
    choose(loaded, "method", "DNVF")
    loaded.wait_for_function("document.querySelector('#option-smoothness')?.value === '2.5'")


def test_all_of_it_is_in_the_job_and_the_table_owns_up(loaded, site):
    choose(loaded, "fixed_mask", "body")
    choose(loaded, "moving_mask", "drawn.seg")
    choose(loaded, "contrast", "Same")
    choose(loaded, "device", "CPU only")
    says(loaded, "#computes", "as chosen")
    choose(loaded, "preset", "Fast")
    loaded.evaluate(HURRY)
    loaded.wait_for_selector("#trust")
    (path,) = site.folder.glob("*/NeuralRegistration-*/run/job.json")
    job = json.loads(path.read_text(encoding="utf-8"))
    assert job["options"] == {"smoothness": 2.5} and job["similarity"] == "lncc" and job["affine"] == "none"
    assert job["device"] == "cpu" and job["seed"] == 5
    masks = [sitk.GetArrayFromImage(sitk.ReadImage(job[f"{side}_mask"])) for side in ("fixed", "moving")]
    assert np.array_equal(masks[0], masks[1]) and set(np.unique(masks[0])) == {0, 1}, "layers count together"
    for side, points in (("fixed", POINTS), ("moving", POINTS + 2)):
        assert np.allclose(np.loadtxt(job[f"{side}_landmarks"], delimiter=",", skiprows=1)[:, :3], points)
    rows = dict(row.split("\t")[-2:] for row in loaded.locator("#checks tr").all_inner_texts())
    assert rows["Guiding landmarks"].startswith("mean 3.5 → ") and "Displacement" in rows


def test_names_that_differ_by_their_ending_only_stay_apart(loaded, pair, tmp_path):
    names = ["scan.1.nii", "scan.1.nii.gz", "scan.1.nrrd", "scan.2.nrrd"]
    for name in names:
        sitk.WriteImage(sitk.ReadImage(str(pair[0])), str(tmp_path / name))
    loaded.set_input_files("#files", [str(tmp_path / name) for name in names])
    loaded.wait_for_function("window.trame.state.get('volumes').length === 9")  # with the five from before
    loaded.click(".v-select:has(#fixed)")
    items = loaded.locator(".v-overlay--active .v-list-item")
    items.nth(8).wait_for()
    shown = [text.strip() for text in items.all_text_contents()]
    assert {"scan.1", "scan.1.nii.gz", "scan.1.nrrd", "scan.2"} <= set(shown) and len(set(shown)) == len(shown)
    loaded.keyboard.press("Escape")
