"""The headline: what the best thief got out of each policy, and whether the policy beats merely hiding probabilities.

For each policy, attack and reading of the answers the thief's recipe is the one whose clones agree best with the
thief's own held-out answers (attacks.clone.best); its clone accuracy is the mean over seeds at the largest budget.
The best clone of a policy is the highest of these.

    gap_vs_top1 = best hard-label clone of `undefended` - best clone of the policy, soft or hard

A service can hide its probabilities for nothing, so a defense earns its keep only by what it adds to that: a gap at
or below zero says it adds nothing. It is printed like any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev

from attacks import clone
from loadtests.results import AttackRow, Report

UNDEFENDED = "undefended"


@dataclass(frozen=True)
class Cell:
    """The clones of one recipe at one budget: mean accuracy, standard deviation (0 for one clone), all values.

    hindsight: the mean accuracy of whichever recipe turned out best on the test set. No thief can choose so; it bounds
    how much a luckier choice of recipe would have gained.
    """

    attack: str
    labels: str
    budget: int
    clone_recipe: str
    accuracies: tuple[float, ...]
    hindsight: float

    @property
    def accuracy(self) -> float:
        return mean(self.accuracies)

    @property
    def spread(self) -> float:
        return stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


@dataclass(frozen=True)
class Line:
    """One row of the headline table. None: not measured, or nothing to compare with."""

    policy: str
    accuracy: float | None
    accuracy_drop: float | None
    soft: Cell | None
    hard: Cell | None
    best: Cell | None
    gap_vs_top1: float | None


def cells(rows: Iterable[AttackRow]) -> list[Cell]:
    """The thief's choice for each attack, reading and budget among rows of ONE policy, budgets ascending."""
    groups: dict[tuple[str, str, int], dict[str, list[AttackRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        attack = row.attack if row.adaptive is None else f"{row.attack} ({row.adaptive})"
        groups[attack, row.labels, row.budget][row.clone_recipe].append(row)
    return [_cell(*key, groups[key]) for key in sorted(groups)]


def headline(report: Report) -> list[Line]:
    """One line a policy that has attack rows or a utility row, `undefended` first."""
    rows: dict[str, list[AttackRow]] = defaultdict(list)
    for row in report.attacks:
        rows[row.policy].append(row)
    utility = {row.policy: row for row in report.policies}
    top1 = _strongest(rows.get(UNDEFENDED, []), "hard")
    lines = []
    for policy in sorted({*rows, *utility}, key=lambda name: (name != UNDEFENDED, name)):
        soft, hard = _strongest(rows.get(policy, []), "soft"), _strongest(rows.get(policy, []), "hard")
        best = max((cell for cell in (soft, hard) if cell), key=lambda cell: cell.accuracy, default=None)
        cost = utility.get(policy)
        lines.append(
            Line(
                policy,
                accuracy=cost.accuracy if cost else None,
                accuracy_drop=cost.accuracy_drop if cost else None,
                soft=soft,
                hard=hard,
                best=best,
                gap_vs_top1=top1.accuracy - best.accuracy if top1 and best else None,
            )
        )
    return lines


def _cell(attack: str, labels: str, budget: int, recipes: Mapping[str, list[AttackRow]]) -> Cell:
    chosen = clone.best({recipe: [row.held_out for row in rows] for recipe, rows in recipes.items()})
    return Cell(
        attack,
        labels,
        budget,
        chosen,
        accuracies=tuple(row.clone_accuracy for row in recipes[chosen]),
        hindsight=max(mean(row.clone_accuracy for row in rows) for rows in recipes.values()),
    )


def _strongest(rows: Iterable[AttackRow], labels: str) -> Cell | None:
    """The best attack with this reading, each attack at its largest budget."""
    final: dict[str, Cell] = {}
    for cell in cells(row for row in rows if row.labels == labels):
        final[cell.attack] = cell
    return max(final.values(), key=lambda cell: cell.accuracy, default=None)
