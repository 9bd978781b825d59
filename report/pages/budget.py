"""results/budget-*.json and campaigns-*.json to docs/results/budget.md: which accounts a budget flags, thieves' and
customers', and whether those of one campaign can be linked.

    python -m report.pages budget

Every number on the page comes from the results files; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from report.analysis.finding import Finding, answer
from report.figures.spent import spent
from report.format import percent
from report.pages import campaigns, page
from report.pages.campaigns import Campaigns
from report.rows.budgets import BudgetRow
from report.schema import Report, ResultError, read

PREFIX = "budget-"
MADE_BY = "make reproduce-budget"
# the honest accounts that the promise is about, and the attacker that no gate can tell from a customer
EXCHANGEABLE, CUSTOMER = "test images", "in-distribution"
# what is asked of a budget: a share of each thief's accounts within so many queries at this dilution, and the largest
# share of honest accounts over as many as were measured
TARGET, MOST_HONEST = 0.95, 0.001
WITHIN: tuple[tuple[float, int], ...] = ((0.0, 200), (0.9, 2_000))
SHOWN: tuple[tuple[float, int], ...] = ((0.0, 50), (0.0, 200), (0.5, 200), (0.9, 2_000), (0.9, 10_000), (0.99, 10_000))


@dataclass(frozen=True)
class Account:
    """All rows of one kind of account, by dilution and queries."""

    name: str
    rows: tuple[BudgetRow, ...]

    def at(self, dilution: float, queries: int) -> BudgetRow | None:
        """The row of this setting."""
        return next((row for row in self.rows if (row.dilution, row.queries) == (dilution, queries)), None)

    def share(self, dilution: float, queries: int) -> float | None:
        """What was flagged in it."""
        row = self.at(dilution, queries)
        return None if row is None else row.flagged

    def met(self, dilution: float, queries: int) -> bool:
        """Whether the target is met in this setting."""
        return (self.share(dilution, queries) or 0.0) >= TARGET

    @property
    def longest(self) -> BudgetRow:
        """Of the most queries."""
        return max(self.rows, key=lambda row: row.queries)

    @property
    def refused(self) -> float:
        """Of its own queries, by the gate."""
        return self.rows[0].refused


@dataclass(frozen=True)
class Study:
    """One results file, read."""

    report: Report

    @property
    def recipe(self) -> str:
        return self.report.budgets[0].recipe

    @property
    def level(self) -> float:
        return self.report.budgets[0].level

    @cached_property
    def honest(self) -> tuple[Account, ...]:
        """Those flagged most often first."""
        return tuple(sorted(self._accounts(thief=False), key=lambda each: -each.longest.flagged))

    @cached_property
    def thieves(self) -> tuple[Account, ...]:
        """Those flagged least first."""
        found = self._accounts(thief=True)
        return tuple(sorted(found, key=lambda each: [each.share(*where) or 0.0 for where in (*WITHIN, *SHOWN)]))

    @property
    def tellable(self) -> tuple[Account, ...]:
        """Thieves whose images are not the task's own."""
        return tuple(each for each in self.thieves if not each.name.startswith(CUSTOMER))

    @property
    def exchangeable(self) -> Account:
        """The honest accounts that the promise is about."""
        return next(each for each in self.honest if each.name == EXCHANGEABLE)

    def met(self, dilution: float, queries: int) -> int:
        """How many thieves are flagged as often as the target asks for."""
        return sum(each.met(dilution, queries) for each in self.tellable)

    @property
    def shares(self) -> dict[str, dict[str, float]]:
        """By thief and setting, what was flagged."""
        return {
            each.name: {setting(*where): each.share(*where) or 0.0 for where in SHOWN if each.at(*where)}
            for each in self.thieves
        }

    def _accounts(self, *, thief: bool) -> list[Account]:
        rows: dict[str, list[BudgetRow]] = {}
        for row in self.report.budgets:
            if row.thief == thief:
                rows.setdefault(row.account, []).append(row)
        return [Account(name, tuple(each)) for name, each in rows.items()]


def setting(dilution: float, queries: int) -> str:
    """In words."""
    return f"{queries:,} queries, {percent(dilution)} honest"


def findings(studies: Sequence[Study]) -> Iterator[Finding]:
    """What is asked of a budget, and what was measured."""
    for study in studies:
        for where in WITHIN:
            missed = [each for each in study.tellable if not each.met(*where)]
            all_ = f"{percent(TARGET)} of every thief's accounts are flagged within {setting(*where)}"
            text = f"{study.recipe}: {all_}: {study.met(*where)} of {len(study.tellable)} thieves."
            if missed:
                least = min(missed, key=lambda each: each.share(*where) or 0.0)
                text += f" Least seen: {least.name}, {percent(least.share(*where) or 0.0)}."
            yield Finding(not missed, text)
        hit = [each for each in study.honest if each.longest.flagged > MOST_HONEST]
        others = [each for each in study.honest if each.name != EXCHANGEABLE]
        if others:
            worst, count = others[0], sum(each in hit for each in others)
            text = f"{study.recipe}: honest accounts whose images are not drawn as the calibration's were are not "
            text += f"flagged: {count} of {len(others)} kinds are, {worst.name} most"
            yield Finding(not hit, f"{text} ({percent(worst.longest.flagged)} in {worst.longest.queries:,} queries).")
        row = study.exchangeable.longest
        text = f"{study.recipe}: at most {percent(MOST_HONEST)} of honest accounts of test images are flagged"
        text += f" in {row.queries:,} queries: {percent(row.flagged)} of {row.accounts:,}"
        yield Finding(row.flagged <= MOST_HONEST, f"{text} (95 % interval to {percent(row.high)}).")


def pages(results: Path) -> dict[str, str]:
    """The page and its figures, by file name below docs/. Raises ResultError."""
    studies = [Study(read(path, measured_by=MADE_BY)) for path in page.files(results, PREFIX, made_by=MADE_BY)]
    for study in studies:
        names = [row.account for row in study.report.budgets if not row.thief]
        if EXCHANGEABLE not in names or not any(row.thief for row in study.report.budgets):
            raise ResultError(f"{PREFIX}*.json: expected rows of thieves and of {EXCHANGEABLE!r}; run {MADE_BY}")
    figure = spent({each.recipe: each.shares for each in studies}, settings=[setting(*where) for where in SHOWN])
    return {"results/budget.svg": figure, "results/budget.md": render(studies, campaigns.read_all(results))}


def render(studies: Sequence[Study], linked: Sequence[Campaigns]) -> str:
    """The page."""
    found = answer([*findings(studies), *campaigns.findings(linked)])
    return page.render(
        "budget.md.j2",
        studies=studies,
        campaigns=linked,
        most_honest=campaigns.MOST_HONEST,
        findings=found,
        shown=SHOWN,
    )
