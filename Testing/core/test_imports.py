"""Who may import whom: the table of the architecture, read from the source. A new module gets its line in FLOORS."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from neuralreg.methods import METHODS

ROOT = Path(__file__).resolve().parents[2] / "NeuralRegistration"
CORE = ROOT / "neuralreg"

# A module uses lower floors only. `job` (the contract) is open to everybody.
FLOORS = {
    1: {"job", "inbox", "sampling", "weights", "networks", "files", "usage", "workspace", "devices", "qa", "tables"}
    | {"adam", "hdf5", "allocator", "intensities", "portable"},
    2: {"image", "losses", "pyramid", "calibration", "workers", "dicom", "freesurfer"},
    3: {"transform", "feedforward", "preprocess", "optimise", "diffeomorphism", "body", "batch", "domain"},
    4: {"io", "affine", "metrics", "methods", "points", "phantom"},
    5: {"pipeline", "overlap", "run", "api", "apply", "monitor", "samples", "evaluate", "report", "train", "training"}
    | {"restore"},
    6: {"cli", "commands", "__main__", "__init__"},
}
# Front doors that stand on the same floor as what they open.
DOORS = {"run": {"pipeline", "overlap"}, "api": {"pipeline"}, "train": {"training"}}
THIRD_PARTY = {"torch", "numpy", "SimpleITK"}
OPTIONAL = {"workers": {"dask"}}  # for `batch --dask`; inside a function
STANDARD_LIBRARY_ONLY = {
    "job",
    "inbox",
    "batch",
    "files",
    "tables",
    "workspace",
    "usage",
    "qa",
    "allocator",
    "portable",
}
STANDARD_LIBRARY_ONLY |= {"cli", "commands", "__init__", "__main__"}
# All without torch; the rules of the traffic light must be the same in panel, table and report.
SLICER_MAY_USE = {f"neuralreg.{name}" for name in ("job", "inbox", "methods", "qa", "hdf5")}


def modules(folder: Path = CORE) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py"))


def imports(path: Path, package: tuple[str, ...]) -> set[str]:
    """Full names of the modules that a file imports, wherever in the file, but not those for type checkers only."""
    found = set()
    for node in _executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module) if part)
            whole = not node.module or name == "neuralreg"  # then the modules are what is named after `import`
            found |= {f"{name}.{alias.name}" for alias in node.names} if whole else {name}
    return found


def _executed(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from (n for part in child.orelse for n in ast.walk(part))
            continue
        yield child
        yield from _executed(child)


def core_imports(module: str) -> set[str]:
    package = ("neuralreg", *Path(module).parent.parts)
    return imports(CORE / module, package)


def top(name: str) -> str:
    """`neuralreg.io.images` → `io`; names that the package itself defines (its version) → `__init__`."""
    parts = name.split(".")
    known = len(parts) > 1 and ((CORE / parts[1]).is_dir() or (CORE / f"{parts[1]}.py").exists())
    return parts[1] if known else "__init__"


def floor_of(name: str) -> int:
    floor = next((number for number, names in FLOORS.items() if name in names), None)
    assert floor is not None, f"neuralreg/{name} stands on no floor: give it a line in FLOORS"
    return floor


@pytest.mark.parametrize("module", modules())
def test_only_lower_floors_are_used(module):
    own = Path(module).parts[0].removesuffix(".py")
    for name in core_imports(module):
        if not name.startswith("neuralreg"):
            continue
        used = top(name)
        if used in (own, "job", "__init__") or used in DOORS.get(own, ()):
            continue
        assert floor_of(used) < floor_of(own) or floor_of(own) == 6, f"{module} must not use {used}"


@pytest.mark.parametrize("module", modules())
def test_only_the_agreed_packages_are_used(module):
    own = Path(module).parts[0].removesuffix(".py")
    outside = {name.split(".")[0] for name in core_imports(module)} - set(sys.stdlib_module_names) - {"neuralreg"}
    if own in STANDARD_LIBRARY_ONLY or module in (str(Path("methods/__init__.py")), str(Path("commands/__init__.py"))):
        # Inside functions, after the arguments were understood; the page is a package above the core.
        outside -= {"torch", "NeuralRegistrationApp"} if own == "commands" else set()
        assert not outside, f"{module} uses {outside}; it belongs to the standard library only"
    outside -= OPTIONAL.get(own, set())
    assert outside <= THIRD_PARTY, f"{module} uses {outside - THIRD_PARTY}"


def test_networks_stand_alone_and_methods_do_not_know_each_other():
    methods = {target.split(":")[0] for target in METHODS.values()}
    for module in modules():
        name = "neuralreg." + module.removesuffix(".py").replace("\\", ".").replace("/", ".")
        used = core_imports(module)
        if name in methods:
            assert not used & (methods - {name}), f"{module} uses another method"
        if name.startswith("neuralreg.networks."):
            assert not {u for u in used if u.startswith("neuralreg")}, f"{module} must be readable by itself"


def test_there_are_no_circles():
    graph = {}
    for module in modules():
        own = Path(module).parts[0].removesuffix(".py")
        used = {top(name) for name in core_imports(module) if name.startswith("neuralreg")}
        graph.setdefault(own, set()).update(used - {own, "__init__"})
    while graph:
        free = {name for name, used in graph.items() if not used & graph.keys()}
        assert free, f"these modules import each other in a circle: {sorted(graph)}"
        graph = {name: used for name, used in graph.items() if name not in free}


def slicer_modules() -> list[str]:
    folder = ROOT / "NeuralRegistrationLib"
    return modules(folder) if folder.exists() else []


@pytest.mark.parametrize("module", slicer_modules())
def test_slicer_side_never_uses_torch_and_little_of_the_core(module):
    path = ROOT / "NeuralRegistrationLib" / module
    used = imports(path, ("NeuralRegistrationLib", *Path(module).parent.parts))
    assert not {name for name in used if name.split(".")[0] == "torch"}
    core = {name for name in used if name.split(".")[0] == "neuralreg"}
    assert core <= SLICER_MAY_USE, f"{module} uses {core - SLICER_MAY_USE}"


@pytest.mark.parametrize(
    "name", ["neuralreg", "neuralreg.job", "neuralreg.methods", "neuralreg.cli", "neuralreg.workspace"]
)
def test_importing_costs_nothing(name):
    heavy = {"torch", "SimpleITK", "numpy"}
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {name}; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names_are_there():
    import neuralreg

    for name in neuralreg.__all__:
        assert getattr(neuralreg, name) is not None
    with pytest.raises(AttributeError):
        neuralreg.registre  # noqa: B018


PAGE = ROOT / "NeuralRegistrationApp"


@pytest.mark.parametrize("module", modules(PAGE))
def test_the_page_uses_the_slicer_side_and_leaves_torch_to_children(module):
    used = imports(PAGE / module, ("NeuralRegistrationApp",))
    assert not {name for name in used if name.split(".")[0] in ("torch", "qt", "ctk")}
    core = {name for name in used if name.split(".")[0] == "neuralreg"}
    assert core <= SLICER_MAY_USE or module == "reading.py", f"{module} uses {core - SLICER_MAY_USE}"
    panel = {name for name in used if name.startswith("NeuralRegistrationLib.widget")}
    assert not panel, "the panel's Qt files are what the page replaces"


def test_what_the_page_takes_from_the_panel_touches_qt_in_functions_only():
    """Outside Slicer there is a timer and nothing else of Qt: a widget as a base class would end the page's start."""
    waiting, seen = {"NeuralRegistrationApp/" + module for module in modules(PAGE)}, set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        used = {name.replace(".", "/") + ".py" for name in imports(ROOT / module, (module.split("/")[0],))}
        waiting |= {name for name in used - seen if name.startswith("NeuralRegistrationLib/")}
    assert "NeuralRegistrationLib/progress.py" in seen
    for module in seen:
        for node in _on_import(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Name) and node.id == "qt"), f"{module}, line {node.lineno}"


def _on_import(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _on_import(child)


def test_nobody_else_needs_the_page():
    for module in modules():
        assert module == str(Path("commands/app.py")) or not any(
            name.startswith("NeuralRegistrationApp") for name in core_imports(module)
        )
    for module in slicer_modules():
        assert "NeuralRegistrationApp" not in (ROOT / "NeuralRegistrationLib" / module).read_text(encoding="utf-8")
