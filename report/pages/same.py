"""results/same-*.json to docs/results/same.md and its figures: what the gate sees, whom it hits, what it costs.

    python -m report.pages.same

Every number on the page comes from the results files, but the paper's (SAME: Xie et al., AAAI 2024), which stand in
same_paper.py. Its sentences hold whatever the numbers are: those that say who is best, or what was missed, are made
from them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from report import atomic
from report.figures import gates
from report.format import number
from report.headline import UNDEFENDED, Cell, Line, cells, headline
from report.html import PICTURE
from report.pages import page
from report.pages.same_paper import ATTACKS, PAPER, PAPER_RATIOS, Paper, Ratio
from report.pages.thieves import share, who
from report.rows.gates import (
    DetectionRow,
    FalsePositiveRow,
    GateCostRow,
    GatePrecisionRow,
    ScoreCurveRow,
    WorkRow,
)
from report.rows.policies import PolicyRow
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("same.md.j2")
PREFIX = "same-"
DEFAULT = "same-observe"
# a thief's campaign, for what it would pay
CAMPAIGN = 10_000


@dataclass(frozen=True)
class Contest:
    """One thief's queries under every detector. kind: the attack in the registry. rows: gates first. known: detectors
    that were trained on the thief's own surrogate set."""

    attack: str
    kind: str
    budget: int
    seeds_left_out: bool
    rows: tuple[DetectionRow, ...]
    known: frozenset[str]
    default: DetectionRow | None
    paper: dict[str, Paper]

    @property
    def title(self) -> str:
        return f"{self.attack}{', without its seeds' if self.seeds_left_out else ''}"

    @property
    def best(self) -> float:
        """The highest AUROC."""
        return max(row.auroc for row in self.rows)

    @property
    def rival(self) -> DetectionRow | None:
        """The best baseline."""
        return max((row for row in self.rows if row.kind != "gate"), key=lambda row: row.auroc, default=None)

    @property
    def lost(self) -> bool:
        """Whether the default gate sees less than a baseline does."""
        return bool(self.default and self.rival and self.default.auroc < self.rival.auroc)

    @property
    def short_of(self) -> Paper | None:
        """The paper's own cell where the default gate stays below it."""
        theirs = self.paper.get("gate")
        return theirs if theirs and self.default and 100 * self.default.auroc < theirs.auroc else None


@dataclass(frozen=True)
class Price:
    """A policy's prices: of plain benign rows, what they were to be on average, and the rows by traffic."""

    policy: str
    wanted: float | None
    benign: WorkRow | None
    rows: tuple[WorkRow, ...]

    def times(self, row: WorkRow) -> float | None:
        """A traffic's mean over the plain benign one's."""
        return row.mean / self.benign.mean if self.benign and self.benign.mean else None

    def campaign_h(self, row: WorkRow) -> float:
        """Hours of the reference client for CAMPAIGN rows."""
        return CAMPAIGN * row.seconds(row.mean) / 3600


@dataclass(frozen=True)
class Experiment:
    """One results file, with the look-ups that the page needs. picture: of reconstructions, if there is one."""

    recipe: str
    report: Report
    picture: str | None = None

    @property
    def dataset(self) -> str:
        """Empty where nothing told it."""
        return str(self.report.run.settings.get("dataset", {}).get("name", ""))

    @property
    def costs_alone(self) -> bool:
        """Whether nothing but time was measured, as beside a network whose weights mean nothing."""
        told = self.report
        return bool(told.gate_costs) and not (told.detection or told.false_positives or told.policies or told.attacks)

    @property
    def command(self) -> str:
        """What makes the results file."""
        recipe = self.recipe.removesuffix("-paper")
        if self.costs_alone:
            return "make bench-gates"
        return f"make reproduce-same RECIPE={recipe}" + (" TIER=paper" if recipe != self.recipe else "")

    @property
    def gates(self) -> dict[str, dict[str, Any]]:
        """What was told of each gate that was measured in any way, by policy; the default first."""
        known = {
            name.removeprefix("gate."): told
            for name, told in self.report.run.settings.items()
            if name.startswith("gate.") and isinstance(told, dict)
        }
        return dict(sorted(known.items(), key=lambda each: (each[0] != DEFAULT, each[0])))

    @property
    def default(self) -> str | None:
        """The policy that the page speaks of: DEFAULT, or the first gate that was judged."""
        judged = [row.detector for row in self.report.detection if row.kind == "gate"]
        return DEFAULT if DEFAULT in judged else next(iter(judged), None)

    @cached_property
    def contests(self) -> list[Contest]:
        """In the order in which they were judged, of each thief by budget."""
        groups: dict[tuple[str, int, bool], list[DetectionRow]] = {}
        for row in self.report.detection:
            if not row.draws:
                groups.setdefault((row.attack, row.budget, row.seeds_left_out), []).append(row)
        return [self._contest(*key, rows) for key, rows in groups.items()]

    def _contest(self, attack: str, budget: int, left_out: bool, rows: Iterable[DetectionRow]) -> Contest:
        told = self.report.run.settings
        thief = told.get(f"detection.{attack}", {})
        kind = str(thief.get("attack", attack))
        mine = sorted(rows, key=lambda row: (row.detector != self.default, DetectionRow.KINDS.index(row.kind)))
        theirs = PAPER.get(self.dataset, {}).get(budget, {})  # which does not say whether seeds are left out
        return Contest(
            attack,
            kind,
            budget,
            left_out,
            tuple(mine),
            known=frozenset(row.detector for row in mine if _knows(told.get(f"baseline.{row.detector}"), thief)),
            default=next((row for row in mine if row.detector == self.default), None),
            paper={score: by_attack[kind] for score, by_attack in theirs.items() if kind in by_attack},
        )

    @property
    def ratios(self) -> dict[str, list[tuple[DetectionRow, Ratio | None]]]:
        """Table 4 by thief: ours, and the paper's at the same share."""
        theirs = PAPER_RATIOS.get(self.dataset, {})
        found: dict[str, list[tuple[DetectionRow, Ratio | None]]] = {}
        for row in self.report.detection:
            if row.draws:
                found.setdefault(row.attack, []).append((row, theirs.get(row.ratio)))
        return found

    @property
    def served(self) -> list[PolicyRow]:
        """What policies cost their users, the undefended first."""
        return sorted(self.report.policies, key=lambda row: row.policy != UNDEFENDED)

    @property
    def plain(self) -> list[FalsePositiveRow]:
        """Of each policy, what it flags of unshifted benign images."""
        return [row for row in self.report.false_positives if row.traffic.startswith("benign (")]

    @property
    def shifted(self) -> dict[str, dict[str, FalsePositiveRow]]:
        """By traffic, benign ones first, then policy."""
        found: dict[str, dict[str, FalsePositiveRow]] = {}
        for row in sorted(self.report.false_positives, key=lambda row: row.malicious):
            found.setdefault(row.traffic, {})[row.policy] = row
        return found

    @property
    def hit(self) -> list[FalsePositiveRow]:
        """Benign traffic that the default policy flags more of than its threshold was calibrated for, beyond chance."""
        mine = [row for row in self.report.false_positives if row.policy == self.default and not row.malicious]
        return sorted((row for row in mine if row.low > row.stated), key=lambda row: -row.flagged)

    @property
    def prices(self) -> list[Price]:
        found = []
        for policy in dict.fromkeys(row.policy for row in self.report.work):
            rows = tuple(row for row in self.report.work if row.policy == policy)
            work = self.gates.get(policy, {}).get("work") or {}
            benign = next((row for row in rows if row.traffic.startswith("benign (")), None)
            found.append(Price(policy, work.get("mean_benign"), benign, rows))
        return found

    @property
    def costs(self) -> list[GateCostRow]:
        """By batch, the smallest gate first."""
        return sorted(self.report.gate_costs, key=lambda row: (row.batch, row.gate_us))

    @property
    def precision(self) -> list[GatePrecisionRow]:
        formats = GatePrecisionRow.FORMATS
        return sorted(self.report.gate_precision, key=lambda row: (row.policy, row.batch, formats.index(row.format)))

    def change(self, row: GatePrecisionRow) -> dict[str, float]:
        """In AUROC against float32, by traffic."""
        base = next((each for each in self.report.gate_precision if _beside(each, row)), None)
        known = base.auroc if base else {}
        return {name: value - known[name] for name, value in row.auroc.items() if name in known}

    @property
    def headline(self) -> list[Line]:
        """Of the policies that were robbed."""
        return [line for line in headline(self.report) if line.best]

    @property
    def thefts(self) -> list[tuple[str, Cell, float]]:
        """(policy, its clones from one thief at the largest budget, expected hashes paid a query)."""
        found = []
        for policy in dict.fromkeys(line.policy for line in self.headline):
            rows = [row for row in self.report.attacks if row.policy == policy]
            largest = {(cell.attack, cell.labels): cell for cell in cells(rows)}
            for cell in largest.values():
                paid = max(row.pow_hashes for row in cell.chosen) / cell.queries
                found.append((policy, cell, paid))
        return sorted(found, key=lambda each: (each[1].attack, each[1].labels))

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What the thieves and gates were told."""
        return [
            (name, ", ".join(f"{key} {_plain(value)}" for key, value in table.items()))
            for name, table in sorted(self.report.run.settings.items())
            if isinstance(table, dict) and name.partition(".")[0] in ("detection", "baseline", "gate", "clone")
        ]

    @property
    def missing(self) -> list[str]:
        """What this page asks for and the results do not hold."""
        told = self.report
        kinds = {row.kind for row in told.detection}
        wanted = {
            "detection by a gate": "gate" in kinds,
            "the baseline outlier exposure": "outlier-exposure" in kinds,
            "the baseline of disagreeing members": "disagreement" in kinds,
            **{f"detection of {attack}": attack in {each.kind for each in self.contests} for attack in ATTACKS},
            "Table 4": bool(self.ratios),
            "false positives": bool(told.false_positives),
            "work": bool(told.work),
            "cost of the gate": bool(told.gate_costs),
            "other number formats": bool(told.gate_precision),
            "accuracy as served": bool(told.policies),
            "thefts": bool(told.attacks),
            "pictures of reconstructions": self.picture is not None,
        }
        return [name for name, known in wanted.items() if not known]

    @property
    def curves(self) -> list[ScoreCurveRow]:
        """Of the default gate and the baselines."""
        gates = {row.detector for row in self.report.detection if row.kind == "gate"}
        return [row for row in self.report.score_curves if row.detector not in gates - {self.default}]

    def aurocs(self) -> dict[str, dict[str, float]]:
        """By thief at its largest budget, seeds left out where they can be, then gate."""
        found: dict[str, dict[str, float]] = {}
        for contest in self.contests:  # later ones are of larger budgets, and without seeds
            found[contest.attack] = {row.detector: row.auroc for row in contest.rows if row.kind == "gate"}
        return found


def main() -> None:
    """Run the command line; missing or malformed results are a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m report.pages.same", description="same-*.json to a page")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of same-*.json (results)")
    parser.add_argument("--output", type=Path, default=Path("docs/results/same.md"), help="(docs/results/same.md)")
    options = parser.parse_args()
    try:
        experiments = load(options.results, pictures=options.output.parent)
    except ResultError as error:
        sys.exit(f"report.pages.same: {error}")
    plots = plot(experiments)
    for name, svg in plots.items():
        atomic.write_text(options.output.with_name(name), svg)
    atomic.write_text(options.output, render(experiments, plots))
    print(", ".join(str(options.output.with_name(name)) for name in (options.output.name, *plots)))


def load(folder: Path, *, pictures: Path) -> list[Experiment]:
    """The experiments of a folder, MNIST's first; pictures: where same-RECIPE-reconstructions.png may lie. Raises
    ResultError where there is none."""
    files = sorted(folder.glob(f"{PREFIX}*.json"), key=lambda file: (file.stem != f"{PREFIX}mnist", file.stem))
    if not files:
        raise ResultError(f"{folder}: no {PREFIX}*.json; make one with `make reproduce-same RECIPE=mnist`")
    found = []
    for file in files:
        picture = f"{file.stem}-{PICTURE}"
        shown = picture if (pictures / picture).is_file() else None
        found.append(Experiment(file.stem.removeprefix(PREFIX), read(file), shown))
    return found


def plot(experiments: Sequence[Experiment]) -> dict[str, str]:
    """The page's figures as SVG, by file name."""
    plots = {}
    for each in experiments:
        told, name = each.report, f"{PREFIX}{each.recipe}"
        if each.contests and any(row.malicious for row in each.curves):
            plots[f"{name}-rocs.svg"] = gates.rocs(each.curves)
        own = [row for row in each.curves if row.detector == each.default]
        if {row.malicious for row in own} == {False, True}:
            threshold = each.gates.get(str(each.default), {}).get("threshold")
            plots[f"{name}-scores.svg"] = gates.histograms(own, threshold=threshold)
        judged = {policy for values in each.aurocs().values() for policy in values}
        if judged & {row.policy for row in told.gate_costs}:
            plots[f"{name}-frontier.svg"] = gates.frontier(told.gate_costs, each.aurocs())
        if told.false_positives:
            plots[f"{name}-flagged.svg"] = gates.flagged(told.false_positives)
        if told.work:
            plots[f"{name}-work.svg"] = gates.work(told.work)
    return plots


def render(experiments: Sequence[Experiment], plots: Collection[str]) -> str:
    """The page as Markdown. plots: names of the figures there are."""
    return page.render(
        TEMPLATE,
        filters={"percents": percents, "who": who, "share": share, "interval": interval, "theirs": theirs},
        experiments=[each for each in experiments if not each.costs_alone],
        benches=[each for each in experiments if each.costs_alone],
        plots=plots,
        undefended=UNDEFENDED,
        campaign=CAMPAIGN,
        unseen=[name for name in PAPER if name not in {each.dataset for each in experiments}],
    )


def percents(fraction: float | None) -> str:
    """0.98765 -> "98.77", without a sign; a dash for None."""
    return "-" if fraction is None else number(100 * fraction, 2)


def interval(row: FalsePositiveRow | None) -> str:
    """A share and its interval, in percent; a dash for None."""
    return "-" if row is None else f"{percents(row.flagged)} ({percents(row.low)} to {percents(row.high)})"


def theirs(cell: Paper | Ratio | None) -> str:
    """The paper's numbers as it prints them; a dash for None."""
    return "-" if cell is None else " / ".join(f"{value:.2f}" for value in cell)


def _knows(baseline: dict[str, Any] | None, thief: dict[str, Any]) -> bool:
    """Whether a baseline's auxiliary images are those that a thief asks about."""
    auxiliary = (baseline or {}).get("auxiliary")
    return auxiliary is not None and auxiliary == thief.get("surrogate")


def _beside(base: GatePrecisionRow, row: GatePrecisionRow) -> bool:
    return (base.policy, base.batch, base.format) == (row.policy, row.batch, "float32")


def _plain(value: Any) -> str:
    return str(value).replace("|", "/")


if __name__ == "__main__":
    main()
