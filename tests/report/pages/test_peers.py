"""How other servers stand to ours, worked out by hand, and the section that shows it, what is lost first."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from report.analysis import peers
from report.pages import performance
from report.rows.peers import FLOAT32, INT8, OURS, TRITON, PeerRow
from report.schema import Report, ResultError
from tests.report import synthetic
from tests.report.pages.reading import answer, check, lines
from tests.report.pages.test_performance import report

STATED = {
    "rounds": 2,
    "clients": 32,
    "pictures": 32,
    "tolerance": 1e-4,
    "every": 7,
    "vnni": False,
    "seconds": {"warm_s": 8.0, "single_s": 4.0, "many_s": 6.0},
}


def peer(
    server: str, file: str, rates: tuple[float, ...], singles: tuple[float, ...], mb: float, **more: Any
) -> PeerRow:
    facts = {"version": "1.0", "network": "resnet18-8x", "sends": "PNG", "workers": 2, "threads": 1, "batch": 16}
    rounds = {name: (5.0,) * len(rates) for name in ("p50_rounds", "p99_rounds")}
    return PeerRow(
        server=server,
        file=file,
        delay_ms=2.0,
        about="nothing",
        rate_rounds=rates,
        single_rounds=singles,
        memory_rounds=(mb,) * len(rates),
        **{**facts, **rounds, "checked": 40, "apart": 1e-6, **more},
    )


def rows() -> tuple[PeerRow, ...]:
    """In int8 ours has .96 and .90 of LitServe's many rows, 1.5 of Triton's one; 1.25 of Triton's memory."""
    return (
        peer(OURS, FLOAT32, (50.0, 50.0), (20.0, 20.0), 300.0),
        peer(TRITON, FLOAT32, (40.0, 50.0), (10.0, 10.0), 400.0),
        peer(OURS, INT8, (96.0, 90.0), (30.0, 30.0), 250.0),
        peer("LitServe", INT8, (100.0, 100.0), (10.0, 10.0), 300.0),
        peer(TRITON, INT8, (50.0, 45.0), (20.0, 20.0), 200.0),
        peer("FastAPI", INT8, (), (), 0.0, why="it ended; the last line of its log: x", checked=0, apart=None),
    )


def test_targets_are_held_against_the_best_of_each_kind() -> None:
    found = {each.target: (each.measured, each.met) for each in peers.verdicts(rows())}
    assert found == {
        "rows/s at saturation against the best other server, LitServe, int8": (pytest.approx(0.93), False),
        "rows/s of one client against the best other server, nvidia-pytriton, int8": (pytest.approx(1.5), True),
        "memory of the whole server against nvidia-pytriton's, float32": (pytest.approx(0.75), True),
        "memory of the whole server against nvidia-pytriton's, int8": (pytest.approx(1.25), False),
    }


def test_what_was_not_measured_is_not_met() -> None:
    alone = [row for row in rows() if row.server == OURS]
    assert [(each.measured, each.met) for each in peers.verdicts(alone)] == [(None, False)] * 4
    assert not list(peers.findings(peers.verdicts(alone)))
    assert peers.verdicts([]) == []


def test_servers_that_beat_ours_come_first() -> None:
    found = [(each.row.server, each.row.file, each.lost) for each in peers.standings(rows())]
    assert found == [
        ("LitServe", INT8, True),
        (TRITON, INT8, True),
        (OURS, FLOAT32, False),
        (OURS, INT8, False),
        (TRITON, FLOAT32, False),
    ]


def test_the_page_says_what_is_lost_and_what_was_not_measured() -> None:
    run = dataclasses.replace(synthetic.RUN, settings=STATED)
    page = performance.render(report(), peers=Report(run, peers=rows()))
    check(page)
    assert [line for line in answer(page) if "other servers with the same file: 2 of 4 met; missed: rows/s at" in line]
    assert lines(page, "best other server, LitServe, int8 |", "| ≥ 0.95 | 0.930 | 0.900 to 0.960 | **no** |")
    assert lines(
        page, "| resnet18-8x | int8 | LitServe | 100 | 100 to 100 | 0.93 | 10 | 3.00 | 5.00 | 5.00 | 300 | 0.83 |"
    )
    assert lines(page, "| resnet18-8x | int8 | TorchWarden | 93 | 90 to 96 | - | 30 | - |")
    assert lines(page, "- Not measured: FastAPI, resnet18-8x int8: it ended; the last line of its log: x")
    assert lines(page, "our int8 file over our float32 file: rows/s 1.86 (1.80 to 1.92), one client's 1.50")
    assert lines(page, "- 200 answers were compared; a probability differed by 1e-06 at most.")
    assert lines(page, "| LitServe | 1.0 | PNG | 2 x 1 | 16 | 2 | nothing |")
    assert "Against other servers" not in performance.render(report())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "fp16"}, "file: expected one of float32, int8, got 'fp16'"),
        ({"rate_rounds": (1.0,)}, "LitServe: expected every value in every round"),
        ({"why": "it ended"}, "LitServe: expected every value in every round, or `why` there is none"),
        ({"checked": 0}, "LitServe: expected figures of answers that were checked"),
    ],
)
def test_a_row_has_figures_that_were_checked_or_says_why_not(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ResultError, match=message):
        dataclasses.replace(rows()[3], **changes)
