"""results/gate-aware-*.json to docs/results/gate-aware.md: what gate-aware attackers get past SAME's gate.

    python -m report.pages gate-aware

Every number on the page comes from the results files; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report.figures.bought import bought
from report.gain import Gain, gain
from report.headline import UNDEFENDED, Cell, by_attacker
from report.pages import page
from report.schema import Report, ResultError, read

PREFIX = "gate-aware-"
# the gate that the page opens with, and the attacker that no gate can distinguish from a customer
GATE, CUSTOMER = "same-reject", "in-distribution"
# the gate before an ensemble
BOTH = "edm-same"


@dataclass(frozen=True)
class Behind:
    """One attacker behind one policy with a gate. gain: None where its baseline was not measured."""

    policy: str
    cell: Cell
    gain: Gain | None


@dataclass(frozen=True)
class Thief:
    """One attacker and reading: its clone of the undefended victim, and behind each gate."""

    name: str
    labels: str
    undefended: Cell
    gates: tuple[Behind, ...]

    def behind(self, policy: str) -> Behind | None:
        return next((each for each in self.gates if each.policy == policy), None)

    @property
    def points(self) -> float:
        """What its queries bought behind GATE, or else behind its first gate, as a fraction of test images."""
        met = self.behind(GATE) or self.gates[0]
        return met.gain.points if met.gain else met.cell.accuracy


@dataclass(frozen=True)
class Study:
    """One results file, read. thieves: those whose queries bought most behind GATE first. unanswered: attackers
    of `undefended` alone, who got too few responses of any gate to train a clone on."""

    report: Report
    thieves: tuple[Thief, ...]
    unanswered: tuple[str, ...]

    @property
    def recipe(self) -> str:
        return self.report.attacks[0].recipe

    @property
    def policies(self) -> tuple[str, ...]:
        """Those with a gate."""
        return tuple(dict.fromkeys(each.policy for thief in self.thieves for each in thief.gates))

    @property
    def tellable(self) -> tuple[Thief, ...]:
        """Those behind GATE whose images are not the task's own."""
        return tuple(each for each in self.thieves if each.behind(GATE) and not each.name.startswith(CUSTOMER))

    @property
    def both(self) -> Thief | None:
        """The attacker with the best clone behind BOTH whose images are not the task's own."""
        met = [each for each in self.tellable if each.behind(BOTH)]
        return max(met, key=lambda each: _accuracy(each, BOTH), default=None)

    @property
    def figure(self) -> str:
        """Of the attackers who read probabilities."""
        shown = {
            thief.name: {UNDEFENDED: thief.undefended, **{each.policy: each.cell for each in thief.gates}}
            for thief in self.thieves
            if thief.labels == "soft"
        }
        return bought(shown, policies=(UNDEFENDED, *self.policies))

    @property
    def picture(self) -> str:
        """The name of the figure's file."""
        return f"gate-aware-{self.recipe}.svg"


def pages(results: Path) -> dict[str, str]:
    """The page and its figures, by file name below docs/. Raises ResultError."""
    studies = found(results)
    figures = {f"results/{each.picture}": each.figure for each in studies}
    return {**figures, "results/gate-aware.md": render(studies)}


def found(folder: Path) -> list[Study]:
    """All that was measured. Raises ResultError where nothing was, or where a file lacks what the page is about."""
    paths = page.files(folder, PREFIX, made_by="make reproduce-gate-aware")
    return [study(read(path, measured_by="make reproduce-gate-aware")) for path in paths]


def render(studies: Sequence[Study]) -> str:
    """The page."""
    return page.render("gate_aware.md.j2", studies=studies, gate=GATE)


def study(report: Report) -> Study:
    """Each attacker on `undefended` and a gate. Raises ResultError where there is none that a gate could detect."""
    stolen = {policy: by_attacker(report, policy) for policy in dict.fromkeys(row.policy for row in report.attacks)}
    plain = stolen.pop(UNDEFENDED, {})
    thieves = []
    for key, undefended in plain.items():
        gates = tuple(
            Behind(policy, mine[key], gain(mine[key], undefended)) for policy, mine in stolen.items() if key in mine
        )
        if gates:
            thieves.append(Thief(*key, undefended, gates))
    refused = dict.fromkeys(name for name, _ in plain if not any(thief.name == name for thief in thieves))
    result = Study(report, tuple(sorted(thieves, key=lambda thief: -thief.points)), tuple(refused))
    if not result.tellable:
        raise ResultError(f"attacks: expected attackers of `{UNDEFENDED}` and `{GATE}` other than {CUSTOMER}, got none")
    return result


def _accuracy(thief: Thief, policy: str) -> float:
    met = thief.behind(policy)
    return met.cell.accuracy if met else 0.0
