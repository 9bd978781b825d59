"""The page of faults and of the soak, broken promises too, from synthetic results."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from assurance.faults.figures import impact
from loadtests.soak import summary
from report.figures.soak import over_time
from report.pages import resilience
from report.rows.bounds import Bound
from report.rows.faults import FaultRow
from report.rows.soak import Reached, SoakRow, Tried
from report.schema import Report, ResultError, read, write
from tests.assurance.faults.test_faults import STORY
from tests.loadtests.test_soak import RATE, SECONDS, good
from tests.report import synthetic
from tests.report.pages.reading import answer, check, lines

FAULTS_RUN = dataclasses.replace(
    synthetic.RUN, settings={"effort": {"clients": 8, "patience_s": 15.0, "settle_s": 2.0}, "runs": 2}
)
EFFORT = {
    "minutes": SECONDS / 60,
    "share": 0.8,
    "thieving": 0.2,
    "warm_s": 30.0,
    "level_s": 10.0,
    "try_s": 40.0,
    "every_s": 10.0,
    "most_hashes": 5000.0,
}


def fault(run: int, lost: float, **changes: Any) -> FaultRow:
    plain: dict[str, Any] = {
        "fault": "worker_killed",
        "case": "one worker",
        "struck": impact(STORY, 1.0, 5.0 + run, clients=2),
        "neighbours": None,
        "bounds": (Bound("wrong answers", 0, 0), Bound("requests without an answer", lost, 8)),
        "facts": {"batch": 8.0, "stated": f"so {run}"},
    }
    return FaultRow(run=run, **{**plain, **changes})


ROWS = (
    fault(0, 3),
    fault(1, 9),
    fault(0, 0, fault="start_refused", case="no key", struck=None, bounds=(Bound("seconds", None, 60),), facts={}),
)
FAULTS = Report(FAULTS_RUN, faults=ROWS)


def soak(**changes: Any) -> SoakRow:
    run = good()
    plain: dict[str, Any] = {
        "recipe": "digits",
        "policies": ("undefended", "same-pow"),
        "effort": EFFORT,
        "ramp": (Reached(4, 300.0, 9.5, 20.0, 0.25), Reached(8, 400.0, 19.0, None, None)),
        "tries": (Tried(400.0, 0.3, 500.0, 900.0, 0.5), Tried(360.0, 0.002, 25.0, 60.0, None)),
        "rate": 288.0,
        "unfinished": None,
        "verdict": summary.verdict(run["records"], run["samples"], rate=RATE, seconds=SECONDS),
        "generator": summary.generator(run["records"], run["machines"], seconds=SECONDS),
        "growth": tuple(summary.growths(run["samples"], seconds=SECONDS)),
        "windows": tuple(summary.windows(run["records"], run["samples"], seconds=SECONDS, every=10.0)),
        "samples": tuple(run["samples"]),
    }
    return SoakRow(**{**plain, **changes})


def endured(**changes: Any) -> Report:
    return Report(synthetic.RUN, soak=(soak(**changes),))


def written(folder: Path) -> Path:
    write(folder / "faults.json", FAULTS)
    write(folder / "soak.json", endured())
    return folder


def test_both_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    written(tmp_path)
    assert read(tmp_path / "faults.json") == FAULTS
    assert read(tmp_path / "soak.json") == endured()


def test_broken_promises_open_the_page_and_lead_its_table() -> None:
    page = resilience.render(FAULTS, endured())
    check(page)
    assert answer(page)[0] == (
        "**Does not hold**: 1 of 3 promises under fault injection were kept in every run; broken: Worker killed "
        "(one worker): requests without an answer; Start refused (no key): seconds."
    )
    assert lines(page, "every request is answered, but for Worker killed, one worker (")
    (killed,) = lines(page, "| Worker killed | one worker | 12 | 6 |")
    others = "2 500 of TorchServe, 2 connection cut, 2 never answered"
    assert killed.endswith(f"| {others} | 2.30 | 2.80 | **1 of 2** | requests without an answer: 9 / 8 |")
    assert lines(page, "| Start refused | no key | - | - | - | - | - | **0 of 1** | seconds: - / 60 |")


def test_the_soak_is_reported_with_its_bounds() -> None:
    page = resilience.render(FAULTS, endured())
    assert lines(page, "at 288.0 requests a second: ", "promises kept.")
    assert lines(page, "| 400.0 | 30.0 % (not kept up) | 500.0 | 900.0 | 50.0 % |")
    assert lines(page, "| 360.0 | 0.2 % | 25.0 | 60.0 | - |")
    assert lines(page, "| answers with a 5xx | service | 0 | 0 | yes |")
    assert lines(page, "| p99 of its own delay, milliseconds | load generator | 20 | 0.5 | yes |")
    assert lines(page, "| Java | 300.0 | 300.0 | 0.0 % | 0.0 (0.0 to 0.0) |")
    assert lines(page, "answered 1\u202f000")
    assert "did not get to its end" not in page


def test_a_run_that_was_interrupted_is_said_to_be_one() -> None:
    broken = endured(unfinished="interrupted", verdict=(), growth=(), samples=())
    page = resilience.render(FAULTS, broken)
    assert "**The run did not get to its end: interrupted.**" in page
    assert lines(page, "**Does not hold**:", "minutes at 288.0 requests a second")


def test_the_figure_distinguishes_java_and_its_workers() -> None:
    drawn = over_time(soak().windows, soak().samples)
    for name in ("Java", "each worker", "all processes", "p99"):
        assert f"<!-- {name} -->" in drawn


@pytest.mark.parametrize("name", ["faults", "soak"])
def test_results_without_rows_are_an_error(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path)
    assert sorted(resilience.pages(folder)) == ["resilience.md", "resilience.svg"]
    write(folder / f"{name}.json", Report(FAULTS_RUN))
    with pytest.raises(ResultError, match=rf"{name}\.json: expected {name}, got none; run `make {name}`"):
        resilience.pages(folder)
    (folder / f"{name}.json").unlink()
    with pytest.raises(ResultError, match=rf"{name}\.json: no such file; run `make {name}` first"):
        resilience.pages(folder)
