"""One results file with the look-ups that pages of clones share: attackers, policies, and what each got of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from attacks.names import ATTACKS, LABELS, in_form
from report.analysis.finding import Finding
from report.format import number, percent, spread
from report.headline import UNDEFENDED, Cell, Line, cells, headline, who
from report.rows.policies import PolicyRow
from report.schema import Report

# how pages list attacks; others follow by name
ORDER = ("in-distribution", "knockoff", "knockoff-adaptive", "jbda", "jbda-tr", "dfme", "maze", "dfms-hl")
# forms that make sense of one reading alone
READS = {"log-p": ("soft",)}
WORTH = 0.5
# forms that policies are compared under
PLAIN = (None, "log-p")


@dataclass(frozen=True)
class Pair:
    """One attacker on two policies, with the same budget and reading."""

    base: Cell
    other: Cell

    @property
    def points(self) -> float:
        """Gained by the attacker from the one to the other; below 0 its clone got worse."""
        return round(100 * (self.other.accuracy - self.base.accuracy), 6)

    @property
    def counts(self) -> bool:
        """Whether the attacker gets anything to speak of from either: WORTH of the policy's own accuracy."""
        return max(self.base.normalised or 0.0, self.other.normalised or 0.0) >= WORTH

    def __str__(self) -> str:
        return f"{who(self.base)} ({spread(self.base)} → {spread(self.other)})"


@dataclass(frozen=True)
class Study:
    """One results file."""

    recipe: str
    report: Report

    @property
    def dataset(self) -> str:
        """Empty where the file does not say."""
        return str(self.report.run.settings.get("dataset", {}).get("name", ""))

    @property
    def tier(self) -> str:
        return "paper" if self.recipe.endswith("-paper") else "cpu"

    @property
    def chance(self) -> float:
        return 1 / float(self.report.run.settings.get("classes", "inf"))

    @property
    def seeds(self) -> list[int]:
        """Of the clones."""
        return sorted({row.seed for row in self.report.attacks})

    @property
    def costs_alone(self) -> bool:
        """Whether nothing but time and memory was measured, as of networks whose weights mean nothing."""
        return not (self.report.policies or self.report.attacks or self.report.detection)

    @property
    def missing(self) -> list[str]:
        """What its page asks for and the file does not hold."""
        return []

    def policy(self, name: str) -> PolicyRow | None:
        return next((row for row in self.report.policies if row.policy == name), None)

    @property
    def served(self) -> list[PolicyRow]:
        """What each policy costs its users, the most first; the undefended one ahead."""
        return sorted(self.report.policies, key=lambda row: (row.policy != UNDEFENDED, -row.accuracy_drop))

    @cached_property
    def lines(self) -> list[Line]:
        """The headline of the policies that were attacked, those first that add least to hiding probabilities."""
        return _worst_first(self.report)

    @cached_property
    def without_data(self) -> dict[str, Line]:
        """By policy, the same against attackers that had no labelled image of the task; empty where none had any."""
        bare = tuple(row for row in self.report.attacks if (row.no_query_accuracy or 0.0) <= self.chance + 1e-9)
        if len(bare) in (0, len(self.report.attacks)):
            return {}
        return {line.policy: line for line in _worst_first(dataclasses.replace(self.report, attacks=bare))}

    @property
    def policies(self) -> list[str]:
        """Those that were attacked, the undefended one first, the others by name."""
        return sorted((line.policy for line in self.lines), key=lambda name: (name != UNDEFENDED, name))

    @cached_property
    def clones(self) -> dict[str, list[Cell]]:
        """Every cell, by policy."""
        rows = self.report.attacks
        return {policy: cells(row for row in rows if row.policy == policy) for policy in self.policies}

    @cached_property
    def attackers(self) -> list[tuple[str, str | None]]:
        """(attack, form), the plain form of an attack first."""
        found = {(row.attack, row.adaptive) for row in self.report.attacks}
        return sorted(found, key=lambda each: (_place(each[0]), each[1] or ""))

    def of(self, attack: str, form: str | None = None, *, policy: str, labels: str) -> list[Cell]:
        """The cells of one attacker, policy and reading, budgets ascending."""
        name = in_form(attack, form)
        return [cell for cell in self.clones.get(policy, ()) if (cell.attack, cell.labels) == (name, labels)]

    def largest(self, policy: str, labels: str, form: str | None = None) -> Cell | None:
        """Knockoff's clone at its largest budget."""
        line = self.of("knockoff", form, policy=policy, labels=labels)
        return line[-1] if line else None

    def pairs(self, base: str, other: str) -> list[Pair]:
        """Every attacker in the forms of PLAIN measured on both policies, each at the largest budget that both have;
        the one that gains most first."""
        found = []
        for attack, form in self.attackers:
            for labels in LABELS if form in PLAIN else ():
                known = {cell.budget: cell for cell in self.of(attack, form, policy=base, labels=labels)}
                both = [c for c in self.of(attack, form, policy=other, labels=labels) if c.budget in known]
                found += [Pair(known[cell.budget], cell) for cell in both[-1:]]
        return sorted(found, key=lambda pair: -pair.points)

    def applies(self, policy: str, attack: str, form: str | None, labels: str) -> bool:
        """Whether there is anything to measure: a policy may return no probabilities, an attacker may read none."""
        served = self.policy(policy)
        returned = labels == "hard" or served is None or served.l1 is not None
        reads = labels in ATTACKS.get(attack, LABELS)
        return returned and reads and labels in READS.get(form or "", LABELS)

    @cached_property
    def squares(self) -> dict[tuple[str, str | None, str], dict[str, Cell | None]]:
        """By attacker and reading, then policy, the clone at the largest budget. None: not measured; a policy is
        missing where there is nothing to measure."""
        found: dict[tuple[str, str | None, str], dict[str, Cell | None]] = {}
        for attack, form in self.attackers:
            for labels in LABELS:
                line = {
                    policy: met[-1] if (met := self.of(attack, form, policy=policy, labels=labels)) else None
                    for policy in self.policies
                    if self.applies(policy, attack, form, labels)
                }
                if any(line.values()):
                    found[attack, form, labels] = line
        return found

    @property
    def matrix(self) -> list[tuple[str, str, int, list[str]]]:
        """(attacker, reading, largest budget, a text a policy), the best clone of a defended policy first."""
        found = []
        for (attack, form, labels), line in self.squares.items():
            most = max(cell.budget for cell in line.values() if cell)
            best = max((cell.accuracy for policy, cell in line.items() if cell and policy != UNDEFENDED), default=0.0)
            texts = [_square(line[policy], most) if policy in line else "n/a" for policy in self.policies]
            found.append((best, (in_form(attack, form), labels, most, texts)))
        return [row for _, row in sorted(found, key=lambda each: -each[0])]

    def heat(self, name: str = "", *, policies: Sequence[str] | None = None) -> dict[str, Any]:
        """What figures.heat_map draws: a square for each attacker, policy and reading. name: goes before each panel.
        policies: these alone, and then the forms of PLAIN."""
        panels: dict[str, dict[tuple[str, str], tuple[float, str]]] = {
            f"{name}{labels} labels": {} for labels in LABELS
        }
        rows, void = [], set()
        for attack, form in self.attackers:
            if policies and form not in PLAIN:
                continue
            known = [self.squares.get((attack, form, labels), {}) for labels in LABELS]
            most = max(cell.budget for line in known for cell in line.values() if cell)
            row = f"{in_form(attack, form)}, {short(most)}"
            rows.append(row)
            for panel, line in zip(panels, known, strict=True):
                for policy in policies or self.policies:
                    cell = line.get(policy)
                    if cell:
                        less = "" if cell.budget == most else f"at {short(cell.budget)}"
                        panels[panel][row, policy] = (cell.accuracy, less)
                    elif policy not in line:
                        void.add((panel, row, policy))
        return {"panels": panels, "rows": rows, "columns": policies or self.policies, "void": void}

    def adds(self, policy: str) -> Finding:
        """What a policy adds to hiding probabilities."""
        line, bare = next((each for each in self.lines if each.policy == policy), None), self.without_data.get(policy)
        if line is None or line.strongest is None or line.gap_vs_top1 is None:
            return Finding(None, f"{self.recipe}: no comparison of `{policy}` with hiding probabilities.")
        gap = round(100 * line.gap_vs_top1, 1)
        much = f"{'at most ' if not line.strongest.complete else ''}{gap} points" if gap > 0 else "nothing"
        text = (
            f"{self.recipe}: `{policy}` adds {much} to hiding probabilities: its best clone is {spread(line.best)} "
            f"({who(line.best)}), the best from labels of `{UNDEFENDED}` {spread(line.strongest.labels_only)}"
        )
        if bare and bare.strongest:
            text += (
                f"; by attackers without a labelled image of the task {spread(bare.best)} and "
                f"{spread(bare.strongest.labels_only)}"
            )
        return Finding(gap > 0, f"{text}.")

    def costs_users(self, *policies: str, within: float) -> Finding:
        """Whether users lose no more than so many points under any of these policies."""
        lost = {name: row.accuracy_drop for name in policies if (row := self.policy(name))}
        if len(lost) < len(policies):
            missing = ", ".join(f"`{name}`" for name in policies if name not in lost)
            return Finding(None, f"{self.recipe}: accuracy of {missing} as served.")
        each = ", ".join(f"{100 * drop:.2f} under `{name}`" for name, drop in lost.items())
        holds = all(round(100 * drop, 6) <= within for drop in lost.values())
        return Finding(holds, f"{self.recipe}: points lost by users: {each}; at most {within} was asked.")


def short(budget: int) -> str:
    """10000 -> "10k", for narrow columns; 600 stays "600"."""
    return f"{budget // 1000}k" if budget % 1000 == 0 else str(budget)


def _worst_first(report: Report) -> list[Line]:
    attacked = {row.policy for row in report.attacks}
    lines = [line for line in headline(report) if line.policy in attacked]
    gap = {line.policy: 1.0 if line.gap_vs_top1 is None else line.gap_vs_top1 for line in lines}
    return sorted(lines, key=lambda line: (line.policy != UNDEFENDED, gap[line.policy]))


def _square(cell: Cell | None, most: int) -> str:
    if cell is None:
        return "-"
    deviation = f" ± {number(100 * cell.spread)}" if len(cell.accuracies) > 1 else ""
    less = "" if cell.budget == most else f" ({short(cell.budget)})"
    # a form may drop copies, which counts as rejected too
    gated = cell.rejected and "(" not in cell.attack
    refused = f" ({percent(cell.rejected / cell.queries)} refused)" if gated else ""
    return f"{100 * cell.accuracy:.1f}{deviation}{less}{refused}"


def _place(attack: str) -> tuple[int, str]:
    return (ORDER.index(attack) if attack in ORDER else len(ORDER), attack)
