"""The page of what refusals cost, and the rows that it is made of."""

from __future__ import annotations

import dataclasses

import pytest

from report.pages import refusals as document
from report.rows.refusals import RefusalRow
from report.rows.run import RunInfo
from report.schema import Report, ResultError
from tests.report.pages.reading import answer, check, lines

SETTINGS = {"archive": "digits-undefended", "rounds": 3, "seconds": 5.0}
RUN = RunInfo("abc", 0, "Linux x86_64, 2 CPUs", "a CPU", None, {}, "2026-01-01T00:00:00+00:00", 1.0, SETTINGS)


def row(way: str, rates: tuple[float, ...], connections: float, nginx: float, java: float) -> RefusalRow:
    spent = {"nginx": (nginx,) * 3, "java": (java,) * 3, "worker": (0.2,) * 3}
    return RefusalRow(way, 0.0 if way == "answered" else 0.5, 16, rates, (connections,) * 3, spent)


ANSWERED = row("answered", (1000.0, 900.0, 1100.0), 0.001, 0.1, 0.2)
KEPT = row("kept", (1200.0, 1000.0, 1100.0), 0.002, 0.1, 0.1)
CLOSED = row("closed", (800.0, 800.0, 1000.0), 0.5, 0.2, 0.2)


def test_ratios_are_taken_inside_rounds() -> None:
    text = document.render(Report(RUN, refusals=(ANSWERED, KEPT, CLOSED)))
    check(text)
    first, second, third = answer(text)
    assert "measured 0.0020. Behind a gateway that does not ask, 0.500." in first
    assert "nginx and Java together spend 2.00 times the CPU on a request (2.00 to 2.00)" in second
    assert "1.50 times (1.50 to 1.50)" in second
    # 1.5, 1.25, 1.1 and 1.2, 1.11, 1
    assert "1.25 times (1.10 to 1.50)" in third
    assert "1.11 times (1.00 to 1.20)" in third
    assert lines(text, "| closed |", "50.0 %", "0.5000")
    assert "nginx 2.00 (2.00 to 2.00), java 2.00 (2.00 to 2.00), worker 1.00 (1.00 to 1.00)." in text


def test_connections_that_are_opened_all_the_same_are_said_first() -> None:
    lost = dataclasses.replace(KEPT, connections_rounds=(0.5, 0.4, 0.3))
    text = document.render(Report(RUN, refusals=(ANSWERED, lost, CLOSED)))
    check(text)
    assert answer(text)[0].startswith("**Does not hold**: A request opens at most 0.02 connections")


def test_a_way_that_is_missing_is_a_message() -> None:
    with pytest.raises(ResultError, match="lacking 'closed'"):
        document.render(Report(RUN, refusals=(ANSWERED, KEPT)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"way": "half"}, "way: expected one of answered, kept, closed, got 'half'"),
        ({"cpu_ms_rounds": {"nginx": (1.0,) * 3}}, "cpu_ms_rounds: expected nginx, java, worker, got nginx"),
        ({"rate_rounds": (1.0,)}, r"expected a value of everything in every round, got lengths \[1, 3\]"),
        (
            {
                "rate_rounds": (),
                "connections_rounds": (),
                "cpu_ms_rounds": dict.fromkeys(("nginx", "java", "worker"), ()),
            },
            r"got lengths \[0\]",
        ),
    ],
)
def test_a_row_checks_itself(change: dict[str, object], message: str) -> None:
    with pytest.raises(ResultError, match=message):
        dataclasses.replace(KEPT, **change)  # type: ignore[arg-type]
