"""The page of faults and of the soak, broken promises too, from made-up results."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assurance.faults.figures import felt
from loadtests.soak import summary
from report.figures.soak import over_time
from report.pages import resilience
from report.rows.bounds import Bound
from report.rows.faults import FaultRow
from report.rows.soak import Reached, SoakRow, Tried
from report.schema import Report, read, write
from tests.assurance.faults.test_faults import STORY
from tests.loadtests.test_soak import RATE, SECONDS, good
from tests.report import synthetic

CHECKOUT = Path(__file__).resolve().parents[3]
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
        "struck": felt(STORY, 1.0, 5.0 + run, clients=2),
        "neighbours": None,
        "bounds": (Bound("wrong answers", 0, 0), Bound("requests without an answer", lost, 8)),
        "facts": {"batch": 8.0, "told": f"so {run}"},
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


def written(folder: Path) -> tuple[Path, Path]:
    faults, endurance = folder / "faults.json", folder / "soak.json"
    write(faults, FAULTS)
    write(endurance, endured())
    return faults, endurance


def test_both_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    faults, endurance = written(tmp_path)
    assert read(faults) == FAULTS
    assert read(endurance) == endured()


def test_the_page_shows_what_was_kept_and_what_was_not() -> None:
    page = resilience.render(FAULTS, endured(), figure="resilience.svg")
    assert "1 of 3 promises were kept in every run" in page
    others = "2 500 of TorchServe, 2 connection cut, 2 never answered"
    assert f"| Worker killed | one worker | 12 | 6 | {others} | 2.30 | 2.80 | **broken** |" in page
    assert "| Start refused | no key | - | - | - | - | - | **broken** |" in page
    assert "| requests without an answer | 8 | 9 | **in 1 of 2** |" in page
    assert "| seconds | 60 | - | **in 0 of 1** |" in page
    assert "batch: 8; told: so 0; so 1." in page
    assert "| 4 | 300.0 | 9.5 | 20.0 | 25.0 % |" in page
    assert "| 8 | 400.0 | 19.0 | - | - |" in page
    assert "| 400.0 | 30.0 % (not kept up) | 500.0 | 900.0 | 50.0 % |" in page
    assert "| 360.0 | 0.2 % | 25.0 | 60.0 | - |" in page
    assert "### At 80.0 % of it: 288.0 requests a second" in page
    assert "| answers with a 5xx | 0 | 0 | yes |" in page
    assert "| Java | 300.0 | 300.0 | 0.0 % | 0.0 (0.0 to 0.0) |" in page
    assert "percentile was 10.0 ms in the second fifth and 10.0 ms in the last; its slope after warm-up is" in page
    assert "0.0 ms an hour, 95 % interval 0.0 to 0.0: told, not judged." in page
    assert "| answered | 1\u202f000 |" in page
    assert "| p99 of its own delay, milliseconds | 20 | 0.5 | yes |" in page
    assert "did not get to its end" not in page
    tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert len(tables) >= 7
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_a_run_that_was_interrupted_is_said_to_be_one() -> None:
    broken = endured(unfinished="interrupted", verdict=(), growth=(), samples=())
    page = resilience.render(FAULTS, broken, figure="x.svg")
    assert "**The run did not get to its end: interrupted.**" in page


def test_the_figure_tells_java_from_its_workers() -> None:
    drawn = over_time(soak().windows, soak().samples)
    for name in ("Java", "each worker", "all processes", "p99"):
        assert f"<!-- {name} -->" in drawn


@pytest.mark.parametrize(
    ("name", "option", "report", "message"),
    [
        ("faults.json", "--faults", Report(FAULTS_RUN), "expected faults, got none; run `make faults`"),
        ("soak.json", "--soak", Report(FAULTS_RUN), "expected soak, got none; run `make soak`"),
        ("nowhere.json", "--soak", None, "no such file; run `make soak` first"),
    ],
)
def test_results_without_rows_are_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, option: str, report: Report | None, message: str
) -> None:
    faults, endurance = written(tmp_path)
    if report is not None:
        write(tmp_path / name, report)
    words = ["--faults", str(faults), "--soak", str(endurance), option, str(tmp_path / name)]
    monkeypatch.setattr(sys, "argv", ["resilience", *words])
    with pytest.raises(SystemExit, match=f"{name}: {message}"):
        resilience.main()


def test_the_command_writes_the_page_and_its_figure(tmp_path: Path) -> None:
    faults, endurance = written(tmp_path)
    output = tmp_path / "docs" / "resilience.md"
    words = ("--faults", faults, "--soak", endurance, "--output", output)
    done = subprocess.run(
        [sys.executable, "-m", "report.pages.resilience", *map(str, words)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "![Latency and memory over time](resilience.svg)" in output.read_text("utf-8")
    assert output.with_suffix(".svg").read_text("utf-8").startswith("<svg")
