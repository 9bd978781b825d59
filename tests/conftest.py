"""What the rooms' tests share: one small product (tests/product.py), the tiers, and the order of tests."""

from __future__ import annotations

import fcntl
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import product
from tests.product import BASELINES, GATED, LIMITED, MARKED, NOISY, POLICIES, RECIPE, Smoke

pytest_plugins = ["tests.reached"]

__all__ = ["BASELINES", "GATED", "LIMITED", "MARKED", "NOISY", "POLICIES", "RECIPE", "Smoke"]

# A test without a marker is of the first. pyproject.toml says what each is for.
TIERS = ("unit", "server", "drill")
# files whose tests ask one server, that of tests/e2e/conftest.py: one process runs them all
TOGETHER = {
    f"tests/e2e/test_{name}.py": "served"
    for name in ("served", "campaign", "contract", "fuzz", "secrets", "lean", "client")
}
# What takes longest starts first, so that no process is left alone with it at the end.
LONG = (
    "tests/test_tutorial.py",
    "served",
    "tests/e2e/test_faults.py",
    "tests/e2e/test_selftest.py",
    "tests/e2e/test_keyed_noise.py",
    "tests/e2e/test_gateway.py",
    "tests/e2e/test_grpc.py",
    "tests/export/test_graphs.py",
    "tests/loadtests/test_locust_run.py",
    "tests/bench/test_bench.py",
    "tests/training/test_cifar10_recipe.py",
    "tests/training/test_search.py",
    "tests/evaluation/test_matrix.py",
    "tests/attacks/test_registry.py",
    "tests/attacks/test_dfms_hl.py",
)


def together(nodeid: str) -> str:
    """The name of what one process runs in a row: a test's file, or several that share a server."""
    file = nodeid.partition("::")[0]
    return TOGETHER.get(file, file)


def tier(name: str, markers: Sequence[str]) -> str:
    """The tier of a test by the names of its markers. Raises pytest.UsageError where it has two."""
    found = [each for each in TIERS if each in markers]
    if len(found) > 1:
        raise pytest.UsageError(f"{name}: expected a marker of one tier, got {' and '.join(found)}")
    return found[0] if found else TIERS[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test gets its tier's marker before `-m` selects, and its place."""
    for item in items:
        markers = {mark.name for mark in item.iter_markers()}
        chosen = tier(item.nodeid, list(markers))
        if chosen not in markers:
            item.add_marker(chosen)
    # one process makes the smoke product while others run what needs none
    needing = {together(item.nodeid) for item in items if "smoke_runs" in getattr(item, "fixturenames", ())}
    places = {name: place for place, name in enumerate(LONG)}
    maker = min(needing, key=lambda name: (places.get(name, len(places)), name), default="")

    def place(item: pytest.Item) -> tuple[bool, bool, bool, int]:
        name = together(item.nodeid)
        alone = item.get_closest_marker("alone") is not None
        return alone, name != maker, name in needing, places.get(name, len(places))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What belongs together goes to one process, in the order of collection.

    pytest-xdist's own `--dist loadgroup` would do, but 3.8 writes a group into a test's `_nodeid`, which pytest 9.2 has
    no more, and then shares out tests one by one without a word.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    config.option.loadscopereorder = False
    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test marked `alone` has a clock to keep: while it runs, no other worker runs a test."""
    workerinput = getattr(item.config, "workerinput", None)
    if workerinput is None:
        return (yield)
    lock = Path(item.config.option.basetemp).parent / "alone.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


def pytest_runtest_setup() -> None:
    """Once a process has exported its first graph, torchlib's 500 functions are not parsed again for each further one.

    onnxscript parses them at every export, always to the same end: a third of what a small network's export takes.
    """
    exporter = sys.modules.get("torch.onnx._internal.exporter._registration")
    if exporter is not None and "onnxscript.function_libs.torch_lib.ops" in sys.modules:
        apis: Any = exporter.onnxscript_apis
        if not hasattr(apis.get_torchlib_ops, "cache_info"):
            apis.get_torchlib_ops = functools.cache(apis.get_torchlib_ops)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums in one order in every test, whatever ran before: a TorchScript backend sets the process's threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where images of the tests' folders are kept once they are decoded: not in the checkout."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TORCHWARDEN_PICTURES", str(tmp_path_factory.mktemp("pictures")))
        yield


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Path]:
    """A key of this session's own, named in the environment as the README says."""
    path = tmp_path_factory.mktemp("secrets") / "torchwarden.key"
    path.touch(mode=0o600)
    path.write_text(product.key(seed))
    before = os.environ.get("TORCHWARDEN_KEY_FILE")
    os.environ["TORCHWARDEN_KEY_FILE"] = str(path)
    yield path
    if before is None:
        del os.environ["TORCHWARDEN_KEY_FILE"]
    else:
        os.environ["TORCHWARDEN_KEY_FILE"] = before


@pytest.fixture(scope="session")
def smoke_runs(key_file: Path, seed: int) -> Smoke:
    """The smoke recipe, trained."""
    return product.stage("trained", key_file, product.train, seed=seed)


@pytest.fixture(scope="session")
def smoke_graphs(smoke_runs: Smoke, seed: int) -> Smoke:
    """The smoke recipe, trained and exported."""
    return product.stage("exported", smoke_runs.key_file, product.export, before=smoke_runs, seed=seed)


@pytest.fixture(scope="session")
def smoke(smoke_graphs: Smoke, seed: int) -> Smoke:
    """The smoke recipe, trained, exported, calibrated and archived under every policy that tests name."""
    return product.stage("archived", smoke_graphs.key_file, product.archive, before=smoke_graphs, seed=seed)


@pytest.fixture(scope="session")
def baselines(smoke: Smoke) -> Smoke:
    """The same, for those who ask BASELINES."""
    return smoke


@pytest.fixture(scope="session")
def limited(smoke: Smoke) -> Smoke:
    """The same, for those who ask LIMITED."""
    return smoke


@pytest.fixture(scope="session")
def marked(smoke: Smoke) -> Smoke:
    """The same, for those who ask MARKED."""
    return smoke


@pytest.fixture(scope="session")
def noisy(smoke: Smoke) -> Smoke:
    """The same, for those who ask NOISY."""
    return smoke


@pytest.fixture(scope="session")
def gated(smoke: Smoke) -> Smoke:
    """The same, for those who ask GATED."""
    return smoke
