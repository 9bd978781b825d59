"""JSON to dataclasses: what fits each type, and what the message says of what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from report.build import build
from report.fields import ResultError


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Outer:
    name: str
    share: float
    seen: bool
    inner: tuple[Inner, ...]
    pair: tuple[str, int]
    times: dict[str, float | str | None]
    anything: dict[str, Any]
    best: Inner | None

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ResultError(f"share: expected at most 1, got {self.share}")


GOOD: dict[str, Any] = {
    "name": "x",
    "share": 1,
    "seen": True,
    "inner": [{"size": 1}, {"size": 2}],
    "pair": ["a", 1],
    "times": {"a": 0.5, "b": "never", "c": None},
    "anything": {"deep": [1, {"x": None}]},
    "best": None,
}


def test_lists_become_tuples_and_objects_dataclasses() -> None:
    faults: list[str] = []
    made = build(Outer, GOOD, "here", faults)
    assert not faults
    assert made == Outer("x", 1, True, (Inner(1), Inner(2)), ("a", 1), GOOD["times"], GOOD["anything"], None)
    assert build(Outer, {**GOOD, "best": {"size": 3}}, "here", faults).best == Inner(3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "here: name: expected a string, got 3"),
        ({"share": "high"}, "here: share: expected a number, got 'high'"),
        ({"share": True}, "here: share: expected a number, got True"),
        ({"share": float("nan")}, "here: share: expected a finite number, got nan"),
        ({"share": 1.5}, "here: share: expected at most 1, got 1.5"),
        ({"seen": 1}, "here: seen: expected true or false, got 1"),
        ({"inner": {}}, "here: inner: expected an array, got {}"),
        ({"inner": [{"size": 1}, {"size": 1.5}]}, "here: inner[1].size: expected an integer, got 1.5"),
        ({"inner": [3]}, "here: inner[0]: expected a table, got 3"),
        ({"inner": [{}]}, "here: inner[0]: missing key 'size'"),
        (
            {"inner": [{"size": 1, "colour": 2}]},
            "here: inner[0]: unknown key 'colour'; expected one of size",
        ),
        ({"pair": ["a"]}, "here: pair: expected more than 1 values"),
        ({"times": []}, "here: times: expected a table, got []"),
        ({"times": {"a": []}}, "here: times.a: expected a number or a string, got []"),
        ({"best": 3}, "here: best: expected a table, got 3"),
        ({"name": list(range(100))}, f"here: name: expected a string, got {str(list(range(100)))[:80]}..."),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    faults: list[str] = []
    assert build(Outer, {**GOOD, **changes}, "here", faults) is None
    assert faults == [message]


def test_all_faults_of_a_row_are_found_at_once() -> None:
    faults: list[str] = []
    build(Outer, {**GOOD, "name": 1, "seen": "no", "inner": [{"size": "a"}, {"size": "b"}]}, "here", faults)
    assert len(faults) == 4
