"""The headline: the best attacker's clone of each policy, and whether the policy beats merely hiding probabilities.

An attacker is an attack in one adaptive form or none. For each policy, attacker, reading of the responses and budget,
the attacker chooses the training recipe whose clones agree best with its held-out responses (attacks.names.best). The
clone accuracy is the mean over seeds. The best clone of a policy is the highest of these, each attacker at its largest
budget.

    gap_vs_top1 = min over attackers t of (best label-only clone of `undefended` - best clone of the policy under t)
                = best label-only clone of `undefended` - best clone of the policy, soft or hard, under any attacker

A service can hide its probabilities for nothing, so a defense is worth only what it adds to that. A gap at or below
zero says it adds nothing, and is printed like any other. The first term is taken over the attackers that the policy
was evaluated against too, at the largest budget measured for both. Otherwise a policy with fewer attackers or smaller
budgets would look better for it.

    gap_by_thief = min over attackers t of
                   (best label-only clone of `undefended` under t - best clone of the policy under t)

compares each attacker with itself. It is lower where an attack needs probabilities: labels alone stop it, the policy
does not, though another attacker gets as much from labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from attacks.names import best, in_form
from report.format import number
from report.rows.clones import AttackRow
from report.schema import Report

UNDEFENDED = "undefended"


@dataclass(frozen=True)
class Tried:
    """The clones of one recipe in a cell: their accuracies, and by what the attacker judges them (mean over clones)."""

    recipe: str
    accuracies: tuple[float, ...]
    held_out: float

    @property
    def accuracy(self) -> float:
        return mean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation over clones; 0 for one."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


@dataclass(frozen=True)
class Cell:
    """The clones of one policy, attack, reading and budget, and the recipe that the attacker chooses among them.

    attack: with its form in brackets. rows: every clone, of the losing recipes too. accuracy, spread, accuracies: mean,
    standard deviation (0 for one clone) and all values of the chosen recipe's clones.
    """

    attack: str
    labels: str
    budget: int
    clone_recipe: str
    rows: tuple[AttackRow, ...]

    @property
    def tried(self) -> tuple[Tried, ...]:
        """What became of each recipe, the chosen one first."""
        groups: dict[str, list[AttackRow]] = defaultdict(list)
        for row in self.rows:
            groups[row.clone_recipe].append(row)
        found = (
            Tried(recipe, tuple(row.clone_accuracy for row in rows), mean(row.held_out for row in rows))
            for recipe, rows in groups.items()
        )
        return tuple(sorted(found, key=lambda each: each.recipe != self.clone_recipe))

    @property
    def chosen(self) -> tuple[AttackRow, ...]:
        """The chosen recipe's clones."""
        return tuple(row for row in self.rows if row.clone_recipe == self.clone_recipe)

    @property
    def accuracies(self) -> tuple[float, ...]:
        return self.tried[0].accuracies

    @property
    def accuracy(self) -> float:
        return self.tried[0].accuracy

    @property
    def spread(self) -> float:
        return self.tried[0].spread

    @property
    def hindsight(self) -> float:
        """The mean accuracy of whichever recipe turned out best on the test set. No attacker can choose so; it bounds
        how much a luckier choice of recipe would have gained."""
        return max(each.accuracy for each in self.tried)

    @property
    def normalised(self) -> float | None:
        """Clone accuracy as a share of the policy's own accuracy as served; None where the policy is never right."""
        served = mean(row.victim_accuracy for row in self.chosen)
        return self.accuracy / served if served else None

    @property
    def agreement(self) -> float:
        """With the served labels on the test set, mean over the chosen clones."""
        return mean(row.agreement for row in self.chosen)

    @property
    def no_query(self) -> float | None:
        """Accuracy of a clone trained on the attacker's own data alone; None where nobody measured it."""
        known = [row.no_query_accuracy for row in self.chosen if row.no_query_accuracy is not None]
        return mean(known) if known else None

    @property
    def queries(self) -> int:
        """Charged; where seeds differ, the most."""
        return max(row.queries for row in self.chosen)

    @property
    def short(self) -> bool:
        """Whether the attack ended before its budget was spent, as where it has no more images."""
        return self.queries < self.budget

    @property
    def rejected(self) -> int:
        """Charged and not answered; where seeds differ, the most."""
        return max(row.rejected for row in self.chosen)

    @property
    def refused(self) -> float:
        """Share of its charged images without an answer."""
        return self.rejected / self.queries


@dataclass(frozen=True)
class Duel:
    """One attacker's best clone of `undefended` with labels only, and of a policy with any reading, at one budget.

    complete: whether a clone of the policy from labels only is among those compared, which any policy must bear.
    """

    labels_only: Cell
    best: Cell
    complete: bool

    @property
    def attack(self) -> str:
        return self.best.attack

    @property
    def gap(self) -> float:
        return self.labels_only.accuracy - self.best.accuracy


@dataclass(frozen=True)
class Line:
    """One row of the headline table. None: not measured, or nothing to compare with."""

    policy: str
    accuracy: float | None
    accuracy_drop: float | None
    soft: Cell | None
    hard: Cell | None
    best: Cell | None
    duels: tuple[Duel, ...] = ()

    @property
    def strongest(self) -> Duel | None:
        """The duel with the best label-only clone of `undefended`."""
        return max(self.duels, key=lambda duel: duel.labels_only.accuracy, default=None)

    @property
    def worst(self) -> Duel | None:
        """The duel that makes gap_by_thief."""
        return min(self.duels, key=lambda duel: duel.gap, default=None)

    @property
    def gap_vs_top1(self) -> float | None:
        if self.strongest is None or self.best is None:
            return None
        return self.strongest.labels_only.accuracy - self.best.accuracy

    @property
    def gap_by_thief(self) -> float | None:
        return self.worst.gap if self.worst else None


def who(cell: Cell | None) -> str:
    """The attacker behind a cell: attack, reading and budget, with the queries made where they are fewer; a dash for
    None."""
    if cell is None:
        return "-"
    asked = f"{number(cell.queries, 0)} of {number(cell.budget, 0)}" if cell.short else number(cell.budget, 0)
    return f"{cell.attack}, {cell.labels}, {asked}"


def cells(rows: Iterable[AttackRow]) -> list[Cell]:
    """The attacker's choice for each attack, reading and budget among rows of ONE policy, budgets ascending."""
    groups: dict[tuple[str, str, int], list[AttackRow]] = defaultdict(list)
    for row in rows:
        groups[in_form(row.attack, row.adaptive), row.labels, row.budget].append(row)
    return [_cell(*key, groups[key]) for key in sorted(groups)]


def by_attacker(report: Report, policy: str) -> dict[tuple[str, str], Cell]:
    """The cells of a policy by attack and reading, each at its largest budget."""
    return {(cell.attack, cell.labels): cell for cell in cells(row for row in report.attacks if row.policy == policy)}


def headline(report: Report) -> list[Line]:
    """One line a policy that has attack rows or a utility row, `undefended` first."""
    rows: dict[str, list[AttackRow]] = defaultdict(list)
    for row in report.attacks:
        rows[row.policy].append(row)
    stolen = {policy: cells(each) for policy, each in rows.items()}
    utility = {row.policy: row for row in report.policies}
    top1 = [cell for cell in stolen.get(UNDEFENDED, []) if cell.labels == "hard"]
    lines = []
    for policy in sorted({*rows, *utility}, key=lambda name: (name != UNDEFENDED, name)):
        mine = stolen.get(policy, [])
        soft, hard = _strongest(mine, "soft"), _strongest(mine, "hard")
        cost = utility.get(policy)
        lines.append(
            Line(
                policy,
                accuracy=cost.accuracy if cost else None,
                accuracy_drop=cost.accuracy_drop if cost else None,
                soft=soft,
                hard=hard,
                best=max((cell for cell in (soft, hard) if cell), key=lambda cell: cell.accuracy, default=None),
                duels=tuple(_duels(top1, mine)),
            )
        )
    return lines


def _cell(attack: str, labels: str, budget: int, rows: Sequence[AttackRow]) -> Cell:
    held_out: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        held_out[row.clone_recipe].append(row.held_out)
    return Cell(attack, labels, budget, best(held_out), tuple(rows))


def _duels(top1: Iterable[Cell], mine: Iterable[Cell]) -> Iterable[Duel]:
    """A duel for each attacker that both sides were evaluated against at one budget."""
    labels_only: dict[str, dict[int, Cell]] = defaultdict(dict)
    for cell in top1:
        labels_only[cell.attack][cell.budget] = cell
    by_attack: dict[str, list[Cell]] = defaultdict(list)
    for cell in mine:
        by_attack[cell.attack].append(cell)
    for attack, own_cells in by_attack.items():
        common = {cell.budget for cell in own_cells} & set(labels_only[attack])
        if common:
            budget = max(common)
            # a reading that was only measured for less is the attacker's to use all the same
            final = {cell.labels: cell for cell in own_cells if cell.budget <= budget}
            best = max(final.values(), key=lambda cell: cell.accuracy)
            complete = any((cell.labels, cell.budget) == ("hard", budget) for cell in own_cells)
            yield Duel(labels_only[attack][budget], best, complete)


def _strongest(mine: Iterable[Cell], labels: str) -> Cell | None:
    """The best attack with this reading, each attack at its largest budget."""
    final = {cell.attack: cell for cell in mine if cell.labels == labels}
    return max(final.values(), key=lambda cell: cell.accuracy, default=None)
