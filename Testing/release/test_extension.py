"""What the Extensions Index asks and can be checked without a network.

The fields are those of Slicer's catalogue entry schema v1.0.1 (Slicer/Schemas), the other rules those of the checks and
the submission form of Slicer/ExtensionsIndex.
"""

import json
import re
import struct
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "NeuralRegistration"
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json"
)
REQUIRED = {"$schema", "category", "scm_url"}
TYPES = {
    "$schema": str, "category": str, "scm_url": str, "scm_revision": str, "scm_type": str, "build_dependencies": list,
    "build_subdirectory": str, "enabled": bool, "tier": int,
}  # fmt: skip
TIERS, SCM_TYPES = (1, 3, 5), ("git", "local")
LICENCE_FILES = ("LICENSE", "LICENSE.txt")
ICON_SIDE = 128  # recommended
SMALLEST_SCREENSHOT = 400  # pixels wide: below it text cannot be read
LARGEST_REPOSITORY = 100e6  # bytes
LARGEST_MODELS = 40e6
MODELS = sorted((ROOT / NAME / "Resources" / "Models").glob("*.pt"))


def entry() -> dict:
    return json.loads((ROOT / f"{NAME}.json").read_text(encoding="utf-8"))


def cmake(variable: str) -> str:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.search(rf'^set\({variable} "([^"]+)"\)', text, re.MULTILINE)[1]


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n", f"{path.name} is no PNG"
    return struct.unpack(">II", header[16:24])


def in_checkout(url: str) -> Path:
    """The file that a raw address points to, once this branch is the one that the entry names."""
    repository = entry()["scm_url"].removesuffix(".git").replace("https://github.com/", "")
    start = f"https://raw.githubusercontent.com/{repository}/{entry()['scm_revision']}/"
    assert url.startswith(start), f"{url} is not in the repository of the entry"
    return ROOT / url.removeprefix(start)


def problems(values: dict) -> list[str]:
    """What the schema would refuse."""
    found = [f"{name} is missing" for name in REQUIRED - values.keys()]
    found += [f"{name} is not known" for name in values.keys() - TYPES.keys()]
    for name, kind in TYPES.items():
        value = values.get(name, kind())
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            found.append(f"{name} is not of type {kind.__name__}")
    if not all(isinstance(name, str) for name in values.get("build_dependencies", [])):
        found.append("build_dependencies holds something else than names")
    if values.get("tier", 5) not in TIERS or values.get("scm_type", "git") not in SCM_TYPES:
        found.append("tier or scm_type is none of the choices")
    return found


def test_the_entry_fits_the_schema():
    assert entry()["$schema"].split("#")[0] == SCHEMA
    assert problems(entry()) == []


@pytest.mark.parametrize(
    "change", [{"category": None}, {"scmurl": "x"}, {"tier": 2}, {"build_dependencies": "PyTorch"}, {"enabled": 1}]
)
def test_the_check_of_the_schema_can_fail(change):
    assert problems({**entry(), **change})
    assert problems({name: value for name, value in entry().items() if name != "scm_url"})


def test_the_entry_passes_the_checks_of_the_index():
    values = entry()
    assert values["category"] == "Registration"
    assert re.fullmatch(r"https://github\.com/[\w-]+/Slicer\w+\.git", values["scm_url"])
    assert not NAME.startswith("Slicer")
    assert any((ROOT / name).is_file() for name in LICENCE_FILES)


def test_cmake_agrees_with_the_entry():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.search(r"project\((\w+)\)", text)[1] == NAME
    assert cmake("EXTENSION_DEPENDS").split() == entry()["build_dependencies"]
    assert cmake("EXTENSION_HOMEPAGE").split("#")[0] + ".git" == entry()["scm_url"]
    assert "set(EXTENSION_CATEGORY" not in text or cmake("EXTENSION_CATEGORY") == entry()["category"]
    assert 40 <= len(cmake("EXTENSION_DESCRIPTION")) <= 300
    assert cmake("EXTENSION_CONTRIBUTORS")
    repository = entry()["scm_url"].removesuffix(".git")
    assert repository in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_icons_and_screenshots_are_there_in_the_right_size():
    for icon in (in_checkout(cmake("EXTENSION_ICONURL")), ROOT / NAME / "Resources" / "Icons" / f"{NAME}.png"):
        assert png_size(icon) == (ICON_SIDE, ICON_SIDE)
    screenshots = [in_checkout(url) for url in cmake("EXTENSION_SCREENSHOTURLS").split()]
    assert screenshots
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for screenshot in screenshots:
        assert png_size(screenshot)[0] >= SMALLEST_SCREENSHOT
        assert str(screenshot.relative_to(ROOT)) in readme


def test_the_homepage_holds_what_the_submission_form_asks():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {NAME}\n")
    for needed in (
        "**Neural Registration** is the only one",
        "MRBrainTumor1",
        "arxiv.org/abs/2202.12498",
        "Apache-2.0",
    ):
        assert needed in readme, needed
    comparison = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    assert all(name in comparison for name in ("uniGradICON", "ImpactReg", "ANTs", "elastix"))


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_cards_of_models_say_data_licence_training_and_limits(model):
    values = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
    card = model.with_suffix(".md").read_text(encoding="utf-8")
    for name in ("method", "anatomy", "contrast", "data", "licence", "sha256"):
        assert values[name] and values[name] != "unknown", name
    assert values["training"]["iterations"] > 0 and values["training"]["validation"]
    assert values["method"] in card and all(part.strip() in card for part in values["licence"].split(";"))
    assert "trained on" in card and "iterations" in card
    assert re.search(r"Dice|mean error", card), "give a figure on images that it has not seen"
    assert re.search(r"^Not for", card, re.MULTILINE), "say what it is not for"


def test_the_notice_covers_weights_pictures_and_data():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for needed in ("Apache License", "Resources/Models", "ds002748 (CC0)", "CC BY-NC: testing only", "PyTorch"):
        assert needed in notice, needed


def test_it_is_small():
    assert sum(path.stat().st_size for path in MODELS) <= LARGEST_MODELS
    folders = [ROOT / name for name in (NAME, "Resources", "Testing", "docs")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < LARGEST_REPOSITORY
