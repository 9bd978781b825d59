"""The page of marks: what does not hold comes first, and every number from rows made up here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from report.pages import marks as document
from report.rows.bench import BenchRow
from report.rows.marks import MarkCostRow, MarkNullRow, MarkRow
from report.rows.run import RunInfo
from report.schema import Report, ResultError, write
from tests.report.pages.reading import answer, check, lines

SETTINGS = {
    "served mark": {"strength": 0.02, "parts": 2},
    "mark clones": {"epochs": 6, "network": "lenet5", "battery": "few"},
}
RUN = RunInfo("abc", 0, "Linux x86_64, 2 CPUs", "a CPU", None, {}, "2026-01-01T00:00:00+00:00", 1.0, SETTINGS)
SOFT = MarkRow(
    recipe="mnist", mark="linear", strength=0.02, parts=2, thief="soft", seed=0, queries=6000, statistic="capped",
    clone_accuracy=0.98, victim_accuracy=0.99, l1=0.04, ece=0.02, ece_unmarked=0.015, images=10_000, z=6.0, p=2e-9,
    e=1e6, accounts=100, named=True, other=0.01,
)  # fmt: skip
MORE = dataclasses.replace(SOFT, queries=10_000, seed=1, p=3e-12)
TUNED = dataclasses.replace(SOFT, thief="fine-tuned on 1,000", z=4.0, p=3e-5)
LABELS = dataclasses.replace(SOFT, thief="labels", z=0.1, p=0.4, named=False)
WEAK = dataclasses.replace(SOFT, strength=0.005, p=0.02, named=False)
RANKS = dataclasses.replace(SOFT, statistic="ranks", p=5e-4)
NULL = MarkNullRow("mnist", "true labels", 3, 120, 0.01, 1, 0.0002, 0.0456, 0.004)
OTHER = MarkNullRow("mnist", "clones under another key", 3, 100, 0.01, 2, 0.0024, 0.07, 0.002)
COST = MarkCostRow("mnist", 2, 8, (10.0, 12.0, 11.0))
BENCH = BenchRow(
    "undefended", "resnet18-8x", "pipeline", 8, 1, 16.0, 18.0, 500.0, None, study="paths", backend="onnxruntime"
)


def report(*rows: MarkRow, null: MarkNullRow = NULL) -> Report:
    return Report(RUN, marks=rows, mark_nulls=(null, OTHER), mark_costs=(COST,))


def rendered(*rows: MarkRow, null: MarkNullRow = NULL) -> str:
    text = document.render([document.study(report(*rows, null=null))], [BENCH])
    check(text)
    return text


def test_what_does_not_hold_comes_first() -> None:
    text = rendered(SOFT, MORE, TUNED, LABELS, WEAK)
    first, *others = answer(text)
    assert first.startswith("**Does not hold** for mnist: every thief that was tried is named")
    assert first.endswith("is not named of these: labels. Clones not named: mnist 1 of 4.")
    assert others[0].endswith("with p at most 1.0e-06. The worst p of each: mnist 2.0e-09 of 2 clones.")
    assert others[1].endswith("distilling again. The worst of each: mnist 3.0e-05 (fine-tuned on 1,000) of 1 clones.")
    assert others[2].endswith("Measured: mnist 0.040 and +0.0050.")
    assert others[3].endswith("Traced: mnist 3 of 3."), "who trained on labels is not counted"
    assert others[4].endswith(
        "Accused: mnist 1 of 120 tries of 3 networks (0.0 % to 4.6 %) and 2 of 100 tries of clones (0.2 % to 7.0 %)."
    )
    assert others[5].endswith("By rows together: mnist 0.55 % of 8.")


@pytest.mark.parametrize(
    ("missed", "says"),
    [
        (dataclasses.replace(MORE, p=1e-4), "The worst p of each: mnist 1.0e-04 of 2 clones."),
        (dataclasses.replace(MORE, named=False), "is named among 100 accounts"),
        (dataclasses.replace(TUNED, thief="distilled again", p=0.002), "The worst of each: mnist 0.002 (distilled"),
        (dataclasses.replace(MORE, l1=0.06), "Measured: mnist 0.060 and +0.0050."),
        (dataclasses.replace(MORE, ece=0.026), "Measured: mnist 0.040 and +0.0110."),
    ],
)
def test_missed_targets_are_said(missed: MarkRow, says: str) -> None:
    lost = [line for line in answer(rendered(SOFT, TUNED, missed)) if line.startswith("**Does not hold** for mnist")]
    assert [line for line in lost if says in line]


def test_too_many_accusations_and_too_slow_a_mark_are_said() -> None:
    accused = dataclasses.replace(NULL, accused=20, low=0.1, high=0.3)
    slow = dataclasses.replace(COST, microseconds=(41.0, 41.0))
    found = document.study(dataclasses.replace(report(SOFT, null=accused), mark_costs=(slow,)))
    text = document.render([found], [BENCH])
    lost = [line for line in answer(text) if line.startswith("**Does not hold**")]
    assert ["20 of 120 tries of 3 networks" in lost[0], "2.05 % of 8" in lost[1]] == [True, True]
    assert not lines(document.render([found]), "ResNet18-8x"), "without bench.json nothing is held against it"


def test_a_claim_names_the_recipes_that_it_fails_for() -> None:
    rows = [dataclasses.replace(row, recipe="clothes", p=0.3, named=False) for row in (SOFT, MORE)]
    text = document.render([document.study(report(SOFT, MORE)), document.study(report(*rows))])
    check(text)
    assert lines(text, "**Does not hold** for clothes: a soft", "mnist 2.0e-09 of 2 clones; clothes 0.3 of 2 clones.")


def test_tables_have_the_hidden_first() -> None:
    text = rendered(SOFT, MORE, TUNED, LABELS, WEAK, RANKS)
    thieves = [line.split(" | ")[0] for line in lines(text, "| 98.0 % |") if line.endswith("| 0.01 |")]
    assert thieves == ["| labels", "| fine-tuned on 1,000", "| soft", "| soft"]
    marks = [line.split(" | ")[1] for line in lines(text, "| linear |")]
    assert marks == ["0.005", "0.020"]
    assert lines(text, "| soft | 6\u202f000 | 0 | 2.0e-09 | 5.0e-04 |"), "of clones that both statistics read"
    assert lines(text, "| true labels | 3 | 120 | 1 |", "0.0 % to 4.6 %")
    assert lines(text, "| 8 | 11.0 | 10.0 to 12.0 |")


def test_the_page_and_its_figure_come_from_results_files(tmp_path: Path) -> None:
    write(tmp_path / "marks-mnist.json", report(SOFT, TUNED, LABELS))
    made = document.pages(tmp_path)
    assert made.keys() == {"results/marks.md", "results/marks.svg"}
    assert made["results/marks.svg"].startswith("<svg")
    assert document.pages(tmp_path) == made
    write(tmp_path / "bench.json", Report(RUN, bench=(BENCH,)))
    assert lines(document.pages(tmp_path)["results/marks.md"], "0.55 % of 8")
    write(tmp_path / "marks-mnist.json", report(SOFT, LABELS))
    assert document.pages(tmp_path)["results/marks.svg"] != made["results/marks.svg"]


def test_the_served_mark_must_have_been_measured() -> None:
    with pytest.raises(ResultError, match="expected the thief 'soft' of the mark"):
        document.study(report(WEAK))
