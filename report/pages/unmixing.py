"""results/unmixing-*.json to docs/results/unmixing.md: what responses reveal to readers of EDM's paper.

    python -m report.pages unmixing

A file that ends in -second-key.json is the same measurement in a checkout with a key of its own. Every number on the
page comes from the results files; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report.headline import UNDEFENDED, Cell, by_attacker
from report.pages import page
from report.rows.training import TrainingRow
from report.schema import Report, ResultError, read

PREFIX = "unmixing-"
# what each attacker does with the answers; others follow by name
THIEVES = {
    "knockoff": "fits them as they are",
    "knockoff (log-p)": "fits the logits behind them",
    "knockoff (centred)": "takes each label's mean logits off",
    "knockoff (mixture)": "takes the mean logits of each cluster of answers off",
    "knockoff (masked)": "leaves out the label where it is a frequent one",
    "knockoff (masked-log-p)": "leaves out the label where it is a frequent one, and fits the other logits",
    "knockoff (second-label)": "reads the second label where the first is a frequent one",
    "knockoff (prior-adjusted)": "counts frequent labels for less",
}
# the ensemble that the page opens with
EDM = "edm-fixed"
SECOND = "-second-key"


@dataclass(frozen=True)
class Thief:
    """One attacker and reading: its clones of the undefended victim and of a policy; again: of the policy under another
    key, where that was measured."""

    name: str
    labels: str
    undefended: Cell
    cell: Cell
    again: Cell | None

    @property
    def does(self) -> str:
        return THIEVES.get(self.name, "")

    @property
    def lost(self) -> float:
        """What the policy takes from this attacker, a fraction of all test images."""
        return self.undefended.accuracy - self.cell.accuracy


@dataclass(frozen=True)
class Policy:
    """One policy, and the attackers measured on both it and `undefended`, most successful first."""

    name: str
    thieves: tuple[Thief, ...]

    def strongest(self, labels: str) -> Thief | None:
        return next((thief for thief in self.thieves if thief.labels == labels), None)

    @property
    def plain(self) -> Thief | None:
        """The attacker who fits probabilities as they are returned."""
        return next((each for each in self.thieves if (each.name, each.labels) == ("knockoff", "soft")), None)


@dataclass(frozen=True)
class Study:
    """One recipe's results. policies: EDM first, then those that give most away."""

    report: Report
    again: Report | None
    policies: tuple[Policy, ...]

    @property
    def recipe(self) -> str:
        return self.report.attacks[0].recipe

    @property
    def edm(self) -> Policy:
        return self.policies[0]

    def policy(self, name: str) -> Policy | None:
        return next((each for each in self.policies if each.name == name), None)

    @property
    def soft(self) -> Thief:
        """The strongest attacker of EDM's probabilities."""
        return _there(self.edm.strongest("soft"))

    @property
    def hard(self) -> Thief:
        """The strongest attacker of EDM's labels."""
        return _there(self.edm.strongest("hard"))

    def undefended(self, labels: str) -> Cell:
        """The strongest clone of the undefended victim."""
        known = [each.undefended for each in self.edm.thieves if each.labels == labels]
        return max(known, key=lambda cell: cell.accuracy)

    @property
    def members(self) -> TrainingRow:
        """How EDM's ensemble was trained, and what its members give away."""
        predictor = EDM.replace("-", "_")
        return next(row for row in self.report.training if row.predictor == predictor)

    @property
    def leaks(self) -> tuple[TrainingRow, ...]:
        """Every ensemble whose members' leak was measured."""
        return tuple(row for row in self.report.training if row.leak is not None)


def pages(results: Path) -> dict[str, str]:
    """The page, by file name below docs/. Raises ResultError."""
    return {"results/unmixing.md": render(found(results))}


def found(folder: Path) -> list[Study]:
    """All that was measured. Raises ResultError where nothing was, or where a file lacks what the page is about."""
    studies = []
    for path in page.files(folder, PREFIX, made_by="make reproduce-unmixing", but=SECOND):
        second = path.with_name(f"{path.stem}{SECOND}.json")
        again = read(second, measured_by="make reproduce-unmixing AGAIN=second-key") if second.exists() else None
        studies.append(study(read(path, measured_by="make reproduce-unmixing"), again))
    return studies


def render(studies: Sequence[Study]) -> str:
    """The page."""
    return page.render("unmixing.md.j2", studies=studies, edm=EDM)


def study(report: Report, again: Report | None = None) -> Study:
    """What attackers got of each policy. Raises ResultError where EDM or one of its readings is missing."""
    plain, second = by_attacker(report, UNDEFENDED), by_attacker(again, EDM) if again else {}
    policies = []
    for name in dict.fromkeys(row.policy for row in report.attacks if row.policy != UNDEFENDED):
        mine = by_attacker(report, name)
        met = [
            Thief(*key, plain[key], mine[key], second.get(key) if name == EDM else None) for key in mine if key in plain
        ]
        policies.append(Policy(name, tuple(sorted(met, key=lambda thief: -thief.cell.accuracy))))
    for labels in ("soft", "hard"):
        if not any(each.name == EDM and each.strongest(labels) for each in policies):
            raise ResultError(f"attacks: expected attackers of `{EDM}` who read {labels} labels, got none")
    if not any(row.predictor == EDM.replace("-", "_") for row in report.training):
        raise ResultError(f"training: expected a row of {EDM}'s ensemble, got none")

    def most(policy: Policy) -> float:
        strongest = policy.strongest("soft") or policy.strongest("hard")
        return strongest.cell.accuracy if strongest else 0.0

    return Study(report, again, tuple(sorted(policies, key=lambda policy: (policy.name != EDM, -most(policy)))))


def _there(thief: Thief | None) -> Thief:
    assert thief is not None, "study() has seen to it"
    return thief
