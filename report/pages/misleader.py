"""results/misleader-*.json to docs/results/misleader.md and its figures: what MISLEADER and its parts cost and stop.

    python -m report.pages.misleader

Every number on the page comes from the results files, but the constants of the released code (MISLEADER, 2025), which
stand here. The paper's own tables were not at hand. Sentences hold whatever the numbers are: those that say what is
better, or what was missed, are made from them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

from attacks.names import COPIES, LABELS
from report import atomic
from report.figures import heat_map, members
from report.format import number
from report.headline import UNDEFENDED, Cell, Line
from report.pages import page
from report.pages.thieves import Averaging, Study, share, tried, who
from report.rows.members import ROUTED_OVER_AVERAGED, ROUTED_OVER_DEAREST, EnsembleCostRow, MemberRow, ShiftRow
from report.rows.policies import PolicyRow
from report.rows.training import TrainingRow
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("misleader.md.j2")
PREFIX = "misleader-"
MISLEADER, DISTILLED, DIVERSE, RELEASED = "misleader", "distilled", "misleader-diverse", "misleader-released"
ROUTED = "-routed"
# as the page lists them
POLICIES = {
    UNDEFENDED: "the teacher",
    "label": "the teacher's labels alone",
    DISTILLED: "members distilled without thieves, averaged",
    DISTILLED + ROUTED: "the same, one member a query",
    MISLEADER: "members driven from their thieves, averaged",
    MISLEADER + ROUTED: "the same, one member a query",
    DIVERSE: "driven from their thieves and from each other, averaged",
    DIVERSE + ROUTED: "the same, one member a query",
    RELEASED: "trained as the released code trains, averaged",
}
OURS = tuple(POLICIES)[2:]
PREDICTORS = tuple(policy.replace("-", "_") for policy in OURS if not policy.endswith(ROUTED))
# (from, to): two policies that differ in one thing
TERM = ((DISTILLED, MISLEADER), (DISTILLED + ROUTED, MISLEADER + ROUTED))
ROUTING = tuple((policy, policy + ROUTED) for policy in (DISTILLED, MISLEADER, DIVERSE))
DIVERSITY = ((MISLEADER, DIVERSE), (MISLEADER + ROUTED, DIVERSE + ROUTED))
FAULTS = ((MISLEADER, RELEASED),)
WHOLE = tuple((UNDEFENDED, policy) for policy in (MISLEADER, MISLEADER + ROUTED, DIVERSE, DIVERSE + ROUTED))
PARTS = {
    "all of it": WHOLE,
    "the attacker term": TERM,
    "routing in place of the mean": ROUTING,
    "the diversity term": DIVERSITY,
    "the released code's faults": FAULTS,
}
# one figure's
DRAWN = (*TERM, (MISLEADER, MISLEADER + ROUTED), (MISLEADER, DIVERSE), *FAULTS)
# forms that the comparisons and the heat map show; the others have tables of their own
SHOWN = (None, "log-p")
# the released harness: DFME told probabilities in place of logits
HARNESSED, HARNESS = "dfme", "p-as-logits"
# what users may lose against the teacher, and on shifted images against plain distillation, in points
WITHIN, WITHIN_SHIFTED = 0.5, 1.0
# points that two clones may differ by for nothing: 10,000 test images alone are good for 0.7, one standard error
EVEN = 1.0
# there is something to take from a thief whose clone reaches this share of the policy's own accuracy
WORTH = 0.5
# test images of a data set, which no row of a policy tells
TEST_IMAGES = {"mnist": 10_000, "fashionmnist": 10_000, "cifar10": 10_000}
# lambda of the released scripts, by data set and member
RELEASED_LAMBDA = {
    "mnist": {"lenet5": 0.5, "lenet5-half": 0.5, "lenet5-fifth": 0.5},
    "cifar10": {"resnet18-8x": 0.001, "mobilenetv2": 0.05, "densenet121": 0.01},
}


@dataclass(frozen=True)
class Change:
    """One thief on two policies, for as many queries and with the same reading."""

    base: Cell
    other: Cell

    @property
    def key(self) -> tuple[str, str, int]:
        return self.base.attack, self.base.labels, self.base.budget

    @property
    def title(self) -> str:
        attack, labels, budget = self.key
        return f"{attack}, {labels}, {number(budget, 0)}"

    @property
    def gained(self) -> float:
        """By the thief, as a fraction; below 0 its clone got worse."""
        return self.other.accuracy - self.base.accuracy

    @property
    def points(self) -> float:
        return round(100 * self.gained, 6)

    @property
    def counted(self) -> bool:
        """Whether the thief gets anything to speak of from either."""
        return max(self.base.normalised or 0.0, self.other.normalised or 0.0) >= WORTH

    def __str__(self) -> str:
        return f"{self.title} ({100 * self.base.accuracy:.1f} → {100 * self.other.accuracy:.1f})"


@dataclass(frozen=True)
class Comparison:
    """Every thief that two policies both met, each at the largest budget that both have.

    accuracy, trained: what users gain from the second over the first, as fractions: on test images, and on those
    augmented as in training. None: not measured.
    """

    base: str
    other: str
    changes: tuple[Change, ...]
    accuracy: float | None
    trained: float | None

    @property
    def title(self) -> str:
        return f"{self.base} → {self.other}"

    @property
    def counted(self) -> list[Change]:
        return [change for change in self.changes if change.counted]

    @property
    def lower(self) -> list[Change]:
        """Where the thief gets more than EVEN points less."""
        return sorted((c for c in self.counted if c.points < -EVEN), key=lambda c: c.points)

    @property
    def higher(self) -> list[Change]:
        """Where the thief gets more than EVEN points more."""
        return sorted((c for c in self.counted if c.points > EVEN), key=lambda c: -c.points)

    @property
    def even(self) -> int:
        return len(self.counted) - len(self.lower) - len(self.higher)

    @property
    def mean(self) -> float | None:
        """Of the changes that count, as a fraction."""
        return mean(change.gained for change in self.counted) if self.counted else None

    def at(self, key: tuple[str, str, int]) -> Change | None:
        return next((change for change in self.changes if change.key == key), None)


@dataclass(frozen=True)
class Harness:
    """DFME on one policy: told log p, and told p for logits. undefended: the same of `undefended`, log p first."""

    policy: str
    right: Cell
    wrong: Cell
    undefended: tuple[Cell, Cell] | None

    @property
    def taken(self) -> float:
        """By the harness, as a fraction."""
        return self.right.accuracy - self.wrong.accuracy

    @property
    def credited(self) -> float | None:
        """To the policy, where the undefended classifier tells logits and the ensemble probabilities."""
        return self.undefended[0].accuracy - self.wrong.accuracy if self.undefended else None

    @property
    def earned(self) -> float | None:
        """By the policy, where both are read alike."""
        return self.undefended[0].accuracy - self.right.accuracy if self.undefended else None


@dataclass(frozen=True)
class Cost:
    """A policy's time beside its members', and beside the same members' mean, where that was measured with it."""

    row: EnsembleCostRow
    averaged: EnsembleCostRow | None

    @property
    def routed(self) -> bool:
        return bool(self.row.hash_ms_rounds)

    @property
    def dearest(self) -> str:
        """The architecture of the dearest member."""
        return self.row.architectures[list(self.row.members_ms_rounds).index(self.row.dearest)]

    @property
    def over_averaged(self) -> float | None:
        return self.row.over(self.averaged) if self.averaged else None

    @property
    def within_dearest(self) -> str:
        return _verdict(self.row.times, ROUTED_OVER_DEAREST)

    @property
    def within_averaged(self) -> str:
        return "-" if self.over_averaged is None else _verdict(self.over_averaged, ROUTED_OVER_AVERAGED)


@dataclass(frozen=True)
class Experiment:
    """One results file, with the look-ups that the page needs."""

    recipe: str
    report: Report

    @property
    def dataset(self) -> str:
        """Empty where no theft told it."""
        return str(self.report.run.settings.get("dataset", {}).get("name", ""))

    @property
    def teacher(self) -> str:
        """Its architecture; empty where nothing told it."""
        return str(self.report.run.settings.get("trained.victim", {}).get("architecture", ""))

    @property
    def architectures(self) -> list[str]:
        """Of the members."""
        costs = (name for row in self.report.ensemble_costs if len(row.architectures) > 1 for name in row.architectures)
        return list(dict.fromkeys([*(row.architecture for row in self.report.members), *costs]))

    @property
    def costs_alone(self) -> bool:
        """Whether nothing but time and memory was measured, as of networks whose weights mean nothing."""
        told = self.report
        return bool(told.ensemble_costs) and not (told.policies or told.attacks or told.members or told.shifts)

    @property
    def command(self) -> str:
        """What makes the results file."""
        if self.costs_alone:
            return "make bench-misleader"
        recipe = self.recipe.removesuffix("-paper")
        return f"make reproduce-misleader RECIPE={recipe}" + (" TIER=paper" if recipe != self.recipe else "")

    @cached_property
    def thefts(self) -> Study:
        """Every theft."""
        return Study(self.recipe, self.report)

    @cached_property
    def plain(self) -> Study:
        """Thefts in the forms of SHOWN."""
        rows = tuple(row for row in self.report.attacks if row.adaptive in SHOWN)
        return Study(self.recipe, dataclasses.replace(self.report, attacks=rows))

    def policy(self, name: str) -> PolicyRow | None:
        return next((row for row in self.report.policies if row.policy == name), None)

    @property
    def served(self) -> list[PolicyRow]:
        """What each policy costs its users, in the page's order."""
        return sorted(self.report.policies, key=lambda row: _place(row.policy))

    @property
    def test_images(self) -> int | None:
        """None where the data set's are not known without its files."""
        return TEST_IMAGES.get(self.dataset)

    @property
    def standard_error(self) -> float | None:
        """Of the teacher's accuracy, over test images."""
        served = self.policy(UNDEFENDED)
        if served is None or self.test_images is None:
            return None
        return math.sqrt(served.accuracy * (1 - served.accuracy) / self.test_images)

    @property
    def headline(self) -> list[Line]:
        """Of every policy that was robbed, by whatever thief, in the page's order."""
        return sorted(self.thefts.lines, key=lambda line: _place(line.policy))

    @property
    def without_data(self) -> dict[str, Line]:
        """The same against thieves that had no labelled image of the task, by policy; empty where others were not
        tried."""
        return {line.policy: line for line in sorted(self.thefts.without_data, key=lambda line: _place(line.policy))}

    def met(self, policy: str) -> int:
        """How many thieves robbed a policy, each reading for itself."""
        rows = (row for row in self.report.attacks if row.policy == policy)
        return len({(row.attack, row.adaptive, row.labels) for row in rows})

    def comparison(self, base: str, other: str) -> Comparison:
        """Thieves in the forms of SHOWN."""
        study, found = self.plain, []
        if {base, other} <= set(study.policies):
            for attack, form in study.thieves:
                for labels in LABELS:
                    known = {cell.budget: cell for cell in study.of(attack, form, policy=base, labels=labels)}
                    both = [c for c in study.of(attack, form, policy=other, labels=labels) if c.budget in known]
                    found += [Change(known[cell.budget], cell) for cell in both[-1:]]
        served = self.policy(base), self.policy(other)
        accuracy = served[1].accuracy - served[0].accuracy if served[0] and served[1] else None
        seen = self.shift(base, ShiftRow.TRAINED), self.shift(other, ShiftRow.TRAINED)
        trained = seen[1].accuracy - seen[0].accuracy if seen[0] and seen[1] else None
        return Comparison(base, other, tuple(found), accuracy, trained)

    def comparisons(self, pairs: Iterable[tuple[str, str]]) -> list[Comparison]:
        """Those of the pairs that met any thief in common."""
        found = (self.comparison(*pair) for pair in pairs)
        return [comparison for comparison in found if comparison.changes]

    @property
    def parts(self) -> Iterator[tuple[str, Comparison]]:
        """(what the two policies differ in, what that does)."""
        for name, pairs in PARTS.items():
            for comparison in self.comparisons(pairs):
                yield name, comparison

    @property
    def shifted(self) -> dict[str, dict[str, ShiftRow]]:
        """By shift, the unshifted images and the augmented ones first, then policy in the page's order."""
        first = (ShiftRow.NONE, ShiftRow.TRAINED)
        rows = sorted(self.report.shifts, key=lambda row: _place(row.policy))
        found: dict[str, dict[str, ShiftRow]] = {name: {} for name in first}
        for row in rows:
            found.setdefault(row.shift, {})[row.policy] = row
        return {name: by_policy for name, by_policy in found.items() if by_policy}

    @property
    def seen(self) -> list[str]:
        """Policies whose answers to shifted images are known, in the page's order."""
        return sorted({row.policy for row in self.report.shifts}, key=_place)

    def shift(self, policy: str, name: str) -> ShiftRow | None:
        return next((row for row in self.report.shifts if (row.policy, row.shift) == (policy, name)), None)

    def harmed(self, base: str, other: str) -> list[tuple[ShiftRow, ShiftRow]]:
        """Shifts on which `other` loses more than WITHIN_SHIFTED points to `base`, the worst first."""
        pairs = [(rows[base], rows[other]) for rows in self.shifted.values() if {base, other} <= set(rows)]
        worse = [pair for pair in pairs if round(100 * (pair[0].accuracy - pair[1].accuracy), 6) > WITHIN_SHIFTED]
        return sorted(worse, key=lambda pair: pair[1].accuracy - pair[0].accuracy)

    @property
    def members(self) -> list[MemberRow]:
        return sorted(self.report.members, key=lambda row: (_predictor(row.predictor), row.member))

    def released_lambda(self, row: MemberRow) -> float | None:
        """That of the released scripts for a member; None where there is none, or the member has no thief."""
        if row.predictor == DISTILLED:
            return None
        return RELEASED_LAMBDA.get(self.dataset, {}).get(row.architecture)

    @property
    def training(self) -> list[TrainingRow]:
        return sorted(self.report.training, key=lambda row: _predictor(row.predictor))

    @property
    def balance(self) -> list[tuple[str, str, list[float]]]:
        """(policy, traffic, share of its rows by member)."""
        counts: dict[tuple[str, str], dict[int, int]] = {}
        for row in sorted(self.report.routing, key=lambda row: _place(row.policy)):
            counts.setdefault((row.policy, row.traffic), {})[row.member] = row.rows
        return [
            (policy, traffic, [rows.get(member, 0) / max(1, sum(rows.values())) for member in range(1 + max(rows))])
            for (policy, traffic), rows in counts.items()
        ]

    @property
    def averaging(self) -> list[Averaging]:
        """Knockoff with COPIES copies of each image."""
        return sorted(self.thefts.averaging, key=lambda each: _place(each.policy))

    @property
    def harness(self) -> list[Harness]:
        """By budget, policies in the page's order."""
        both: dict[tuple[int, str], tuple[Cell, Cell]] = {}
        for policy in sorted(self.thefts.policies, key=_place):
            plain = {cell.budget: cell for cell in self.thefts.of(HARNESSED, policy=policy, labels="soft")}
            for cell in self.thefts.of(HARNESSED, HARNESS, policy=policy, labels="soft"):
                if cell.budget in plain:
                    both[cell.budget, policy] = plain[cell.budget], cell
        return [
            Harness(policy, *cells, both.get((budget, UNDEFENDED)))
            for (budget, policy), cells in sorted(both.items(), key=lambda each: each[0][0])
        ]

    @property
    def costs(self) -> list[Cost]:
        """By batch, policies in the page's order."""
        rows = sorted(self.report.ensemble_costs, key=lambda row: (row.batch, _place(row.policy)))
        known = {(row.batch, row.policy): row for row in rows}
        return [
            Cost(row, known.get((row.batch, row.policy.removesuffix(ROUTED))) if row.policy.endswith(ROUTED) else None)
            for row in rows
        ]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What the run was told, but for its lists of clones; of those, what they changed of an attack."""
        found = []
        for name, value in sorted(self.report.run.settings.items()):
            if name.startswith("evaluate."):
                if value.get("overrides"):
                    called = f" ({value['called']})" if value.get("called") else ""
                    found.append((f"{', '.join(value['attacks'])}{called}", _table(value["overrides"])))
            else:
                found.append((name, _table(value) if isinstance(value, dict) else _plain(value)))
        return found

    @property
    def missing(self) -> list[tuple[str, str]]:
        """(what, of what) was not measured."""
        report = self.report
        routed = [policy for policy in OURS if policy.endswith(ROUTED)]
        compared = (MISLEADER, MISLEADER + ROUTED)
        expected: list[tuple[str, Iterable[str], set[str]]] = [
            ("accuracy as served", POLICIES, {row.policy for row in report.policies}),
            ("clones", POLICIES, {row.policy for row in report.attacks}),
            ("shifted images", POLICIES, {row.policy for row in report.shifts}),
            ("which member answers what", routed, {row.policy for row in report.routing}),
            ("members", PREDICTORS, {row.predictor for row in report.members}),
            ("training", PREDICTORS, {row.predictor for row in report.training}),
            ("time and memory", compared, {row.policy for row in report.ensemble_costs}),
            ("the released harness", (UNDEFENDED, MISLEADER), {each.policy for each in self.harness}),
            ("averaging thief", (UNDEFENDED, *compared), {each.policy for each in self.averaging}),
        ]
        lacking = [(what, [name for name in names if name not in known]) for what, names, known in expected]
        lacking += [
            (f"{each.thief}, {each.labels} labels", sorted(each.policies, key=_place)) for each in self.plain.missing
        ]
        return [(what, ", ".join(names)) for what, names in lacking if names]

    def heat(self) -> dict[str, Any]:
        """What figures.heat_map draws."""
        return {**self.plain.heat(), "columns": sorted(self.plain.policies, key=_place)}

    def changed(self) -> dict[str, Any]:
        """What member_figures.changes draws."""
        found = self.comparisons(DRAWN)
        return {
            "comparisons": {
                each.title: {change.title: (change.gained, change.counted) for change in each.changes} for each in found
            },
            "thieves": list(dict.fromkeys(change.title for each in found for change in each.changes)),
            "even": EVEN,
        }


def main() -> None:
    """Run the command line; missing or malformed results are a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m report.pages.misleader", description="misleader-*.json to a page")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of misleader-*.json (results)")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/results/misleader.md"), help="(docs/results/misleader.md)"
    )
    options = parser.parse_args()
    try:
        experiments = load(options.results)
    except ResultError as error:
        sys.exit(f"report.pages.misleader: {error}")
    plots = plot(experiments)
    for name, svg in plots.items():
        atomic.write_text(options.output.with_name(name), svg)
    atomic.write_text(options.output, render(experiments))
    print(", ".join(str(options.output.with_name(name)) for name in (options.output.name, *plots)))


def load(folder: Path) -> list[Experiment]:
    """The experiments of a folder, MNIST's first. Raises ResultError where there is none."""
    files = sorted(
        folder.glob(f"{PREFIX}*.json"), key=lambda file: (not file.stem.startswith(f"{PREFIX}mnist"), file.stem)
    )
    if not files:
        raise ResultError(f"{folder}: no {PREFIX}*.json; make one with `make reproduce-misleader RECIPE=mnist`")
    return [Experiment(file.stem.removeprefix(PREFIX), read(file)) for file in files]


def plot(experiments: Sequence[Experiment]) -> dict[str, str]:
    """The page's figures as SVG, by file name."""
    plots = {}
    for each in experiments:
        name = f"{PREFIX}{each.recipe}"
        if each.report.shifts:
            rows = [row for by_policy in each.shifted.values() for row in by_policy.values()]
            plots[f"{name}-shifts.svg"] = members.shifts(rows)
        if each.plain.thieves:
            plots[f"{name}-heat-map.svg"] = heat_map.heat_map(**each.heat())
        if each.comparisons(DRAWN):
            plots[f"{name}-changes.svg"] = members.changes(**each.changed())
    return plots


def render(experiments: Sequence[Experiment]) -> str:
    """The page as Markdown."""
    text = page.render(
        TEMPLATE,
        filters={
            "tried": tried,
            "who": who,
            "share": share,
            "percents": percents,
            "signed": signed,
            "slashed": slashed,
            "median": median,
        },
        experiments=[each for each in experiments if not each.costs_alone],
        benches=[each for each in experiments if each.costs_alone],
        lines=lines,
        policies=POLICIES,
        undefended=UNDEFENDED,
        misleader=MISLEADER,
        distilled=DISTILLED,
        ours=OURS,
        term=TERM,
        routing=ROUTING,
        diversity=DIVERSITY,
        faults=FAULTS,
        whole=WHOLE,
        within=WITHIN,
        within_shifted=WITHIN_SHIFTED,
        even=EVEN,
        worth=WORTH,
        copies=COPIES,
        trained=ShiftRow.TRAINED,
        over_dearest=ROUTED_OVER_DEAREST,
        over_averaged=ROUTED_OVER_AVERAGED,
        drawn=DRAWN,
        unseen=[name for name in RELEASED_LAMBDA if name not in {each.dataset for each in experiments}],
    )
    # where a condition of the template leaves nothing between two blank lines
    return re.sub(r"\n{3,}", "\n\n", text)


def lines(comparisons: Sequence[Comparison]) -> list[tuple[tuple[str, str, int], list[Change | None]]]:
    """(thief, reading and budget; what each comparison has there), for a table."""
    keys = dict.fromkeys(change.key for comparison in comparisons for change in comparison.changes)
    return [(key, [comparison.at(key) for comparison in comparisons]) for key in keys]


def percents(fraction: float | None) -> str:
    """0.98765 -> "98.77", without a sign; a dash for None."""
    return "-" if fraction is None else number(100 * fraction, 2)


def signed(fraction: float | None) -> str:
    """-0.0013 -> "-0.13" points; a dash for None."""
    return "-" if fraction is None else f"{100 * fraction:+.2f}"


def slashed(values: Any, digits: int | None = None) -> str:
    """What a step of a search tells of each member, in order; digits: of fractions, in percent; a dash for nothing."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        return " / ".join(slashed(value, digits) for value in values) or "-"
    if isinstance(values, bool):
        return "yes" if values else "**no**"
    if values is None:
        return "-"
    return f"{values:g}" if digits is None else number(100 * values, digits)


def _verdict(value: float, most: float) -> str:
    return "yes" if round(value, 6) <= most else "**no**"


def _place(policy: str) -> tuple[int, str]:
    names = list(POLICIES)
    return (names.index(policy) if policy in names else len(names), policy)


def _predictor(name: str) -> tuple[int, str]:
    """The victim first, then as the policies."""
    names = ("victim", *PREDICTORS)
    return (names.index(name) if name in names else len(names), name)


def _table(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_plain(value)}" for key, value in values.items())


def _plain(value: Any) -> str:
    return json.dumps(value).replace("|", "/")


if __name__ == "__main__":
    main()
