"""The part of the budget's page about campaigns, and the rows that it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from report.pages import budget, campaigns
from report.rows.campaigns import CampaignRow, StrangerRow
from report.schema import Report, ResultError, write
from tests.report.pages.reading import answer, check, lines
from tests.report.pages.test_budget import ROWS, RUN, study

CODE: dict[str, Any] = {
    "recipe": "mnist",
    "policy": "same-budget",
    "grid": 7,
    "step": 64,
    "window": 200,
    "threshold": 0.03,
}


def stranger(account: str, linked: float, **changes: Any) -> StrangerRow:
    fields = {**CODE, "account": account, "chosen": False, "accounts": 1000, "among": 100}
    interval = {"linked": linked, "low": max(linked - 0.01, 0), "high": min(linked + 0.01, 1)}
    return StrangerRow(**{**fields, **interval, **changes})


def campaign(account: str, clients: int, dilution: float, **changes: Any) -> CampaignRow:
    counts = {"level": 0.001, "queries": 200, "campaigns": 2, "strangers": 100}
    shares = {"linked": 0.0, "wrongly": 0.0, "alone": 0.5, "together": 0.5, "strangers_together": 0.0}
    return CampaignRow(
        **{**CODE, "account": account, "clients": clients, "dilution": dilution, **counts, **shares, **changes}
    )


STRANGERS = (stranger("test images", 0.0, chosen=True), stranger("one class", 0.1))
CAMPAIGNS = (
    campaign("knockoff", 1, 0.0),
    campaign("knockoff", 1, 0.9),
    campaign("knockoff+jittered-4", 10, 0.0, linked=1.0, together=1.0),
    campaign("knockoff+jittered-4", 10, 0.9, linked=0.2),
    campaign("knockoff", 10, 0.0),
    campaign("knockoff", 10, 0.9, wrongly=0.04, together=0.2),
)


def read(*rows: CampaignRow, strangers: tuple[StrangerRow, ...] = STRANGERS) -> campaigns.Campaigns:
    return campaigns.Campaigns(Report(RUN, strangers=strangers, campaigns=rows))


def test_the_page_says_that_a_link_is_not_worth_it() -> None:
    text = budget.render([study(*ROWS)], [read(*CAMPAIGNS)])
    check(text)
    (said,) = (line for line in answer(text) if "one campaign" in line)
    assert said.startswith("**Does not hold**: mnist: ")
    assert (
        "1 of 4 campaigns of several clients are linked to 95.0 %, 1 flagged more often for it; most linked is " in said
    )
    assert (
        "knockoff+jittered-4 over 10 clients, 0.0 % honest (100.0 %). Of honest accounts most often: one class" in said
    )
    assert "Not worth building into a server" in text
    assert "of all 6 in 1 fewer are" in text
    assert lines(text, "| test images, the threshold's own |", "| 0.0 % |")
    cells = "| 0.0 %, 0.0 %, 50.0 %, 50.0 % | 0.0 %, 4.0 %, 50.0 %, 20.0 % | 2 |"
    assert lines(text, "| knockoff | 10 |", cells)


def test_who_is_linked_least_and_who_is_wronged_most_stand_first() -> None:
    found = read(*CAMPAIGNS)
    assert [each.name for each in found.spreads] == ["knockoff", "knockoff", "knockoff+jittered-4"]
    assert [rows[0].account for rows in found.kinds] == ["one class", "test images"]
    assert (found.caught, found.lost) == (1, 1)


def test_a_link_that_harms_nobody_and_catches_somebody_is_worth_it() -> None:
    all_linked = [campaign("near", clients, 0.0, linked=1.0, together=1.0) for clients in (10, 100)]
    found = read(*all_linked, strangers=STRANGERS[:1])
    assert found.worth
    assert campaigns.finding(found).holds
    assert "Not worth" not in budget.render([study(*ROWS)], [found])
    assert not read(*all_linked).worth, "one class is linked"
    assert not read(campaign("near", 10, 0.0), strangers=STRANGERS[:1]).worth


def test_pages_and_their_figure_come_from_the_files(tmp_path: Path) -> None:
    write(tmp_path / "budget-mnist.json", Report(RUN, budgets=ROWS))
    with pytest.raises(ResultError, match=r"no campaigns-\*\.json; make reproduce-campaigns"):
        budget.pages(tmp_path)
    write(tmp_path / "campaigns-mnist.json", Report(RUN, strangers=STRANGERS, campaigns=CAMPAIGNS))
    made = budget.pages(tmp_path)
    assert set(made) == {"results/budget.md", "results/budget.svg"}
    assert "near+matched" in made["results/budget.svg"]
    assert "knockoff+jittered-4" in made["results/budget.md"]


def test_results_without_campaigns_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "campaigns-mnist.json", Report(RUN, strangers=STRANGERS, campaigns=CAMPAIGNS[:2]))
    with pytest.raises(ResultError, match="expected rows of strangers and of campaigns"):
        campaigns.read_all(tmp_path)


def test_a_wrong_row_is_named() -> None:
    with pytest.raises(ResultError, match=r"expected low <= linked <= high, got 0\.6, 0\.5"):
        stranger("one class", 0.5, low=0.6, high=1.0)
    with pytest.raises(ResultError, match=r"linked: expected 0 for one client, who has no other, got 0\.5"):
        campaign("near", 1, 0.0, linked=0.5)
