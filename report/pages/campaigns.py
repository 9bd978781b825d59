"""results/campaigns-*.json to a part of docs/results/budget.md: whether accounts of one campaign can be linked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from report.analysis.finding import Finding
from report.format import percent
from report.pages import page
from report.rows.campaigns import CampaignRow, StrangerRow
from report.schema import Report, ResultError, read

PREFIX = "campaigns-"
MADE_BY = "make reproduce-campaigns"
# what is asked of a link: so many of a campaign's accounts, and so few honest ones
LINKED, MOST_HONEST = 0.95, 0.001


class Code(NamedTuple):
    """What near-copies have in common: means of grid x grid blocks, in steps of grey levels."""

    grid: int
    step: int
    threshold: float

    def __str__(self) -> str:
        return f"{self.grid} x {self.grid} blocks in steps of {self.step}"


def code(row: StrangerRow | CampaignRow) -> Code:
    """Which one a row is about."""
    return Code(row.grid, row.step, row.threshold)


@dataclass(frozen=True)
class Spread:
    """A thief's campaigns over so many clients, linked by one code, by dilution."""

    name: str
    clients: int
    code: Code
    cells: tuple[CampaignRow, ...]


@dataclass(frozen=True)
class Campaigns:
    """One results file, read."""

    report: Report

    @property
    def recipe(self) -> str:
        return self.report.campaigns[0].recipe

    @cached_property
    def codes(self) -> tuple[Code, ...]:
        """In the order of the file."""
        return tuple(dict.fromkeys(map(code, self.report.strangers)))

    @property
    def window(self) -> int:
        return self.report.campaigns[0].window

    @property
    def dilutions(self) -> tuple[float, ...]:
        """Rising."""
        return tuple(sorted({row.dilution for row in self.report.campaigns}))

    @cached_property
    def kinds(self) -> tuple[tuple[StrangerRow, ...], ...]:
        """Honest accounts, a row a code: those linked most often first."""
        kinds: dict[str, list[StrangerRow]] = {}
        for row in self.report.strangers:
            kinds.setdefault(row.account, []).append(row)
        return tuple(sorted(map(tuple, kinds.values()), key=lambda rows: -max(row.linked for row in rows)))

    @cached_property
    def spreads(self) -> tuple[Spread, ...]:
        """Campaigns, those linked least first."""
        found: dict[tuple[str, int, Code], list[CampaignRow]] = {}
        for row in sorted(self.report.campaigns, key=lambda row: row.dilution):
            found.setdefault((row.account, row.clients, code(row)), []).append(row)
        made = [Spread(*which, tuple(rows)) for which, rows in found.items()]
        return tuple(sorted(made, key=lambda each: [row.linked for row in each.cells]))

    @property
    def several(self) -> tuple[CampaignRow, ...]:
        """Rows of campaigns that have more than one client."""
        return tuple(row for row in self.report.campaigns if row.clients > 1)

    @property
    def most(self) -> CampaignRow:
        """The campaign whose accounts were linked most often."""
        return max(self.several, key=lambda row: row.linked)

    @property
    def caught(self) -> int:
        """Of `several`, those in which more accounts are flagged together than alone."""
        return sum(row.together > row.alone for row in self.several)

    @property
    def lost(self) -> int:
        """Of all campaigns, those in which fewer are: honest company has brought them down."""
        return sum(row.together < row.alone for row in self.report.campaigns)

    @property
    def met(self) -> tuple[CampaignRow, ...]:
        """Of `several`, those whose accounts were linked as often as is asked."""
        return tuple(row for row in self.several if row.linked >= LINKED)

    @property
    def worst(self) -> StrangerRow:
        """Honest accounts that were linked most often."""
        return max(self.report.strangers, key=lambda row: row.linked)

    @property
    def worth(self) -> bool:
        """Whether some code flags accounts that are not flagged alone, and links nobody honest."""
        clean = {each for each in self.codes if all(row.linked <= MOST_HONEST for row in self._strangers(each))}
        return any(code(row) in clean and row.together > row.alone for row in self.several)

    def _strangers(self, which: Code) -> tuple[StrangerRow, ...]:
        return tuple(row for row in self.report.strangers if code(row) == which)


def finding(study: Campaigns) -> Finding:
    """What is asked of a link of accounts, and what was measured."""
    most, worst = study.most, study.worst
    text = f"{study.recipe}: accounts of one campaign are known by near-copies and are one account for the budget: "
    text += f"{len(study.met)} of {len(study.several)} campaigns of several clients are linked to {percent(LINKED)}, "
    text += f"{study.caught} flagged more often for it; most linked is {most.account} over {most.clients} clients, "
    text += f"{percent(most.dilution)} honest ({percent(most.linked)}). Of honest accounts most often: {worst.account} "
    text += f"({percent(worst.linked)})."
    return Finding(study.worth and len(study.met) == len(study.several), text)


def findings(studies: Sequence[Campaigns]) -> Iterator[Finding]:
    """One for each results file."""
    return map(finding, studies)


def read_all(results: Path) -> list[Campaigns]:
    """Every results file. Raises ResultError."""
    found = [Campaigns(read(path, measured_by=MADE_BY)) for path in page.files(results, PREFIX, made_by=MADE_BY)]
    for each in found:
        if not each.report.strangers or not each.report.campaigns or not each.several:
            raise ResultError(
                f"{PREFIX}*.json: expected rows of strangers and of campaigns over clients; run {MADE_BY}"
            )
    return found
