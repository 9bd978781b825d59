"""results/thieves-*.json to docs/results/thieves.md and its figures: every policy against every thief.

    python -m report.pages.thieves

Every number on the page comes from the results files, but the literature's, which stand here with their sources. Its
sentences hold whatever the numbers are: those that explain a missed target are printed only where it is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from attacks.names import ATTACKS, COPIES, FORMS, GATE_AWARE, LABELS, in_form, without_copies
from report import atomic
from report.figures import clones, heat_map
from report.format import number, percent, spread
from report.headline import UNDEFENDED, Cell, Line, cells, headline
from report.pages import gate_aware, page, unmixing
from report.pages.edm import PAPER
from report.rows.attack_speeds import AttackSpeedRow
from report.rows.policies import PolicyRow
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("thieves.md.j2")
# how the page lists attacks; others follow by name
ORDER = ("in-distribution", "knockoff", "knockoff-adaptive", "jbda", "jbda-tr", "dfme", "maze", "dfms-hl")
# forms that make sense of one reading alone
READS = {"log-p": ("soft",)}
# points below the literature that still count as met
TOLERANCE = 3.0
# queries a second that DFME was to reach in process on two cores
FAST = 1_500


@dataclass(frozen=True)
class Target:
    """What the literature reports of a thief on an undefended MNIST classifier.

    accuracy: in percent, the lowest of a range. told: as the page prints it. why: printed where it is missed.
    """

    attack: str
    labels: str
    budget: int
    accuracy: float
    told: str
    source: str
    why: str = ""


TARGETS = (
    Target("in-distribution", "soft", 1_000, 94, "94", "Dziedzic et al. 2022, released logs: 94.2 after 1,024"),
    Target("in-distribution", "soft", 10_000, 98, "98", "the same: 98.5 after 10,240"),
    Target("knockoff", "soft", 50_000, 90, "90", "EDM, Table 3: 90.18"),
    Target("knockoff", "hard", 50_000, 61, "61", "EDM, Table 3: 61.20"),
    Target("jbda", "soft", 50_000, 88, "88", "EDM, Table 3: 88.48"),
    Target("dfme", "soft", 300_000, 84, "84 to 87", "seen once with pixels in [0, 1]"),
)


@dataclass(frozen=True)
class Verdict:
    """A target beside what was seen. cell: None where it was not measured."""

    target: Target
    cell: Cell | None

    @property
    def least(self) -> float:
        """What counts as met, in percent."""
        return self.target.accuracy - TOLERANCE

    @property
    def met(self) -> bool | None:
        """Whether the clone is as good as the literature's, or better; None: not measured, or with fewer queries short
        of it, which settles nothing."""
        if self.cell is None:
            return None
        if round(100 * self.cell.accuracy, 6) >= self.least:
            return True
        return None if self.cell.budget < self.target.budget else False

    def __str__(self) -> str:
        if self.cell is None:
            return "not measured"
        if self.met is None:
            return "open: fewer queries than the literature's"
        if not self.met:
            return "**no**"
        above = 100 * self.cell.accuracy - self.target.accuracy
        return "yes, stronger than the literature" if round(above, 6) > TOLERANCE else "yes"


@dataclass(frozen=True)
class Averaging:
    """One policy and reading: the averaging thief (COPIES copies an image) beside the plain one.

    equal_images: plain, each image once. equal_charge: plain, for as many queries as the averaging one paid.
    """

    policy: str
    labels: str
    averaged: Cell
    equal_images: Cell | None
    equal_charge: Cell | None

    @property
    def images(self) -> int:
        return self.averaged.budget // COPIES

    @property
    def gain(self) -> float | None:
        """Over the plain thief with as many images."""
        return self.averaged.accuracy - self.equal_images.accuracy if self.equal_images else None

    @property
    def gain_at_equal_charge(self) -> float | None:
        return self.averaged.accuracy - self.equal_charge.accuracy if self.equal_charge else None


@dataclass(frozen=True)
class Missing:
    """Policies that a thief was not tried on, for one reading."""

    thief: str
    labels: str
    policies: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """One results file, with the look-ups that the page needs."""

    recipe: str
    report: Report

    @property
    def dataset(self) -> str:
        return str(self.report.run.settings["dataset"]["name"])

    @property
    def tier(self) -> str:
        return "paper" if self.recipe.endswith("-paper") else "cpu"

    @property
    def command(self) -> str:
        """What makes the results file."""
        recipe = self.recipe.removesuffix("-paper")
        return f"make thieves RECIPE={recipe}" + (" TIER=paper" if self.tier == "paper" else "")

    @property
    def chance(self) -> float | None:
        classes = self.report.run.settings.get("classes")
        return 1 / classes if classes else None

    @property
    def victim(self) -> float | None:
        """Accuracy of the undefended policy as served."""
        served = self.policy(UNDEFENDED)
        return served.accuracy if served else None

    @property
    def seeds(self) -> list[int]:
        """Of the clones."""
        return sorted({row.seed for row in self.report.attacks})

    @property
    def has_gaps(self) -> bool:
        """Whether any policy can be held against `undefended` with labels only."""
        return any(line.duels for line in self.lines)

    @property
    def has_plain(self) -> bool:
        """Whether any attack was tried without an adaptive form."""
        return any(form is None for _, form in self.thieves)

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Each attack's own parameters, as the run used them."""
        tables = self.report.run.settings.items()
        return [
            (name.removeprefix("attacks."), ", ".join(f"{key} {_plain(value)}" for key, value in table.items()))
            for name, table in sorted(tables)
            if name.startswith("attacks.") and isinstance(table, dict)
        ]

    @property
    def exceptions(self) -> list[tuple[str, str]]:
        """Attacks whose clones were not those of [clone], and what was different but for the recipes, which stand
        beside every clone."""
        found = []
        for name, table in self.report.run.settings.items():
            changes = table["clone"].items() if name.startswith("evaluate.") else ()
            told = ", ".join(f"{key} {_plain(value)}" for key, value in changes if key != "recipes")
            if told:
                form = f" ({table['called']})" if table["called"] else ""
                found.append((", ".join(table["attacks"]) + form, told))
        return list(dict.fromkeys(found))

    def policy(self, name: str) -> PolicyRow | None:
        return next((row for row in self.report.policies if row.policy == name), None)

    @cached_property
    def lines(self) -> list[Line]:
        """The headline, for policies that were robbed."""
        robbed = {row.policy for row in self.report.attacks}
        return [line for line in headline(self.report) if line.policy in robbed]

    @cached_property
    def without_data(self) -> list[Line]:
        """The headline against thieves that had no labelled image of the task, where others were tried as well."""
        guess = (self.chance or 0.0) + 1e-9
        bare = tuple(row for row in self.report.attacks if (row.no_query_accuracy or 0.0) <= guess)
        if len(bare) in (0, len(self.report.attacks)):
            return []
        robbed = {row.policy for row in bare}
        return [line for line in headline(dataclasses.replace(self.report, attacks=bare)) if line.policy in robbed]

    @property
    def policies(self) -> list[str]:
        return [line.policy for line in self.lines]

    @cached_property
    def stolen(self) -> dict[str, list[Cell]]:
        """Every cell, by policy."""
        rows = self.report.attacks
        return {policy: cells(row for row in rows if row.policy == policy) for policy in self.policies}

    @cached_property
    def thieves(self) -> list[tuple[str, str | None]]:
        """(attack, form) of every thief, the plain form of an attack first."""
        found = {(row.attack, row.adaptive) for row in self.report.attacks}
        return sorted(found, key=lambda thief: (_place(thief[0]), thief[1] or ""))

    @property
    def attacks(self) -> list[str]:
        return list(dict.fromkeys(attack for attack, _ in self.thieves))

    def of(self, attack: str, form: str | None = None, *, policy: str, labels: str) -> list[Cell]:
        """The cells of one thief, policy and reading, budgets ascending."""
        name = in_form(attack, form)
        return [cell for cell in self.stolen[policy] if (cell.attack, cell.labels) == (name, labels)]

    def largest(self, attack: str, form: str | None) -> int:
        """The largest budget of a thief on any policy."""
        return max(row.budget for row in self.report.attacks if (row.attack, row.adaptive) == (attack, form))

    def applies(self, policy: str, attack: str, form: str | None, labels: str) -> bool:
        """Whether there is anything to measure: a policy may tell no probabilities, a thief may read none."""
        served = self.policy(policy)
        told = labels == "hard" or served is None or served.l1 is not None
        reads = labels in ATTACKS.get(attack, LABELS)
        return told and reads and labels in READS.get(form or "", LABELS)

    def table(self, attack: str, *, final: bool) -> list[tuple[str, Cell]]:
        """(policy, cell) of the plain attack: `final` each at its largest budget, or those at smaller ones."""
        found = []
        for policy in self.policies:
            for labels in LABELS:
                line = self.of(attack, policy=policy, labels=labels)
                found += [(policy, cell) for cell in (line[-1:] if final else line[:-1])]
        return found

    @property
    def forms(self) -> list[tuple[str, str, str, int]]:
        """(attack, form, labels, budget) of everything adaptive that was measured."""
        found = {(r.attack, r.adaptive, r.labels, r.budget) for r in self.report.attacks if r.adaptive is not None}
        return sorted(found, key=lambda each: (_place(each[0]), each[1], each[2] != "soft", each[3]))

    def pair(self, attack: str, form: str, policy: str, labels: str, budget: int) -> tuple[Cell | None, Cell | None]:
        """The plain attack and the adaptive form for as many charged queries."""

        def at(name: str | None) -> Cell | None:
            line = self.of(attack, name, policy=policy, labels=labels)
            return next((cell for cell in line if cell.budget == budget), None)

        return at(None), at(form)

    @property
    def adapted(self) -> list[tuple[str, Cell]]:
        """(policy, cell) of everything adaptive."""
        return [
            (policy, cell)
            for attack, form, labels, budget in self.forms
            for policy in self.policies
            for cell in self.pair(attack, form, policy, labels, budget)[1:]
            if cell is not None
        ]

    @property
    def averaging(self) -> Iterator[Averaging]:
        """Knockoff with COPIES copies, for each policy, reading and budget."""
        for attack, form, labels, budget in self.forms:
            if (attack, form) == ("knockoff", "averaging"):
                for policy in self.policies:
                    equal_charge, averaged = self.pair(attack, form, policy, labels, budget)
                    plain = self.of(attack, policy=policy, labels=labels)
                    images = next((cell for cell in plain if cell.budget * COPIES == budget), None)
                    if averaged:
                        yield Averaging(policy, labels, averaged, images, equal_charge)

    @property
    def paper_averaging(self) -> str | None:
        """EDM's Table 5 for this data set: EDM's clone, plain and averaged."""
        paper = PAPER.get(self.dataset)
        return f"{paper.soft[1]} → {paper.averaging}" if paper else None

    @property
    def verdicts(self) -> list[Verdict]:
        """The literature's figures; at the largest budget up to theirs. Known for MNIST alone."""
        if self.dataset != "mnist" or UNDEFENDED not in self.policies:
            return []
        found = []
        for target in TARGETS:
            line = self.of(target.attack, policy=UNDEFENDED, labels=target.labels)
            within = [cell for cell in line if cell.budget <= target.budget]
            found.append(Verdict(target, within[-1] if within else None))
        return found

    @property
    def missing(self) -> list[Missing]:
        """Squares of the heat map that could be measured and were not."""
        found = []
        for attack, form in self.thieves:
            for labels in LABELS:
                without = tuple(
                    policy
                    for policy in self.policies
                    if self.applies(policy, attack, form, labels)
                    and not self.of(attack, form, policy=policy, labels=labels)
                )
                if without:
                    found.append(Missing(in_form(attack, form), labels, without))
        return found

    @property
    def not_run(self) -> list[str]:
        """Attacks and forms of the registry that no policy met, a form with whatever number of copies; but those
        made against gates, which are for pages about gates."""
        run = {attack for attack, _ in self.thieves} | {without_copies(form or "") for _, form in self.thieves}
        return [name for name in (*ATTACKS, *FORMS) if name not in {*run, *GATE_AWARE}]

    def heat(self) -> dict[str, Any]:
        """What figures.heat_map draws: a square for each thief, policy and reading."""
        panels: dict[str, dict[tuple[str, str], tuple[float, str]]] = {}
        rows, void = [], set()
        for attack, form in self.thieves:
            largest = self.largest(attack, form)
            row = f"{in_form(attack, form)}, {short(largest)}"
            rows.append(row)
            for labels in LABELS:
                panel = panels.setdefault(f"{labels} labels", {})
                for policy in self.policies:
                    line = self.of(attack, form, policy=policy, labels=labels)
                    if line:
                        less = "" if line[-1].budget == largest else f"at {short(line[-1].budget)}"
                        panel[row, policy] = (line[-1].accuracy, less)
                    elif not self.applies(policy, attack, form, labels):
                        void.add((f"{labels} labels", row, policy))
        return {"panels": panels, "rows": rows, "columns": self.policies, "void": void}

    def growth(self) -> dict[str, Any]:
        """What figures.growth draws: the plain attacks."""
        plain = {
            attack: {policy: [c for c in self.stolen[policy] if c.attack == attack] for policy in self.policies}
            for attack in self.attacks
        }
        before = {
            attack: [cell.no_query for found in by_policy.values() for cell in found if cell.no_query is not None]
            for attack, by_policy in plain.items()
        }
        return {
            "attacks": {attack: by_policy for attack, by_policy in plain.items() if any(by_policy.values())},
            "chance": self.chance,
            "victim": self.victim,
            "no_query": {attack: max(found) for attack, found in before.items() if found},
            "void": {
                (attack, labels)
                for attack in plain
                for labels in LABELS
                if not any(self.applies(policy, attack, None, labels) for policy in self.policies)
            },
        }


def main() -> None:
    """Run the command line; missing or malformed results are a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m report.pages.thieves", description="thieves-*.json to a page")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of thieves-*.json (results)")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/results/thieves.md"), help="(docs/results/thieves.md)"
    )
    options = parser.parse_args()
    try:
        studies, fast, edm, gate = load(options.results), speeds(options.results), *informed(options.results)
    except ResultError as error:
        sys.exit(f"report.pages.thieves: {error}")
    plots = plot(studies)
    for name, svg in plots.items():
        atomic.write_text(options.output.with_name(name), svg)
    atomic.write_text(options.output, render(studies, fast, edm=edm, gate=gate))
    print(", ".join(str(options.output.with_name(name)) for name in (options.output.name, *plots)))


def load(folder: Path) -> list[Study]:
    """The studies of a folder, MNIST's `cpu` tier first. Raises ResultError where there is none."""
    files = sorted(folder.glob("thieves-*.json"), key=lambda file: (file.stem != "thieves-mnist", file.stem))
    if not files:
        raise ResultError(f"{folder}: no thieves-*.json; make one with `make thieves RECIPE=mnist`")
    studies = [Study(file.stem.removeprefix("thieves-"), read(file)) for file in files]
    for study, file in zip(studies, files, strict=True):
        if not study.report.attacks:
            raise ResultError(f"{file}: no attacks; make some with `{study.command}`")
    return studies


def plot(studies: Sequence[Study]) -> dict[str, str]:
    """The page's figures as SVG, by file name."""
    plots = {}
    for study in studies:
        if study.has_gaps:
            plots[f"thieves-{study.recipe}-gaps.svg"] = clones.gaps(study.lines)
        plots[f"thieves-{study.recipe}-heat-map.svg"] = heat_map.heat_map(**study.heat())
        if study.has_plain:
            plots[f"thieves-{study.recipe}-growth.svg"] = clones.growth(**study.growth())
    return plots


def speeds(folder: Path) -> tuple[AttackSpeedRow, ...]:
    """What bench-attacks.json says, if it is there. Raises ResultError."""
    file = folder / "bench-attacks.json"
    return read(file).attack_speeds if file.exists() else ()


def informed(folder: Path) -> tuple[unmixing.Study | None, gate_aware.Study | None]:
    """What thieves got who have read the papers: of EDM, and behind a gate, where measured. Raises ResultError."""
    edm = unmixing.found(folder) if any(folder.glob("unmixing-*.json")) else [None]
    gate = gate_aware.found(folder) if any(folder.glob("gate-aware-*.json")) else [None]
    return edm[0], gate[0]


def render(
    studies: Sequence[Study],
    speeds: Sequence[AttackSpeedRow] = (),
    *,
    edm: unmixing.Study | None = None,
    gate: gate_aware.Study | None = None,
) -> str:
    """The page as Markdown. edm, gate: what it opens with (informed)."""
    return page.render(
        TEMPLATE,
        filters={"tried": tried, "who": who, "share": share},
        studies=studies,
        edm=edm,
        gate=gate,
        undefended=UNDEFENDED,
        tolerance=TOLERANCE,
        copies=COPIES,
        speeds=speeds,
        fast=FAST,
    )


def short(budget: int) -> str:
    """10000 -> "10k", for a figure's narrow columns; 600 stays "600"."""
    return f"{budget // 1000}k" if budget % 1000 == 0 else str(budget)


def tried(cell: Cell) -> str:
    """Every recipe, its held-out agreement in brackets: the thief's choice in bold, then losers and their clones."""
    chosen, *others = cell.tried
    losers = [
        f"{each.recipe} {100 * each.accuracy:.1f}{f' ± {100 * each.spread:.1f}' if len(each.accuracies) > 1 else ''} "
        f"({percent(each.held_out)})"
        for each in others
    ]
    return ", ".join([f"**{chosen.recipe}** ({percent(chosen.held_out)})", *losers])


def who(cell: Cell | None) -> str:
    """The thief behind a cell: attack, reading, budget, recipe and number of clones; a dash for None."""
    if cell is None:
        return "-"
    return f"{cell.attack}, {cell.labels}, {number(cell.budget, 0)}, {cell.clone_recipe}, n = {len(cell.accuracies)}"


def share(cell: Cell | None) -> str:
    """Mean, spread and number of clones, for a cell that stands beside others; a dash for None."""
    return "-" if cell is None else f"{spread(cell)} (n = {len(cell.accuracies)})"


def _plain(value: Any) -> str:
    return json.dumps(value).replace("|", "/")


def _place(attack: str) -> tuple[int, str]:
    return (ORDER.index(attack) if attack in ORDER else len(ORDER), attack)


if __name__ == "__main__":
    main()
