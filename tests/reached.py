"""What a training reaches: measured over seeds and kernels (tests/margins.py), and held against its bound in every run.

A test that trains asks for two fixtures, `seed` for everything random in it and `reached` for its bounds:

    def test_it_copies_the_victim(reached: Reached, seed: int) -> None:
        reached("agreement", agreement(rob(victims.oracle, SMALL, seed=seed)), above=0.6)

tests/README.md says where a bound comes from. One that was not measured, or is another than when it was, fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Reached = Callable[..., None]

MARGINS = Path(__file__).parent / "margins.json"


def read() -> dict[str, Any]:
    """What tests/margins.py wrote: {test and quantity: {"above", "below", "values": {kernel: [of each seed]}}}."""
    rows: dict[str, Any] = json.loads(MARGINS.read_text("utf-8"))["quantities"] if MARGINS.exists() else {}
    return rows


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("what trainings reach")
    group.addoption("--training-seed", type=int, default=0, metavar="N", help="the seed of the tests' trainings")
    group.addoption(
        "--record-reached",
        type=Path,
        metavar="FILE",
        help="run only the tests that state what a training reaches; append what it was to FILE, hold no bounds",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("record_reached") is None:
        return
    others = [item for item in items if "reached" not in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """What everything random in a training comes from: 0, unless its margin is being measured."""
    return int(pytestconfig.getoption("training_seed"))


@pytest.fixture(scope="session")
def margins() -> dict[str, Any]:
    """What tests/margins.py wrote, read once."""
    return read()


@pytest.fixture
def reached(request: pytest.FixtureRequest, seed: int, margins: dict[str, Any]) -> Reached:
    """reached(quantity, value, above=bound) or below=bound, or both."""
    record = request.config.getoption("record_reached")
    # not the whole path: a test that moves to another folder takes its margin along
    test = f"{request.path.stem}::{request.node.name}"

    def hold(quantity: str, value: float, *, above: float | None = None, below: float | None = None) -> None:
        bounds = {"above": above, "below": below}
        name, value = f"{test}: {quantity}", float(value)
        if record is not None:
            kernel = torch.backends.cpu.get_cpu_capability().lower()
            line = {"quantity": name, "value": value, "seed": seed, "kernel": kernel, **bounds}
            with record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            return
        measured = {side: margins.get(name, {}).get(side) for side in bounds}
        assert measured == bounds, f"{name}: {bounds} was not measured: python -m tests.margins {request.path}"
        assert above is None or value > above, f"{quantity}: expected above {above}, got {value}"
        assert below is None or value < below, f"{quantity}: expected below {below}, got {value}"

    return hold
