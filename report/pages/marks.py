"""results/marks-*.json to docs/results/marks.md: which keyed mark clones keep, and who is accused by mistake.

    python -m report.pages marks

Every number on the page comes from the results files; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report.figures.marks import evidence
from report.pages import page
from report.rows.marks import MarkCostRow, MarkNullRow, MarkRow
from report.schema import Report, ResultError, read

PREFIX = "marks-"
SERVED = ("linear", 0.02, 2)
PLAIN = "soft"
# what is asked of the plain thief, of one who changed the clone, and of a mark
TARGET, CHANGED_TARGET, L1, ECE = 1e-6, 1e-3, 0.05, 0.01
CHANGED = ("pruned, trained again", "fine-tuned on 1,000", "distilled again")


@dataclass(frozen=True)
class Study:
    """One recipe's results. thieves: of the mark that is served, the best hidden first. marks: what the plain thief
    keeps of each mark, the least first."""

    report: Report
    thieves: tuple[MarkRow, ...]
    marks: tuple[MarkRow, ...]
    nulls: tuple[MarkNullRow, ...]
    costs: tuple[MarkCostRow, ...]

    @property
    def recipe(self) -> str:
        return self.marks[0].recipe

    @property
    def plain(self) -> MarkRow:
        """The worst of the seeds' plain thieves."""
        return next(row for row in self.thieves if row.thief == PLAIN)

    @property
    def changed(self) -> MarkRow | None:
        """The best hidden of the clones that CHANGED names."""
        return next((row for row in self.thieves if row.thief in CHANGED), None)

    @property
    def lost(self) -> tuple[MarkRow, ...]:
        return tuple(row for row in self.thieves if not row.named)

    @property
    def accused(self) -> int:
        return sum(null.accused for null in self.nulls)

    @property
    def tries(self) -> int:
        return sum(null.tries for null in self.nulls)


def pages(results: Path) -> dict[str, str]:
    """The page and its figures, by file name below docs/. Raises ResultError."""
    studies = [study(read(path)) for path in page.files(results, PREFIX, made_by="make reproduce-marks")]
    figures = {f"results/marks-{each.recipe}.svg": evidence(each.thieves, TARGET) for each in studies}
    return {"results/marks.md": render(studies), **figures}


def study(report: Report) -> Study:
    """What a results file says of marks. Raises ResultError where the served mark's plain thief was not measured."""
    thieves = sorted((row for row in report.marks if mark(row) == SERVED), key=lambda row: -row.p)
    marks = sorted((row for row in report.marks if row.thief == PLAIN), key=lambda row: -row.p)
    if not any(row.thief == PLAIN for row in thieves):
        raise ResultError(f"marks: expected the thief {PLAIN!r} of the mark {SERVED}, found none")
    return Study(report, tuple(thieves), tuple(marks), report.mark_nulls, report.mark_costs)


def mark(row: MarkRow) -> tuple[str, float, int]:
    """Which mark a row is of."""
    return row.mark, row.strength, row.parts


def render(studies: Sequence[Study]) -> str:
    """The page."""
    return page.render(
        "marks.md.j2",
        filters={"chance": chance},
        studies=studies,
        target=TARGET,
        changed_target=CHANGED_TARGET,
        most_l1=L1,
        most_ece=ECE,
    )


def chance(p: float) -> str:
    """A probability, in two digits whatever its size."""
    return f"{p:.1e}" if p < 1e-3 else f"{p:.2g}"
