"""The page of memory, and the rows that it is made of."""

from __future__ import annotations

import dataclasses

import pytest

from report.pages import serving_memory as document
from report.rows.memory import MOMENTS, WAYS, EnvironmentRow, Held, MemoryRow
from report.rows.run import RunInfo
from report.schema import Report, ResultError

RUN = RunInfo("abc", 0, "Linux x86_64, 2 CPUs", "a CPU", None, {}, "2026-01-01T00:00:00+00:00", 1.0)
VERSIONS = {"python": "3.11", "torchserve": "0.12.0", "onnxruntime": "1", "torch": "2"}


def row(archive: str, way: str, workers: int, moment: str, *, worker: float, graphs: float = 1.0) -> MemoryRow:
    java = Held(220.0, 200.0, 190.0)
    total = java.pss + workers * worker
    held = Held(worker + 20, worker, worker - 5)
    return MemoryRow(archive, way, workers, moment, graphs, java, held, total, 0.5, 100 if moment == "traffic" else 0)


def study(edm: float) -> Report:
    rows = [
        row(archive, way, workers, moment, worker=held + (300 if way == "imported" else 0), graphs=graphs)
        for archive, held, graphs in (("a-undefended", 80.0, 45.0), ("a-edm", edm, 225.0))
        for workers in (1, 2)
        for way in WAYS
        for moment in MOMENTS
    ]
    environments = (EnvironmentRow("torch", 5000, 50, {"torch": 1000}), EnvironmentRow("lean", 300, 20, {"numpy": 31}))
    run = dataclasses.replace(RUN, versions=VERSIONS, settings={"rows": 500, "clients": 16, "workers": [1, 2]})
    return Report(run, environments=environments, memory=tuple(rows))


def test_a_row_that_cannot_be_is_refused() -> None:
    good = row("a", "absent", 1, "rest", worker=40)
    with pytest.raises(ResultError, match="way: expected one of imported, deferred, absent, got 'other'"):
        dataclasses.replace(good, way="other")
    with pytest.raises(ResultError, match=r"total_pss: expected at least Java's 200\.0, got 10"):
        dataclasses.replace(good, total_pss=10)


@pytest.mark.parametrize(("edm", "kept"), [(354.0, True), (356.0, False)])
def test_the_goals_are_worked_out_from_the_rows(edm: float, kept: bool) -> None:
    server, worker = document.goals(study(edm).memory)
    assert (server.most, server.measured, server.kept) == (900, 360, True)
    # 80 of the victim's worker, five times its weights, and 50
    assert (worker.most, worker.measured, worker.kept) == (80 + 5 * 45 + 50, edm, kept)


def test_the_page_shows_each_server_and_what_was_missed() -> None:
    text = document.render(study(356.0))
    assert "| 2 | imported | 960 | 960 | 200 | 380 | 375 | 0.5 s |" in text
    assert "| 2 | absent | 360 | 360 | 200 | 80 | 75 | 0.5 s |" in text
    assert "at most 355 MB; measured 356 MB, **missed**" in text
    assert "| lean | 300 | 20 | numpy 31 |" in text


def test_a_server_without_one_of_its_moments_is_an_error() -> None:
    whole = study(300)
    with pytest.raises(ResultError, match="a-undefended: expected both moments"):
        document.render(dataclasses.replace(whole, memory=whole.memory[1:]))
