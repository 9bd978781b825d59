"""results/marks-*.json to docs/results/marks.md: which keyed mark clones keep, and who is accused by mistake.

    python -m report.pages marks

Every number on the page comes from the results files; its sentences hold whatever the numbers are. What a row costs
without a mark is bench.json's, where that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

from report.figures.marks import evidence
from report.format import number, percent
from report.intervals import clopper_pearson
from report.pages import page
from report.rows.bench import BenchRow
from report.rows.marks import MarkCostRow, MarkNullRow, MarkRow
from report.schema import Report, ResultError, read

PREFIX = "marks-"
FORM, STATISTIC = "linear", "capped"
PLAIN = "soft"
# what is asked of the plain thief, of one who changed the clone, of a mark, of the thieves of probabilities, of a row
TARGET, CHANGED_TARGET, L1, ECE, NAMED, SHARE = 1e-6, 1e-3, 0.05, 0.01, 0.95, 0.02
CHANGED = ("pruned, trained again", "fine-tuned on 1,000", "distilled again")
# who throws the mark away before a clone is trained, or serves none of what it learnt
WITHOUT = ("labels", "served as labels", "two accounts compared", "mark taken off")
# networks that no marked answer was shown to
NEVER_MARKED = ("true labels", "unmarked answers")
# of bench.json: a row of the network that a mark is held against
BESIDE = {"study": "paths", "path": "pipeline", "architecture": "resnet18-8x", "policy": "undefended"}


@dataclass(frozen=True)
class Study:
    """One recipe's results. thieves: of the mark that is served, the best hidden first. marks: what the plain thief of
    the fewest queries keeps of each mark, the least first."""

    report: Report
    thieves: tuple[MarkRow, ...]
    marks: tuple[MarkRow, ...]

    @property
    def recipe(self) -> str:
        return self.thieves[0].recipe

    @property
    def nulls(self) -> tuple[MarkNullRow, ...]:
        return self.report.mark_nulls

    @property
    def costs(self) -> tuple[MarkCostRow, ...]:
        return self.report.mark_costs

    @property
    def plain(self) -> tuple[MarkRow, ...]:
        """The plain thieves, the best hidden first."""
        return tuple(row for row in self.thieves if row.thief == PLAIN)

    @property
    def l1(self) -> float:
        """The largest of any key."""
        return max(row.l1 for row in self.plain)

    @property
    def growth(self) -> float:
        """Of the calibration error, the largest of any key."""
        return max(row.ece - row.ece_unmarked for row in self.plain)

    @property
    def changed(self) -> MarkRow | None:
        """The best hidden of the clones that CHANGED names."""
        return next((row for row in self.thieves if row.thief in CHANGED), None)

    @property
    def soft(self) -> tuple[MarkRow, ...]:
        """The clones of probabilities that the mark was left in."""
        return tuple(row for row in self.thieves if row.thief not in WITHOUT)

    @cached_property
    def statistics(self) -> dict[str, list[MarkRow]]:
        """The rows of the clones that every statistic was tried on, by statistic."""
        served = self.thieves[0]
        rows = [row for row in self.report.marks if mark(row) == mark(served)]
        names = dict.fromkeys(row.statistic for row in rows)
        tried = {name: {_clone(row): row for row in rows if row.statistic == name} for name in names}
        common = [clone for clone in tried[STATISTIC] if all(clone in each for each in tried.values())]
        return {name: [each[clone] for clone in common] for name, each in tried.items()} if len(names) > 1 else {}


@dataclass(frozen=True)
class Claim:
    """A sentence of the answer, and the recipes that it does not hold for."""

    lost: tuple[str, ...]
    says: str

    @property
    def line(self) -> str:
        return f"**Does not hold** for {', '.join(self.lost)}: {self.says}" if self.lost else self.says


def pages(results: Path) -> dict[str, str]:
    """The page and its figure, by file name below docs/. Raises ResultError."""
    studies = [study(read(path)) for path in page.files(results, PREFIX, made_by="make reproduce-marks")]
    bench = read(path).bench if (path := results / "bench.json").is_file() else ()
    figure = evidence({each.recipe: each.thieves for each in studies}, TARGET)
    return {"results/marks.md": render(studies, bench), "results/marks.svg": figure}


def study(report: Report) -> Study:
    """What a results file says of marks. Raises ResultError where the served mark's plain thief was not measured."""
    stated = report.run.settings["served mark"]
    served = (FORM, stated["strength"], stated["parts"])
    rows = sorted((row for row in report.marks if row.statistic == STATISTIC), key=lambda row: -row.p)
    thieves = tuple(row for row in rows if mark(row) == served)
    plain = [row for row in thieves if row.thief == PLAIN]
    if not plain:
        raise ResultError(f"marks: expected the thief {PLAIN!r} of the mark {served}, found none")
    first = min(plain, key=lambda row: (row.seed, row.queries))
    alike = (row for row in rows if (row.thief, row.seed, row.queries) == (PLAIN, first.seed, first.queries))
    return Study(report, thieves, tuple(alike))


def mark(row: MarkRow) -> tuple[str, float, int]:
    """Which mark a row is of."""
    return row.mark, row.strength, row.parts


def _clone(row: MarkRow) -> tuple[str, int, int]:
    return row.thief, row.queries, row.seed


def claims(studies: Sequence[Study], bench: Sequence[BenchRow] = ()) -> Iterator[Claim]:
    """What was asked of marks, and what was found."""

    def of(holds: Callable[[Study], bool], says: str, found: Callable[[Study], str]) -> Claim:
        each = "; ".join(f"{study.recipe} {found(study)}" for study in studies)
        return Claim(tuple(study.recipe for study in studies if not holds(study)), f"{says}: {each}.")

    accounts = studies[0].plain[0].accounts
    yield of(
        lambda study: all(row.named and row.p <= TARGET for row in study.plain),
        f"a soft, augmented thief with images of the task is named among {accounts} accounts with p at most "
        f"{chance(TARGET)}. The worst p of each",
        lambda study: f"{chance(study.plain[0].p)} of {len(study.plain)} clones",
    )
    yield of(
        lambda study: study.changed is None or study.changed.p <= CHANGED_TARGET,
        f"p is at most {chance(CHANGED_TARGET)} after pruning, fine-tuning on 1,000 images and distilling again. The "
        "worst of each",
        lambda study: _worst([row for row in study.thieves if row.thief in CHANGED]),
    )
    yield of(
        lambda study: study.l1 <= L1 and study.growth <= ECE,
        f"no label changes, l1 is at most {L1} and the calibration error grows by at most {ECE}. Measured",
        lambda study: f"{number(study.l1, 3)} and {study.growth:+.4f}",
    )
    yield of(
        lambda study: sum(row.named for row in study.soft) >= NAMED * len(study.soft),
        f"of clones of probabilities that the mark was left in, {percent(NAMED)} are traced to the right account among "
        f"{accounts}. Traced",
        lambda study: f"{sum(row.named for row in study.soft)} of {len(study.soft)}",
    )
    lost = dict.fromkeys(row.thief for study in studies for row in study.thieves if not row.named)
    yield of(
        lambda study: all(row.named for row in study.thieves),
        f"every thief that was tried is named. One clone or more is not named of these: {', '.join(lost) or 'none'}. "
        "Clones not named",
        lambda study: f"{sum(not row.named for row in study.thieves)} of {len(study.thieves)}",
    )
    yield of(
        lambda study: all(tried[2] <= study.nulls[0].bound for tried in map(pooled, _groups(study.nulls)) if tried),
        "models that learnt nothing of the account are accused no oftener than the stated bound. Accused",
        lambda study: " and ".join(_accused(group) for group in _groups(study.nulls) if group),
    )
    beside = {
        row.batch: 1e3 * row.p50_ms / row.batch
        for row in bench
        if all(getattr(row, name) == value for name, value in BESIDE.items()) and row.backend == "onnxruntime"
    }
    if beside and any(cost.batch in beside for study in studies for cost in study.costs):
        yield of(
            lambda study: all(median(each.microseconds) <= SHARE * beside[each.batch] for each in _with(study, beside)),
            f"a mark takes at most {percent(SHARE)} of a row's time beside ResNet18-8x. By rows together",
            lambda study: ", ".join(
                f"{100 * median(each.microseconds) / beside[each.batch]:.2f} % of {each.batch}"
                for each in _with(study, beside)
            ),
        )


def _worst(rows: Sequence[MarkRow]) -> str:
    """Of clones that were changed, the best hidden first."""
    return f"{chance(rows[0].p)} ({rows[0].thief}) of {len(rows)} clones" if rows else "-"


def _with(study: Study, beside: dict[int, float]) -> list[MarkCostRow]:
    return [each for each in study.costs if each.batch in beside]


def _groups(nulls: Sequence[MarkNullRow]) -> tuple[list[MarkNullRow], list[MarkNullRow]]:
    """Networks that no marked answer was shown to; all others."""
    never = [null for null in nulls if null.kind in NEVER_MARKED]
    return never, [null for null in nulls if null.kind not in NEVER_MARKED]


def pooled(nulls: Sequence[MarkNullRow]) -> tuple[int, int, float, float] | None:
    """Accused, tries, and the 95 % interval of their share; None of no row."""
    if not nulls:
        return None
    accused, tries = sum(null.accused for null in nulls), sum(null.tries for null in nulls)
    return (accused, tries, *clopper_pearson(accused, tries))


def _accused(nulls: Sequence[MarkNullRow]) -> str:
    found = pooled(nulls)
    assert found is not None, "a group with rows"
    accused, tries, low, high = found
    what = f" of {sum(null.models for null in nulls)} networks" if nulls[0].kind in NEVER_MARKED else " of clones"
    return f"{accused} of {tries} tries{what} ({percent(low)} to {percent(high)})"


def render(studies: Sequence[Study], bench: Sequence[BenchRow] = ()) -> str:
    """The page."""
    found = sorted(claims(studies, bench), key=lambda claim: not claim.lost)
    return page.render("marks.md.j2", filters={"chance": chance}, studies=studies, claims=found)


def chance(p: float) -> str:
    """A probability, in two digits whatever its size."""
    return f"{p:.1e}" if p < 1e-3 else f"{p:.2g}"
