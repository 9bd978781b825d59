"""The page of an adopted model's costs, and the rows that it is made of."""

from __future__ import annotations

import dataclasses

import pytest

from report.pages import adopted as document
from report.rows.adopted import ProgramRow, ReadingRow
from report.rows.bench import DefenseCostRow
from report.rows.run import RunInfo
from report.schema import Report, ResultError
from tests.report.pages.reading import answer, check, lines

VERSIONS = {"python": "3.11", "numpy": "2", "onnxruntime": "1", "torch": "2"}
RUN = RunInfo("abc", 0, "Linux x86_64, 2 CPUs", "a CPU", None, VERSIONS, "2026-01-01T00:00:00+00:00", 1.0)
PEAK = {"resident": 2900.0, "proportional": 2800.0, "anonymous": 2000.0}


def program(what: str, *seconds: float, epochs: dict[str, tuple[float, ...]] | None = None) -> ProgramRow:
    return ProgramRow(what, "training.x", 20_000, seconds, epochs or {}, PEAK)


def cost(defense: str, batch: int, *times: float) -> DefenseCostRow:
    return DefenseCostRow("r", batch, defense, "served", 1, 10.0, tuple(10 * each for each in times), (10.0,) * 3, None)


def study() -> Report:
    programs = (
        program("adopt weights", 50.0, 62.0),
        program("adopt graph", 61.0),
        program("read whole", 70.0, epochs={"victim": (20.0,)}),
        program("gate", 200.0, epochs={"autoencoder": (10.0, 14.0), "auxiliary": (5.0, 5.0)}),
    )
    costs = (
        cost("same-observe", 1, 1.1, 1.2, 1.12),
        cost("same-observe", 8, 1.0, 1.0, 1.0),
        cost("edm", 1, 1.2, 1.1, 1.3),
    )
    reading = (ReadingRow("resnet18 at 224", 20_000, 32, 3, (12.0, 11.0, 20.0), (10.0, 10.0, 10.0), 55.0),)
    return Report(RUN, adopted_programs=programs, adopted_reading=reading, defense_costs=costs)


def test_the_goals_are_worked_out_from_the_rows() -> None:
    found = {goal.what: (goal.most, goal.measured, goal.kept) for goal in document.goals(study())}
    assert found == {
        "`make adopt` of a ResNet-18, weights": (60, 56.0, True),
        "`make adopt` of a ResNet-18, graph": (60, 61.0, False),
        "`same-observe` at 1 or 8 rows a request (dearest: 1)": (1.15, pytest.approx(1.12), True),
        "`edm` at 1 rows a request (dearest: 1)": (1.10, pytest.approx(1.2), False),
        "a training that reads 20,000 photographs, whole": (3000, 2900, True),
        "an epoch that reads, resnet18 at 224": (1.2, pytest.approx(1.2), True),
        "an epoch of the gate over 20,000 photographs (slowest network: autoencoder)": (60, 14.0, True),
    }


def test_the_page_opens_with_what_does_not_hold() -> None:
    text = document.render(study())
    check(text)
    assert [line.startswith("**Does not hold**") for line in answer(text)] == [True, True, *[False] * 5]
    assert answer(text)[1] == (
        "**Does not hold**: `edm` at 1 rows a request (dearest: 1): at most 1.100 times undefended; measured 1.200."
    )
    (gate,) = lines(text, "| gate |")
    assert "autoencoder 12.0 s (n = 2), auxiliary 5.0 s (n = 2) | 2\u202f900 | 2\u202f800 | 2\u202f000 |" in gate
    (adopted,) = lines(text, "| adopt weights |")
    assert "| 56.0 (50.0 to 62.0) | 2 | - |" in adopted
    assert lines(text, "| resnet18 at 224 | 20000 | 32 | 3 | 12.0 | 10.0 | 1.200 | 1.100 to 2.000 | 3 | 55.0 |")


def test_rows_that_cannot_be_are_refused() -> None:
    report = study()
    with pytest.raises(ResultError, match="seconds_rounds: expected at least one run, got none"):
        dataclasses.replace(report.adopted_programs[0], seconds_rounds=())
    with pytest.raises(ResultError, match="peak_mb: expected resident, proportional, anonymous, got resident"):
        dataclasses.replace(report.adopted_programs[0], peak_mb={"resident": 1.0})
    with pytest.raises(ResultError, match="expected the time of reading and of computing in every round"):
        dataclasses.replace(report.adopted_reading[0], computing_ms_rounds=(1.0,))
