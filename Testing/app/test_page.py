"""The page in a real browser: load, register, look, download, reload, cancel, stop and keep."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import SimpleITK as sitk
from serving import SECONDS

OPEN_SCENE = Path(__file__).with_name("open_scene.py")
GREY_VALUES = 0.5  # by which ITK's and our interpolation may differ; the volumes reach from 0 to 170
STILL = 4  # equal pictures in a row, half a second apart, with an answer of the page before each

# What is there only while a run goes on is written down as it comes: a browser that gets no time may not see it again.
WRITE_DOWN = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const stage = document.querySelector("#stage");
    if (stage) window.seen.push({stage: stage.textContent, other: !!document.querySelector("#register, #trust")});
  }).observe(document.body, {childList: true, characterData: true, subtree: true});
}"""


def says(page, selector: str, text: str) -> None:
    page.wait_for_selector(f"{selector}:has-text('{text}')")


def choose(page, name: str, title: str) -> None:
    page.click(f".v-select:has(#{name})")
    page.click(f".v-overlay--active .v-list-item:has-text('{title}')")
    page.wait_for_selector(".v-overlay--active", state="detached")


def answered(page) -> None:
    """The page's process has done what it was told before: it answers in turn, and draws between two answers."""
    page.evaluate("window.trame.trigger('nothing')")


def changed(page, before: bytes) -> bytes:
    """The picture of the views, once it differs from `before` and stands still: drawing lags behind by seconds."""
    end, last, equal = time.monotonic() + SECONDS, b"", 0
    while time.monotonic() < end:
        answered(page)
        time.sleep(0.5)
        picture = page.locator("#views").screenshot()
        equal = equal + 1 if picture == last else 1
        last = picture
        if picture != before and equal == STILL:
            return picture
    pytest.fail("the views do not show the change")


def views(page) -> bytes:
    return changed(page, b"")


def register(page, preset: str) -> None:
    choose(page, "preset", preset)
    page.click("#register")


# Four full resolutions with the largest network: minutes of work before the first plateau can end one of them.
ENDLESS = {"iterations": "10000, 10000, 10000, 10000", "image_factors": "1, 1, 1, 1",
           "velocity_factors": "1, 1, 1, 1", "networks": "siren"}  # fmt: skip


def make_endless(page) -> None:
    """Settings of a run that ends only when it is told to, however long the browser takes."""
    choose(page, "preset", "Best")
    page.click("#advanced")
    for name, entries in ENDLESS.items():
        page.fill(f"#option-{name}", entries)
        page.press(f"#option-{name}", "Tab")
    page.wait_for_function(f"window.trame.state.get('changed_options') === {len(ENDLESS)}")


@pytest.fixture(scope="module")
def loaded(page, pair):
    """One volume by upload, the other by its path."""
    empty = views(page)
    page.set_input_files("#files", str(pair[0]))
    page.wait_for_function("document.querySelector('#fixed')?.value === 'first'")
    page.wait_for_function("!document.querySelector('#path').disabled")
    page.fill("#path", str(pair[1]))
    page.press("#path", "Enter")
    page.wait_for_function("document.querySelector('#moving')?.value === 'second'")
    page.wait_for_selector("#register:not([disabled])")
    changed(page, empty)
    return page


@pytest.fixture(scope="module")
def endless(registered):
    """After the finished run, the settings of one that does not finish."""
    make_endless(registered)
    return registered


@pytest.fixture(scope="module")
def registered(loaded):
    """A finished run; on the way there is progress, a curve and no way to start a second one."""
    loaded.evaluate(WRITE_DOWN)
    register(loaded, "Fast")
    loaded.wait_for_selector("#trust")
    seen = loaded.evaluate("window.seen")
    assert len({one["stage"] for one in seen}) > 2 and all(one["stage"] and not one["other"] for one in seen)
    assert loaded.locator("#curve polyline").count()
    return loaded


@pytest.mark.parametrize("name", ["broken.nii.gz", "notes.txt", "series.nii.gz"])
def test_a_bad_upload_gets_one_sentence_in_the_page(page, site, tmp_path, name):
    path = tmp_path / name
    if name == "series.nii.gz":
        sitk.WriteImage(sitk.JoinSeries([sitk.Image(8, 8, 8, sitk.sitkFloat32)] * 3), str(path))
    else:
        path.write_bytes(b"this is no volume")
    page.set_input_files("#files", str(path))
    says(page, "#message", name)
    sentence = page.locator("#message").inner_text()
    assert sentence.count("\n") == 0 and sentence.endswith(".") and str(site.folder) not in sentence
    assert name != "series.nii.gz" or "3 volumes" in sentence
    assert page.locator("#register").is_disabled()


@pytest.mark.parametrize("typed", ["/nowhere/scan.nii.gz", "~nobody-of-that-name/scan.nii.gz", f"/{'x' * 300}.nii"])
def test_a_path_that_does_not_exist_gets_one_too(page, typed):
    page.wait_for_function("!document.querySelector('#path').disabled")
    page.fill("#path", typed)
    page.press("#path", "Enter")
    says(page, "#message", f"There is no file or folder {typed}; check the path.")
    page.fill("#path", "")


def test_a_reload_in_the_middle_of_an_upload_leaves_the_page_usable(page, pair):
    page.route("**/upload/**", lambda route: None)  # never gets there
    page.set_input_files("#files", str(pair[0]))
    says(page, "#reading", "Uploading")
    answered(page)
    page.reload()
    page.unroute("**/upload/**")
    page.wait_for_selector("#load:not(.v-btn--loading)")
    answered(page)
    assert not page.locator("#reading").count() and page.locator("#path").is_enabled()


def test_two_uploads_are_chosen_and_shown(loaded):
    assert loaded.input_value("#fixed") == "first" and loaded.input_value("#moving") == "second"
    assert not loaded.locator("#centre").count()


def test_the_same_volume_twice_cannot_be_registered(loaded):
    choose(loaded, "moving", "first")
    loaded.wait_for_selector("#register[disabled]")
    choose(loaded, "moving", "second")
    loaded.wait_for_selector("#register:not([disabled])")


def test_a_run_ends_with_checks_that_its_similarity_passes(registered):
    says(registered, "#message", "Done in")
    rows = dict(row.split("\t")[-2:] for row in registered.locator("#checks tr").all_inner_texts())
    before, after = map(float, rows["Similarity of the images"].split(" → "))
    assert after > before and rows["Folding (Jacobian ≤ 0)"].startswith("0 %")
    assert "Look at the images" in registered.locator("#verdict").inner_text()


def test_the_verdict_is_seen_first_and_nothing_else_is_green(registered):
    message, verdict, curve = map(registered.locator, ("#message", "#verdict", "#curve"))
    assert "text-success" in verdict.get_attribute("class") and "text-success" not in message.get_attribute("class")
    heights = [one.bounding_box()["y"] for one in (message, verdict, curve)]
    assert heights == sorted(heights)


def test_every_way_to_look_changes_the_views(registered):
    picture = views(registered)
    for layer in ("before", "checkerboard", "jacobian", "after"):
        registered.click(f"#layer-{layer}")
        picture = changed(registered, picture)
        assert registered.locator("#colours").count() == (layer == "jacobian")
    registered.check("#grid")
    picture = changed(registered, picture)
    registered.uncheck("#grid")
    changed(registered, picture)


def test_the_slider_blends(registered):
    picture = views(registered)
    registered.locator("#look .v-slider-thumb").focus()
    registered.keyboard.press("Home")
    picture = changed(registered, picture)
    registered.keyboard.press("End")
    changed(registered, picture)


def download(page, what: str, folder):
    with page.expect_download() as started:
        page.click(f"#download-{what}")
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def test_downloads_are_what_they_say(registered, pair, site, tmp_path):
    fixed = sitk.ReadImage(str(pair[0]))
    transform = sitk.ReadTransform(str(download(registered, "transform", tmp_path)))
    warped = sitk.ReadImage(str(download(registered, "warped", tmp_path)))
    assert warped.GetSize() == fixed.GetSize() and warped.GetOrigin() == pytest.approx(fixed.GetOrigin())
    again = sitk.Resample(sitk.ReadImage(str(pair[1])), fixed, transform)
    difference = sitk.GetArrayFromImage(sitk.Abs(again - sitk.Cast(warped, again.GetPixelID())))[2:-2, 2:-2, 2:-2]
    assert difference.max() < 1.0, "the transform makes the warped volume"
    report = download(registered, "report", tmp_path).read_text(encoding="utf-8")
    assert report.lstrip().lower().startswith("<!doctype html") and "Similarity of the images" in report
    assert "<title>Registration of second to first</title>" in report
    assert str(site.folder) not in report and "<td>Moving</td><td><code>second</code></td>" in report


def test_the_scene_holds_the_pair_and_the_results(registered, tmp_path):
    path = download(registered, "scene", tmp_path)
    assert path.suffix == ".mrb"
    with zipfile.ZipFile(path) as archive:
        (scene,) = [name for name in archive.namelist() if name.endswith(".mrml")]
        files = " ".join(archive.namelist())
        text = archive.read(scene).decode()
    assert all(f"/{name}" in files for name in ("first.nrrd", "second.nrrd"))
    assert "warped.nrrd" in files and "Jacobian.nrrd" in files and ".h5" in files
    assert "neuralreg-app-" not in text, "the scene must not point into the private folder"


def test_the_scene_opens_in_another_process_and_its_transform_makes_its_warped_volume(registered, pair, tmp_path):
    path = download(registered, "scene", tmp_path)
    done = subprocess.run([sys.executable, str(OPEN_SCENE), str(path), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scene = json.loads(done.stdout.splitlines()[-1])
    assert scene["names"]["fixed"] == "first" and scene["names"]["moving"] == "second"
    assert scene["references"] == ["first", "second"]
    name, (folding, smaller, same, larger) = scene["colours"]
    assert "folding" in name and min(same) > 0.95, "white keeps"
    assert folding[2] < 0.1 < folding[1] and smaller[2] > smaller[0] and larger[0] > larger[2]
    assert scene["table"]["method"] == "DNVF" and float(scene["table"]["folds percent"]) == 0
    made = {scene["names"][role] for role in ("transform", "inverse", "warped", "jacobian")}
    assert made <= set(scene["folders"][scene["run"]])
    fixed, moving, warped = (sitk.ReadImage(str(tmp_path / f"{role}.nrrd")) for role in ("fixed", "moving", "warped"))
    again = sitk.Resample(moving, fixed, sitk.ReadTransform(str(tmp_path / "transform.h5")))
    difference = sitk.GetArrayFromImage(sitk.Abs(again - warped))[2:-2, 2:-2, 2:-2]
    assert difference.max() < GREY_VALUES
    before = sitk.GetArrayFromImage(sitk.Abs(sitk.Resample(moving, fixed) - warped))
    assert before.max() > 20 * GREY_VALUES, "the transform does something"


def test_two_browsers_show_the_same(registered, browser, site):
    second = browser.new_page()
    second.goto(site.address, timeout=1000 * SECONDS)
    second.set_default_timeout(1000 * SECONDS)
    second.wait_for_selector("#trust")
    assert second.locator("#trust").inner_text() == registered.locator("#trust").inner_text()
    second.click("#layer-jacobian")
    registered.wait_for_selector("#colours")
    registered.click("#layer-after")
    second.wait_for_selector("#colours", state="detached")
    second.close()


def test_a_reload_changes_nothing(registered):
    seen = registered.locator("#trust").inner_text()
    registered.reload()
    registered.wait_for_selector("#trust")
    assert registered.locator("#trust").inner_text() == seen and registered.input_value("#fixed") == "first"
    views(registered)


def test_what_comes_late_does_not_replace_the_page(browser, site):
    tab = browser.new_page()
    tab.set_default_timeout(1000 * SECONDS)
    held = []
    tab.route("**/loading.tpl", lambda route: held.append(route))  # playwright takes no built-in method
    tab.goto(site.address)
    tab.wait_for_selector("#register")
    for late in held:
        late.continue_()
    tab.wait_for_load_state("networkidle")
    assert tab.locator("#register").count(), "the waiting sign stands where the page was"
    tab.close()


def test_a_lost_connection_comes_back_by_itself(browser, site):
    tab = browser.new_page()
    tab.set_default_timeout(1000 * SECONDS)
    sockets = []
    tab.route_web_socket("**/ws", lambda socket: sockets.append((socket, socket.connect_to_server())))
    tab.goto(site.address)
    tab.wait_for_selector("#register")
    tab.evaluate("window.before = true")
    for end in sockets[-1]:
        end.close(code=1001)
    tab.wait_for_selector("text=The connection is lost")
    tab.wait_for_function("!window.before")
    tab.wait_for_selector("#register")
    assert len(sockets) == 2
    tab.close()


def test_cancel_leaves_what_was_there(endless):
    picture = views(endless)
    endless.click("#register")
    endless.click("#cancel")
    endless.wait_for_selector("#register")
    says(endless, "#message", "Cancelled")
    assert endless.locator("#message").inner_text().endswith("What is shown below is an earlier result.")
    assert not endless.locator("#run").count(), "there is one run still"
    end = time.monotonic() + SECONDS
    while views(endless) != picture:
        assert time.monotonic() < end, "the views do not show the earlier result again"


def test_stop_and_keep_gives_the_best_so_far(endless):
    endless.click("#register")
    endless.wait_for_selector("#stop")  # the curve of the run before is gone now
    endless.wait_for_selector("#curve polyline")
    endless.reload()
    endless.wait_for_selector("#curve polyline")
    assert endless.locator("#cancel").count() and not endless.locator("#register, #trust").count()
    endless.click("#stop")
    endless.wait_for_selector("#run")
    says(endless, "#message", "stopped early")
