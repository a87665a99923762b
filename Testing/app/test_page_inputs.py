"""Masks, landmarks, a start and options in the page: chosen, checked before the run, part of the job; then evidence."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from serving import SECONDS
from test_page import answered, choose, download, says

# On a slow connection: what was chosen waits in the browser while a call is under way, and the click comes first.
HURRY = """() => {
  window.trame.client.getRemote().Trame.trigger("nothing", [], {});
  window.trame.state.set("linear", "none");
  document.querySelector("#register").click();
}"""
SIZES = "[...document.querySelectorAll('#views img')].map((view) => [view.naturalWidth, view.naturalHeight])"
SHIFT = (1.0, -0.5, 0.25)  # LPS mm
POINTS = np.array([(30.0, 40.0, 40.0), (50.0, 60.0, 45.0), (45.0, 45.0, 30.0)])  # LPS mm


@pytest.fixture(scope="module")
def extras(pair, tmp_path_factory):
    """A mask of each volume (a segmentation with layers for the moving one), an atlas, point lists, and a start."""
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
    sitk.WriteTransform(sitk.TranslationTransform(3, SHIFT), str(folder / "start.tfm"))
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
        extras / "start.tfm",
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
    assert loaded.input_value("#initial_transform") == "start"
    says(loaded, "#landmark-note", "guide the registration: 3")
    says(loaded, "#estimate", "an estimate until the first run")
    assert not loaded.locator("#cancel, #first").count()


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
    says(loaded, "#problem", "is no value for")
    loaded.wait_for_selector("#register[disabled]")
    loaded.wait_for_selector("#restore:not([disabled])")
    loaded.fill("#option-smoothness", "2.5")
    loaded.press("#option-smoothness", "Tab")
    loaded.wait_for_selector("#options .v-messages", state="detached")
    loaded.wait_for_selector("#register:not([disabled])")
    choose(loaded, "method", "Cas-DNVF")
    loaded.wait_for_selector("#option-network")
    choose(loaded, "option-network", "FNOReg")
    loaded.wait_for_selector("#restore:not([disabled])")
    loaded.click("#restore")
    loaded.wait_for_selector("#restore[disabled]")
    choose(loaded, "method", "DNVF")
    loaded.wait_for_function("document.querySelector('#option-smoothness')?.value === '2.5'")


def test_lists_of_another_length_count_once_all_of_them_have_it(loaded):
    if not loaded.is_visible("#seed"):
        loaded.click("#advanced")
    choose(loaded, "method", "Cas-DNVF")
    loaded.wait_for_selector("#option-network")
    lists = {"image_factors": "4,2", "velocity_factors": "6,3", "iterations": "9,5", "windows": "5,5", "strides": "1,1"}
    for number, (name, text) in enumerate(lists.items()):
        if number:
            says(loaded, "#problem", "lists of one length")
        loaded.fill(f"#option-{name}", text)
        loaded.press(f"#option-{name}", "Tab")
    loaded.wait_for_selector("#options .v-messages", state="detached")
    loaded.wait_for_selector("#register:not([disabled])")
    loaded.click("#restore")
    choose(loaded, "method", "DNVF")


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
    assert sitk.ReadTransform(job["initial_transform"]).TransformPoint((1, 2, 3)) == pytest.approx(
        np.add(SHIFT, (1, 2, 3))
    )
    masks = [sitk.GetArrayFromImage(sitk.ReadImage(job[f"{side}_mask"])) for side in ("fixed", "moving")]
    assert np.array_equal(masks[0], masks[1]) and set(np.unique(masks[0])) == {0, 1}, "layers count together"
    for side, points in (("fixed", POINTS), ("moving", POINTS + 2)):
        assert np.allclose(np.loadtxt(job[f"{side}_landmarks"], delimiter=",", skiprows=1)[:, :3], points)
    rows = dict(row.split("\t")[-2:] for row in loaded.locator("#checks tr").all_inner_texts())
    assert rows["Guiding landmarks"].startswith("mean 3.5 → ") and "Displacement" in rows


def test_evidence_after_the_run_is_measured_and_reported(loaded, pair, extras, tmp_path):
    assert "Overlap" not in loaded.locator("#checks").inner_text()
    says(loaded, "#estimate", "going by runs on this computer")
    for name, part in (("seen_here", 60), ("seen_there", 70)):
        labels = sitk.Cast(sitk.ReadImage(str(pair[0])) > part, sitk.sitkUInt8)
        sitk.WriteImage(labels, str(tmp_path / f"{name}.nii.gz"))
        (tmp_path / f"{name}.csv").write_text("x,y,z\n40,44,30\n")
    loaded.set_input_files("#files", [str(path) for path in sorted(tmp_path.iterdir())])
    loaded.wait_for_selector("#measure:not([disabled])")
    for role in ("fixed_structures", "fixed_evidence"):
        assert loaded.input_value(f"#{role}").startswith("seen_here")
    loaded.click("#measure")
    says(loaded, "#checks", "Overlap: 1")
    rows = dict(row.split("\t")[-2:] for row in loaded.locator("#checks tr").all_inner_texts())
    assert 0.5 < float(rows["Overlap of structures (Dice)"]) < 1 and rows["Landmarks (TRE)"].startswith("mean ")
    report = download(loaded, "report", tmp_path).read_text(encoding="utf-8")
    assert "Overlap of structures (Dice)" in report and rows["Overlap of structures (Dice)"] in report


def test_a_run_s_transform_can_be_the_next_start(loaded):
    loaded.click(".v-select:has(#initial_transform)")
    items = loaded.locator(".v-overlay--active .v-list-item")
    items.nth(2).wait_for()
    assert [text.strip() for text in items.all_text_contents()] == [
        "start", "second to first (DNVF)", "second to first (DNVF) inverse",
    ]  # fmt: skip
    loaded.keyboard.press("Escape")
    loaded.wait_for_selector(".v-overlay--active", state="detached")


def test_a_second_window_says_that_it_mirrors_the_first(loaded, browser, site):
    assert not loaded.locator("#windows").count()
    answered(loaded)
    sizes = loaded.evaluate(SIZES)
    second = browser.new_page(viewport={"width": 800, "height": 700})
    second.set_default_timeout(1000 * SECONDS)
    second.goto(site.address)
    says(second, "#windows", "2 windows")
    says(loaded, "#windows", "2 windows")
    loaded.wait_for_function(f"sizes => ({SIZES}).toString() !== sizes.toString()", arg=sizes)
    answered(second)
    second.close()
    loaded.wait_for_selector("#windows", state="detached")
    loaded.wait_for_function(f"sizes => ({SIZES}).toString() === sizes.toString()", arg=sizes)


def test_names_that_differ_by_their_ending_only_stay_apart(loaded, pair, tmp_path):
    names = ["scan.1.nii", "scan.1.nii.gz", "scan.1.nrrd", "scan.2.nrrd"]
    for name in names:
        sitk.WriteImage(sitk.ReadImage(str(pair[0])), str(tmp_path / name))
    loaded.set_input_files("#files", [str(tmp_path / name) for name in names])
    loaded.wait_for_function("window.trame.state.get('volumes').length === 11")  # with the seven from before
    loaded.click(".v-select:has(#fixed)")
    items = loaded.locator(".v-overlay--active .v-list-item")
    items.nth(10).wait_for()
    shown = [text.strip() for text in items.all_text_contents()]
    assert {"scan.1", "scan.1.nii.gz", "scan.1.nrrd", "scan.2"} <= set(shown) and len(set(shown)) == len(shown)
    loaded.keyboard.press("Escape")
