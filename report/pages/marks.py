"""results/marks-*.json to docs/results/marks.md: which keyed mark clones keep, and who is accused by mistake.

    python -m report.pages marks

Every number on the page comes from the results files; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from report.figures.marks import evidence
from report.format import number
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


@dataclass(frozen=True)
class Claim:
    """A sentence of the answer, and whether it holds."""

    holds: bool
    says: str


def pages(results: Path) -> dict[str, str]:
    """The page and its figure, by file name below docs/. Raises ResultError."""
    studies = [study(read(path)) for path in page.files(results, PREFIX, made_by="make reproduce-marks")]
    return {"results/marks.md": render(studies), "results/marks.svg": evidence(studies[0].thieves, TARGET)}


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


def claims(study: Study) -> Iterator[Claim]:
    """What was asked of marks, and what was found."""
    plain, changed, recipe = study.plain, study.changed, study.recipe
    yield Claim(
        plain.named and plain.p <= TARGET,
        f"{recipe}: a soft, augmented thief with images of the task is named among {plain.accounts} accounts with "
        f"p at most {chance(TARGET)}; measured {chance(plain.p)}.",
    )
    if changed is not None:
        yield Claim(
            changed.p <= CHANGED_TARGET,
            f"{recipe}: p is at most {chance(CHANGED_TARGET)} after pruning, fine-tuning on 1,000 images and "
            f"distilling again; measured {chance(changed.p)} ({changed.thief}).",
        )
    yield Claim(
        plain.l1 <= L1 and plain.ece - plain.ece_unmarked <= ECE,
        f"{recipe}: no label changes, l1 is at most {L1} and the calibration error grows by at most {ECE}; measured "
        f"{number(plain.l1, 3)}, and {number(plain.ece, 4)} for {number(plain.ece_unmarked, 4)}.",
    )
    lost = ", ".join(dict.fromkeys(row.thief for row in study.lost))
    yield Claim(
        not lost,
        f"{recipe}: every thief that was tried is named" + (f"; these are not: {lost}." if lost else "."),
    )
    yield Claim(
        all(null.low <= null.bound for null in study.nulls),
        f"{recipe}: no more models are accused that learnt nothing than the stated bound says; {study.accused} of "
        f"{study.tries} tries were accusations.",
    )


def render(studies: Sequence[Study]) -> str:
    """The page."""
    found = sorted((claim for each in studies for claim in claims(each)), key=lambda claim: claim.holds)
    return page.render("marks.md.j2", filters={"chance": chance}, studies=studies, claims=found)


def chance(p: float) -> str:
    """A probability, in two digits whatever its size."""
    return f"{p:.1e}" if p < 1e-3 else f"{p:.2g}"
