"""results/gate-scores-*.json to docs/results/gate-scores.md: by which score a gate should judge a query.

    python -m report.pages gate-scores

Every number on the page comes from the results files; its sentences hold whatever the numbers are.

A score is worth what it refuses of attackers who know it, less what it refuses of customers who have another camera:
its margin, the mean share of the matched attackers' queries less the share of the images after the worst shift, since a
customer has one camera and not the mean of nine. The default has the largest mean margin over all results; of equal
ones, it is the cheapest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean

from report.analysis.finding import Finding, answer
from report.figures.frontier import Point, frontier
from report.format import number, percent
from report.pages import page
from report.rows.gate_scores import GateScoreRow, GateTrafficRow
from report.schema import Report, ResultError, read

PREFIX = "gate-scores-"
MADE_BY = "make reproduce-gate-scores"
SERVED, MATCHED, CUSTOMER = "served", "matched", "in-distribution"
FAMILIES = ("gate", "image", "features", "combined")
# what a policy can be given as it is: a form and a weight, and benign images to calibrate on
SETTINGS, NORMALISED = ("served", "paper", "alpha-"), "-normalised"
# of the benign images after any shift, what a gate may refuse; of each matched attacker's queries, what it should
MOST_SHIFTED, MOST_ACCEPTED = 0.05, 0.5


@dataclass(frozen=True)
class Setting:
    """A score, calibrated on one kind of benign images: its row, and what it makes of traffic."""

    row: GateScoreRow
    traffic: tuple[GateTrafficRow, ...]

    @property
    def key(self) -> tuple[str, bool]:
        return self.row.score, self.row.shifted

    @property
    def name(self) -> str:
        """As sentences call it."""
        return f"{self.row.score}, shifted images among the calibration's" if self.row.shifted else self.row.score

    @property
    def shifts(self) -> tuple[GateTrafficRow, ...]:
        return tuple(each for each in self.traffic if not each.malicious)

    @property
    def matched(self) -> tuple[GateTrafficRow, ...]:
        """Of attackers who know it."""
        return tuple(each for each in self.traffic if each.form == MATCHED)

    @property
    def plain(self) -> tuple[GateTrafficRow, ...]:
        """Of attackers who do not, but for those who have the task's own images."""
        return tuple(each for each in self.traffic if each.malicious and not each.form and each.traffic != CUSTOMER)

    @property
    def worst_shift(self) -> GateTrafficRow:
        return max(self.shifts, key=lambda each: each.refused)

    @property
    def worst_matched(self) -> GateTrafficRow:
        """The attacker of whose queries most are accepted."""
        return min(self.matched, key=lambda each: each.refused)

    @property
    def hardest(self) -> GateTrafficRow:
        """The matched attacker who looks most like a customer."""
        return min(self.matched, key=lambda each: each.auroc)

    @property
    def customers(self) -> float:
        """The share of images that is refused after the worst shift."""
        return self.worst_shift.refused

    @property
    def mean_shift(self) -> float:
        """The mean share over all shifts."""
        return mean(each.refused for each in self.shifts)

    @property
    def attackers(self) -> float:
        """The mean share of matched attackers' queries that is refused."""
        return mean(each.refused for each in self.matched)

    @property
    def margin(self) -> float:
        return self.attackers - self.customers

    @property
    def adjustable(self) -> bool:
        """Whether a policy can have it today."""
        return self.row.score.startswith(SETTINGS) and not self.row.score.endswith(NORMALISED)

    def of(self, attack: str) -> GateTrafficRow:
        """The matched form of an attack."""
        return next(each for each in self.matched if each.traffic == attack)


@dataclass(frozen=True)
class Study:
    """One results file, read."""

    report: Report

    @property
    def recipe(self) -> str:
        return self.report.gate_scores[0].recipe

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Those of the least margin first."""
        traffic: dict[tuple[str, bool], list[GateTrafficRow]] = {}
        for row in self.report.gate_traffic:
            traffic.setdefault((row.score, row.shifted), []).append(row)
        found = [Setting(row, tuple(traffic[row.score, row.shifted])) for row in self.report.gate_scores]
        return tuple(sorted(found, key=lambda each: each.margin))

    @property
    def served(self) -> Setting:
        return self.at((SERVED, False))

    @property
    def attacks(self) -> tuple[str, ...]:
        """Those with a matched form."""
        return tuple(each.traffic for each in self.served.matched)

    def at(self, key: tuple[str, bool]) -> Setting:
        return next(each for each in self.settings if each.key == key)


@dataclass(frozen=True)
class Choice:
    """A score and its calibration images, over all results."""

    settings: tuple[Setting, ...]

    @property
    def name(self) -> str:
        return self.settings[0].name

    @property
    def family(self) -> str:
        return self.settings[0].row.family

    @property
    def key(self) -> tuple[str, bool]:
        return self.settings[0].key

    @property
    def margin(self) -> float:
        return mean(each.margin for each in self.settings)

    @property
    def cost(self) -> float:
        return mean(each.row.cost for each in self.settings)

    @property
    def attackers(self) -> float:
        """The mean share of matched attackers' queries that is refused."""
        return mean(each.attackers for each in self.settings)

    @property
    def auroc(self) -> float:
        """Of the matched attacker who looks most like a customer, on the results where that is hardest."""
        return min(each.hardest.auroc for each in self.settings)

    @property
    def worst_shift(self) -> float:
        return max(each.worst_shift.refused for each in self.settings)

    @property
    def reads_features(self) -> bool:
        return self.settings[0].row.reads_features

    @property
    def normalised(self) -> bool:
        """Whether the gate is shown other images than were sent."""
        return self.settings[0].row.score.endswith(NORMALISED)

    def beaten_by(self, other: Choice) -> bool:
        """Whether another is no worse in any respect of the frontier, and better in one."""
        mine = (-self.attackers, self.worst_shift, self.cost)
        theirs = (-other.attackers, other.worst_shift, other.cost)
        return theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))


def choices(studies: Sequence[Study]) -> list[Choice]:
    """Of every setting that all results have, those of the largest margin first."""
    keys = [each.key for each in studies[0].settings if all(each.key in {s.key for s in o.settings} for o in studies)]
    found = [Choice(tuple(study.at(key) for study in studies)) for key in keys]
    return sorted(found, key=lambda each: (-each.margin, each.cost))


def undominated(found: Sequence[Choice]) -> list[Choice]:
    """Those on the frontier of attackers refused, false positives and cost, those that refuse most first."""
    kept = [each for each in found if not any(each.beaten_by(other) for other in found)]
    return sorted(kept, key=lambda each: -each.attackers)


def findings(studies: Sequence[Study]) -> Iterator[Finding]:
    """What is asked of a score, and what was measured."""
    for study in studies:
        served = study.served
        worst = served.worst_shift
        text = (
            f"{study.recipe}: the served score refuses at most {percent(MOST_SHIFTED)} of customers' images after any"
        )
        text += f" shift: {worst.traffic}, {percent(worst.refused)}."
        yield Finding(worst.refused <= MOST_SHIFTED, text)
        text = f"{study.recipe}: the served score refuses more of tuned attackers' queries than of customers' images "
        text += f"after the worst shift: {percent(served.attackers)} against {percent(served.customers)}."
        yield Finding(served.margin > 0, text)
        best = max(study.settings, key=lambda each: each.worst_matched.refused)
        accepted = 1 - best.worst_matched.refused
        text = f"{study.recipe}: some score accepts at most {percent(MOST_ACCEPTED)} of what every attacker who knows "
        text += f"it sends: the best, {best.name}, accepts {percent(accepted)} of {best.worst_matched.traffic}."
        yield Finding(accepted <= MOST_ACCEPTED, text)
    found = choices(studies)
    first = found[0]
    served_choice = next(each for each in found if each.key == (SERVED, False))
    over = ", ".join(each.recipe for each in studies)
    text = f"the served score has the largest margin of {len(found)}: it is {first.name}"
    text += f" ({signed(first.margin)} against {signed(served_choice.margin)}, mean over {over})."
    yield Finding(first.key == served_choice.key, text)
    within = [each for each in found if each.worst_shift <= MOST_SHIFTED]
    text = f"some score refuses at most {percent(MOST_SHIFTED)} of customers' images after any shift: {len(within)} of "
    text += f"{len(found)} do"
    if within:
        text += f", {within[0].name} with the largest margin, {signed(within[0].margin)}"
    yield Finding(bool(within), f"{text}.")


def signed(margin: float) -> str:
    """A margin in percentage points."""
    return f"{100 * margin:+.1f} points"


def pages(results: Path) -> dict[str, str]:
    """The page and its figure, by file name below docs/. Raises ResultError."""
    studies = [Study(read(path, measured_by=MADE_BY)) for path in page.files(results, PREFIX, made_by=MADE_BY)]
    for study in studies:
        if not any(row.score == SERVED for row in study.report.gate_scores) or not study.report.gate_traffic:
            raise ResultError(f"{PREFIX}*.json: expected rows of the score {SERVED!r} and its traffic; run {MADE_BY}")
    return {"results/gate-scores.svg": figure(studies), "results/gate-scores.md": render(studies)}


def figure(studies: Sequence[Study]) -> str:
    """The frontier of each data set; what is served and what was chosen are named."""
    found = choices(studies)
    named = {(SERVED, False), found[0].key, adjustable(found).key}
    points = {
        study.recipe: [
            Point(
                name=each.row.score,
                customers=each.customers,
                attackers=each.attackers,
                kind=each.row.family,
                hollow=each.row.shifted,
                named=each.key in named,
            )
            for each in study.settings
        ]
        for study in studies
    }
    return frontier(points, kinds=FAMILIES)


def adjustable(found: Sequence[Choice]) -> Choice:
    """The largest margin of those that a policy can have today."""
    return next(each for each in found if each.settings[0].adjustable)


def render(studies: Sequence[Study]) -> str:
    """The page."""
    found = choices(studies)
    return page.render(
        "gate_scores.md.j2",
        filters={"signed": signed},
        studies=studies,
        findings=answer(findings(studies)),
        chosen=found[0],
        today=adjustable(found),
        served=next(each for each in found if each.key == (SERVED, False)),
        frontier=undominated(found),
        compared=len(found),
        rate=percent(studies[0].served.row.rate),
        cells=cells,
        number=number,
    )


def cells(setting: Setting, study: Study) -> list[str]:
    """Of each attack in its matched form: what is accepted, and the AUROC."""
    return [f"{percent(1 - row.refused)} ({number(row.auroc, 2)})" for row in map(setting.of, study.attacks)]
