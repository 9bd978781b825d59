"""results/fortress-*.json to docs/results/fortress.md: what the best composition leaves attackers, by its parts.

    python -m report.pages fortress

Every number on the page comes from the results files; its sentences hold whatever the numbers are. A label rule's
answers are the labels of the same policy without it, so attackers who read labels alone measure it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from report.analysis.finding import Finding, answer
from report.figures.bought import bought
from report.format import percent, spread
from report.gain import Gain, gain
from report.headline import UNDEFENDED, Cell, by_attacker
from report.pages import page
from report.rows.members import ShiftRow
from report.rows.policies import PolicyRow
from report.schema import Report, ResultError, read

PREFIX = "fortress-"
MADE_BY = "make reproduce-fortress"
WHOLE, STRICT = "fortress", "fortress-strict"
# each composition of parts: the policy that has them, and what is read of it
PARTS: tuple[tuple[str, str, str], ...] = (
    ("nothing", UNDEFENDED, "soft"),
    ("labels", UNDEFENDED, "hard"),
    ("gate", "same-reject", "soft"),
    ("decoys", "decoys", "soft"),
    ("gate and labels", "same-reject", "hard"),
    ("decoys and labels", "decoys", "hard"),
    ("gate and decoys", "decoys-same", "soft"),
    ("gate, and a budget that leaves labels, one account", "same-budget", "hard"),
    ("gate, decoys and labels", "decoys-same", "hard"),
    ("gate, decoys, labels and budget, all refusing, one account", STRICT, "hard"),
    ("decoys, steps and budget, none refusing", WHOLE, "hard"),
)
PICTURED = (UNDEFENDED, "same-reject", "decoys-same", WHOLE)
# the same network's labels, whatever else is said of them
SAME_LABELS = {WHOLE: "decoys"}
# attackers who own some labelled images of the task, and those who own as many as they ask about
OWNERS, CUSTOMER = ("augmented-seeds", "mixed", "jbda"), "in-distribution"
# kinds of attackers, and the most that their queries may buy
KINDS = {"without images of the task": 0.10, "with 150 images of the task": 0.25, "with the task's own images": None}
STRANGER, OWNER, INSIDER = KINDS
# what users may lose: accuracy, and images refused; and accuracy under a shift
DROP, REFUSED, SHIFTED = 0.005, 0.01, 0.05


@dataclass(frozen=True)
class Attacker:
    """One attacker and reading: its clone of each policy, by policy's name. reference: the best undefended clone from
    the same images."""

    name: str
    labels: str
    cells: dict[str, Cell]
    reference: Cell

    @property
    def kind(self) -> str:
        """A key of KINDS."""
        return kind_of(self.name)

    @property
    def plain(self) -> bool:
        """Whether it reads the answers as any other does."""
        return not any(row.clone_recipe in (row.adaptive or "") for cell in self.cells.values() for row in cell.rows)

    def gain(self, policy: str) -> Gain | None:
        """What its queries bought of a policy, as a share of what the best of undefended buys; None where there was no
        clone."""
        cell = self.cells.get(policy)
        return None if cell is None else gain(cell, self.reference)

    def share(self, policy: str) -> float:
        """Of gain bought, 0 without a clone."""
        found = self.gain(policy)
        if found is None:
            return 0.0
        return found.points if found.share is None else found.share


@dataclass(frozen=True)
class Worst:
    """The attacker of one kind that buys most of one composition. met: attackers of that kind who read the answers as
    they are; cloned: those who got enough of them for a clone."""

    attacker: Attacker | None
    policy: str
    met: int
    cloned: int

    @property
    def text(self) -> str:
        """Of a table."""
        if self.attacker is None:
            return "-"
        found = self.attacker.gain(self.policy)
        return f"{self.attacker.name}: {spread(self.attacker.cells[self.policy])}, gain {found or '-'}"


@dataclass(frozen=True)
class Study:
    """One results file, read."""

    report: Report

    @property
    def recipe(self) -> str:
        return self.report.attacks[0].recipe

    @cached_property
    def attackers(self) -> tuple[Attacker, ...]:
        """Those who buy most of the whole first."""
        policies = dict.fromkeys(row.policy for row in self.report.attacks)
        cells = {policy: by_attacker(self.report, policy) for policy in policies}
        plain = cells.get(UNDEFENDED, {})
        found = []
        for name, labels in dict.fromkeys(key for each in cells.values() for key in each):
            same = [cell for (attack, _), cell in plain.items() if source(attack) == source(name)]
            if same:
                mine = {policy: each[name, labels] for policy, each in cells.items() if (name, labels) in each}
                if labels == "hard":
                    mine = {policy: mine[like] for policy, like in SAME_LABELS.items() if like in mine} | mine
                found.append(Attacker(name, labels, mine, max(same, key=lambda cell: cell.accuracy)))
        return tuple(sorted(found, key=lambda each: -each.share(WHOLE)))

    def worst(self, policy: str, kind: str, labels: str | None = None) -> Worst:
        """Of a composition. labels: what is read of it; None: whatever buys most."""
        met = [each for each in self.attackers if each.kind == kind and labels in (each.labels, None)]
        cloned = [each for each in met if policy in each.cells]
        worst = max(cloned, key=lambda each: each.share(policy), default=None)
        return Worst(worst, policy, sum(a.plain for a in met), sum(a.plain for a in cloned))

    @property
    def parts(self) -> Iterator[tuple[str, PolicyRow | None, list[Worst]]]:
        """Each composition, what it costs its users, and the worst attacker of each kind."""
        for name, policy, labels in PARTS:
            yield name, self.cost(policy), [self.worst(policy, kind, labels) for kind in KINDS]

    def cost(self, policy: str) -> PolicyRow | None:
        """The utility row of a policy."""
        return next((row for row in self.report.policies if row.policy == policy), None)

    @property
    def policies(self) -> tuple[str, ...]:
        """Those that attackers were measured against, undefended first."""
        return tuple(dict.fromkeys(policy for _, policy, _ in PARTS if any(policy in a.cells for a in self.attackers)))

    @property
    def shifts(self) -> dict[str, dict[str, ShiftRow]]:
        """By shift and policy."""
        found: dict[str, dict[str, ShiftRow]] = {}
        for row in self.report.shifts:
            found.setdefault(row.shift, {})[row.policy] = row
        return found

    @property
    def figure(self) -> str:
        """Of the attackers who read labels, as all do behind the whole."""
        shown = {
            each.name: each.cells
            for each in self.attackers
            if (each.labels, UNDEFENDED in each.cells) == ("hard", True)
        }
        return bought(shown, policies=[each for each in PICTURED if each in self.policies])

    @property
    def picture(self) -> str:
        """The name of the figure's file."""
        return f"fortress-{self.recipe}.svg"


def source(attack: str) -> str:
    """An attack's name without what it does with its images and answers."""
    return attack.partition(" (")[0]


def kind_of(attack: str) -> str:
    """A key of KINDS."""
    name = source(attack)
    return INSIDER if name == CUSTOMER else OWNER if name in OWNERS else STRANGER


def findings(study: Study) -> Iterator[Finding]:
    """What the page answers of one data set."""
    for kind in KINDS:
        worst = study.worst(WHOLE, kind)
        if worst.attacker is not None:
            yield sold(study, kind, worst.attacker)
    for policy in (WHOLE, STRICT):
        cost = study.cost(policy)
        if cost is not None:
            yield priced(study, cost)
    lost = {
        shift: rows[UNDEFENDED].accuracy - rows[WHOLE].accuracy for shift, rows in study.shifts.items() if WHOLE in rows
    }
    if lost:
        shift = max(lost, key=lambda shift: lost[shift])
        yield Finding(
            lost[shift] <= SHIFTED,
            f"{study.recipe}: customers whose images differ lose at most {100 * SHIFTED:.1f} points to `{WHOLE}`; most "
            f"lost: {100 * lost[shift]:.1f} ({shift}).",
        )
    strict = study.worst(STRICT, STRANGER, "hard"), study.worst(STRICT, OWNER, "hard")
    met, cloned = sum(each.met for each in strict), sum(each.cloned for each in strict)
    if met:
        yield Finding(
            None,
            f"{study.recipe}: of {met} attackers with one account, {cloned} got enough answers of `{STRICT}` for a "
            "clone.",
        )


def sold(study: Study, kind: str, attacker: Attacker) -> Finding:
    """What the worst attacker of a kind buys of the whole."""
    cell, found, most = attacker.cells[WHOLE], attacker.gain(WHOLE), KINDS[kind]
    seen = (
        f"{attacker.name}: a clone of {spread(cell)}, of undefended {spread(attacker.reference)}, without a query "
        f"{percent(cell.no_query)}"
    )
    if found is None or found.share is None:
        return Finding(None, f"{study.recipe}: attackers {kind} gain next to nothing where nothing defends ({seen}).")
    text = f"{study.recipe}: attackers {kind} buy {found} of what undefended sells ({seen})"
    if most is None:
        return Finding(None, f"{text}.")
    return Finding(found.share <= most, f"{text}; at most {most:.2f} is wanted.")


def priced(study: Study, cost: PolicyRow) -> Finding:
    """What a policy costs its users; the whole refuses nobody."""
    refused = (cost.false_positive_rate or 0.0) if cost.policy == STRICT else 0.0
    return Finding(
        cost.accuracy_drop <= DROP and refused <= REFUSED,
        f"{study.recipe}: `{cost.policy}` costs {100 * cost.accuracy_drop:.2f} points of accuracy and refuses "
        f"{percent(refused)} of test images; at most {100 * DROP} and {percent(REFUSED)} are wanted.",
    )


def pages(results: Path) -> dict[str, str]:
    """The page and its figures, by file name below docs/. Raises ResultError."""
    studies = found(results)
    figures = {f"results/{each.picture}": each.figure for each in studies}
    return {**figures, "results/fortress.md": render(studies)}


def found(folder: Path) -> list[Study]:
    """All that was measured. Raises ResultError where nothing was, or where a file lacks what the page is about."""
    studies = [Study(read(path, measured_by=MADE_BY)) for path in page.files(folder, PREFIX, made_by=MADE_BY)]
    for study in studies:
        if not any(WHOLE in each.cells for each in study.attackers):
            raise ResultError(f"attacks: expected attackers of `{UNDEFENDED}` and `{WHOLE}`, got none")
    return studies


def render(studies: Sequence[Study]) -> str:
    """The page."""
    opening = answer(each for study in studies for each in findings(study))
    return page.render("fortress.md.j2", studies=studies, answer=opening, kinds=list(KINDS), whole=WHOLE, strict=STRICT)
