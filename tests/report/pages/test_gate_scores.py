"""The page of scores that a gate could judge by, and the rows that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from report.pages import gate_scores as document
from report.rows.gate_scores import GateScoreRow, GateTrafficRow
from report.rows.run import RunInfo
from report.schema import Report, ResultError, write
from tests.report.pages.reading import answer, check, lines

VERSIONS = {"python": "3.11", "torch": "2", "onnxruntime": "1"}
RUN = RunInfo("abc", 0, "Linux x86_64, 2 CPUs", "a CPU", None, VERSIONS, "2026-01-01T00:00:00+00:00", 1.0, {})


def row(score: str, *, family: str = "gate", shifted: bool = False, cost: float = 2.0, **changes: Any) -> GateScoreRow:
    fields: dict[str, Any] = {
        "recipe": "mnist",
        "policy": "same-reject",
        "score": score,
        "family": family,
        "reads_features": family == "features",
        "shifted": shifted,
        "images": 3000,
        "rate": 0.01,
        "benign": 10_000,
        "flagged": 0.01,
        "low": 0.008,
        "high": 0.012,
        "cost": cost,
        "cost_low": cost,
        "cost_high": cost,
        "rows": 32,
        "rounds": 30,
    }
    return GateScoreRow(**{**fields, **changes})


def traffic(score: str, name: str, refused: float, auroc: float, **changes: Any) -> GateTrafficRow:
    fields: dict[str, Any] = {
        "recipe": "mnist",
        "policy": "same-reject",
        "score": score,
        "shifted": False,
        "traffic": name,
        "malicious": True,
        "form": None,
        "variant": None,
        "images": 540,
        "refused": refused,
        "auroc": auroc,
    }
    return GateTrafficRow(**{**fields, **changes})


def judged(
    score: str, *, shifts: Mapping[str, float], matched: Mapping[str, tuple[float, float]], shifted: bool = False
) -> list[GateTrafficRow]:
    """Of matched attackers the share refused and the AUROC."""
    rows = [traffic(score, name, 0.9, 0.95, shifted=shifted) for name in matched]
    rows.append(traffic(score, "in-distribution", 0.01, 0.5, shifted=shifted))
    rows += [
        traffic(score, name, refused, auroc, shifted=shifted, form="matched", variant="softer")
        for name, (refused, auroc) in matched.items()
    ]
    return rows + [
        traffic(score, name, refused, 0.6, shifted=shifted, malicious=False) for name, refused in shifts.items()
    ]


SCORES = (row("served"), row("alpha-0.5"), row("nearest", family="features", cost=1.5), row("served", shifted=True))
TRAFFIC = (
    *judged("served", shifts={"blurred": 1.0, "moved": 0.2}, matched={"near": (0.5, 0.9), "mixed": (0.1, 0.7)}),
    *judged("alpha-0.5", shifts={"blurred": 0.1, "moved": 0.1}, matched={"near": (0.3, 0.9), "mixed": (0.1, 0.8)}),
    *judged("nearest", shifts={"blurred": 0.2, "moved": 0.0}, matched={"near": (0.6, 0.9), "mixed": (0.2, 0.75)}),
    *judged(
        "served",
        shifts={"blurred": 0.03, "moved": 0.01},
        matched={"near": (0.0, 0.95), "mixed": (0.0, 0.9)},
        shifted=True,
    ),
)


def study(scores: tuple[GateScoreRow, ...] = SCORES, rows: tuple[GateTrafficRow, ...] = TRAFFIC) -> document.Study:
    return document.Study(Report(RUN, gate_scores=scores, gate_traffic=rows))


def test_the_page_opens_with_what_does_not_hold() -> None:
    text = document.render([study()])
    check(text)
    first, second, third, fourth, last = answer(text)
    for each in (first, second, third, fourth):
        assert each.startswith("**Does not hold**: ")
    assert first.endswith("at most 5.0 % of customers' images after any shift: blurred, 100.0 %.")
    assert "30.0 % against 100.0 %" in second
    assert "the best, nearest, accepts 80.0 % of mixed." in third
    assert "it is nearest (+20.0 points against -70.0 points, mean over mnist)" in fourth
    assert "1 of 4 do, served, shifted images among the calibration's with the largest margin, -3.0 points" in last


def test_the_largest_margin_is_the_default_and_says_what_serving_it_needs() -> None:
    text = document.render([study()])
    assert "**Default by these measurements: `nearest`.**" in text
    assert "the predictor's graph must give them as a second output" in text
    assert "Without new code the best is `alpha-0.5`, +10.0 points: a policy's `gate` with that alpha" in text
    without = study(tuple(each for each in SCORES if each.family == "gate"))
    text = document.render([without])
    assert "**Default by these measurements: `alpha-0.5`.**" in text
    assert "A policy's `gate` can have it" in text
    assert "second output" not in text


def test_the_frontier_leaves_out_what_another_beats() -> None:
    found = document.choices([study()])
    assert [each.name for each in found][:2] == ["nearest", "alpha-0.5"]
    kept = [each.name for each in document.undominated(found)]
    assert kept == ["nearest", "alpha-0.5", "served, shifted images among the calibration's"]
    assert all(not each.beaten_by(each) for each in found)


def test_a_score_is_judged_on_all_results() -> None:
    second = study(tuple(each for each in SCORES if each.score != "nearest"))
    assert "nearest" not in [each.name for each in document.choices([study(), second])]


def test_tables_begin_with_the_smallest_margin() -> None:
    text = document.render([study()])
    first, *_ = lines(text, "| served | 1.0 % |")
    assert "| 60.0 % | 100.0 % (blurred) | 0.95 | 50.0 % (0.90) | 90.0 % (0.70) | -70.0 points |" in first
    assert text.index("| served | 1.0 % |") < text.index("| alpha-0.5 | 1.0 % |") < text.index("| nearest | 1.0 % |")


def test_pages_and_their_figure_come_from_the_files(tmp_path: Path) -> None:
    write(tmp_path / "gate-scores-mnist.json", Report(RUN, gate_scores=SCORES, gate_traffic=TRAFFIC))
    made = document.pages(tmp_path)
    assert set(made) == {"results/gate-scores.md", "results/gate-scores.svg"}
    assert "alpha-0.5" in made["results/gate-scores.svg"]


def test_results_without_what_is_served_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no gate-scores-\*\.json; make reproduce-gate-scores"):
        document.pages(tmp_path)
    write(tmp_path / "gate-scores-mnist.json", Report(RUN, gate_scores=SCORES[1:3], gate_traffic=TRAFFIC))
    with pytest.raises(ResultError, match="expected rows of the score 'served'"):
        document.pages(tmp_path)


def test_a_wrong_row_is_named() -> None:
    with pytest.raises(ResultError, match=r"expected low <= flagged <= high, got 0\.5, 0\.01"):
        row("served", low=0.5, high=0.6)
    with pytest.raises(ResultError, match=r"expected 1 <= cost_low <= cost <= cost_high, got 0\.9"):
        row("served", cost_low=0.9)
    with pytest.raises(ResultError, match="variant: expected one where there is a form, got 'matched' and None"):
        traffic("served", "near", 0.5, 0.5, form="matched")
    with pytest.raises(ResultError, match="form: expected None for benign traffic, got 'matched'"):
        traffic("served", "moved", 0.5, 0.5, form="matched", variant="softer", malicious=False)
