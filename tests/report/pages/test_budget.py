"""The page of accounts that a budget flags, and the rows that it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from report.pages import budget as document
from report.rows.budgets import BudgetRow
from report.rows.run import RunInfo
from report.schema import Report, ResultError, write
from tests.report.pages.reading import answer, check, lines

VERSIONS = {"python": "3.11", "torch": "2", "onnxruntime": "1"}
RUN = RunInfo("abc", 0, "Linux x86_64, 2 CPUs", "a CPU", None, VERSIONS, "2026-01-01T00:00:00+00:00", 1.0, {})


def row(account: str, flagged: float, queries: int, dilution: float = 0.0, **changes: Any) -> BudgetRow:
    fields: dict[str, Any] = {
        "recipe": "mnist",
        "policy": "same-budget",
        "level": 0.001,
        "account": account,
        "thief": True,
        "dilution": dilution,
        "queries": queries,
        "runs": 2,
        "accounts": 100,
        "flagged": flagged,
        "low": max(flagged - 0.05, 0),
        "high": min(flagged + 0.05, 1),
        "least": flagged,
        "most": flagged,
        "refused": 0.5,
    }
    return BudgetRow(**{**fields, **changes})


def honest(account: str, flagged: float) -> list[BudgetRow]:
    return [row(account, share, queries, thief=False, runs=0) for queries, share in ((1000, 0.0), (10_000, flagged))]


ROWS = (
    *honest("test images", 0.0),
    *honest("blurred, sigma 1", 0.8),
    *(row("knockoff", share, queries) for queries, share in ((50, 0.9), (200, 1.0), (1000, 1.0))),
    *(row("knockoff", share, queries, 0.9) for queries, share in ((2000, 0.97), (10_000, 1.0))),
    *(row("near+matched", share, queries) for queries, share in ((50, 0.1), (200, 0.4), (1000, 0.9))),
    *(row("near+matched", share, queries, 0.9) for queries, share in ((2000, 0.03), (10_000, 0.2))),
    *(row("in-distribution", 0.0, queries) for queries in (50, 200, 1000)),
)


def study(*rows: BudgetRow) -> document.Study:
    return document.Study(Report(RUN, budgets=rows))


def test_the_page_opens_with_what_does_not_hold() -> None:
    text = document.render([study(*ROWS)], [])
    check(text)
    first, second, third, last = answer(text)
    for each in (first, second, third):
        assert each.startswith("**Does not hold**: mnist: ")
    assert "within 200 queries, 0.0 % honest: 1 of 2 thieves. Least seen: near+matched, 40.0 %." in first
    assert "within 2,000 queries, 90.0 % honest: 1 of 2 thieves. Least seen: near+matched, 3.0 %." in second
    assert "1 of 1 kinds are, blurred, sigma 1 most (80.0 % in 10,000 queries)." in third
    assert last == (
        "mnist: at most 0.1 % of honest accounts of test images are flagged in 10,000 queries: 0.0 % of 100 "
        "(95 % interval to 5.0 %)."
    )


def test_who_is_seen_least_stands_first() -> None:
    found = study(*ROWS)
    assert [each.name for each in found.thieves] == ["in-distribution", "near+matched", "knockoff"]
    assert [each.name for each in found.tellable] == ["near+matched", "knockoff"]
    assert [each.name for each in found.honest] == ["blurred, sigma 1", "test images"]
    text = document.render([found], [])
    assert lines(text, "| near+matched |", "40.0 % (40.0 % to 40.0 %)", "| - |")


def test_a_budget_that_does_all_that_is_asked_says_so() -> None:
    kept = [each for each in ROWS if each.account not in ("near+matched", "blurred, sigma 1")]
    text = document.render([study(*kept)], [])
    assert "Does not hold" not in text
    assert "1 of 1 thieves." in answer(text)[0]


def test_results_without_thieves_or_customers_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no budget-\*\.json; make reproduce-budget"):
        document.pages(tmp_path)
    write(tmp_path / "budget-mnist.json", Report(RUN, budgets=ROWS[2:]))
    with pytest.raises(ResultError, match="expected rows of thieves"):
        document.pages(tmp_path)


def test_a_wrong_row_is_named() -> None:
    with pytest.raises(ResultError, match=r"expected low <= flagged <= high, got 0\.6, 0\.5"):
        row("knockoff", 0.5, 50, low=0.6, high=1.0)
    with pytest.raises(ResultError, match=r"dilution: expected 0 for honest accounts, got 0\.5"):
        row("test images", 0.5, 50, 0.5, thief=False)
