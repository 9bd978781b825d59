"""What gates and their baselines see of attackers, whom they hit and what they charge, from one results file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from report.analysis.literature import SAME
from report.analysis.study import Study
from report.format import hundredth
from report.rows.gates import DetectionRow, FalsePositiveRow, GateCostRow, WorkRow

# the gate that is spoken of, where it was judged
DEFAULT = "same-observe"
BENIGN = "benign ("
# sections that the page asks for
ASKED = ("detection", "false_positives", "work", "gate_costs", "gate_precision", "policies", "attacks")


@dataclass(frozen=True)
class Contest:
    """One attacker's queries under the default gate. rival: the best baseline; known: whether it was trained on the
    attacker's own surrogate set. paper: AUROC of the paper's gate, in percent."""

    default: DetectionRow
    rival: DetectionRow | None
    known: bool
    paper: float | None

    @property
    def title(self) -> str:
        return f"{self.default.attack}{', without its seeds' if self.default.seeds_left_out else ''}"

    @property
    def lost(self) -> bool:
        """Whether the gate sees less than a baseline does."""
        return self.rival is not None and self.default.auroc < self.rival.auroc

    @property
    def short(self) -> bool:
        """Whether the gate stays below the paper's own."""
        return self.paper is not None and round(100 * self.default.auroc, 6) < self.paper

    @property
    def rival_cell(self) -> str:
        """The rival as the page prints it."""
        if self.rival is None:
            return "-"
        known = ", trained on these images" if self.known else ""
        return f"{hundredth(self.rival.auroc)} ({self.rival.detector}{known})"


@dataclass(frozen=True)
class Detector:
    """One gate or baseline over all attackers and budgets. worst: where it sees least."""

    name: str
    kind: str
    median: float
    worst: DetectionRow
    cost: GateCostRow | None


@dataclass(frozen=True)
class Detection(Study):
    """One results file, with the look-ups that the page needs."""

    @property
    def missing(self) -> list[str]:
        return [name for name in ASKED if not getattr(self.report, name)]

    @property
    def default(self) -> str | None:
        """The gate that the page speaks of: DEFAULT, or the first that was judged."""
        judged = [row.detector for row in self.report.detection if row.kind == "gate"]
        return DEFAULT if DEFAULT in judged else next(iter(judged), None)

    @cached_property
    def contests(self) -> list[Contest]:
        """Every attacker, budget and treatment of seeds under the default gate, what it sees least first."""
        groups: dict[tuple[str, int, bool], list[DetectionRow]] = {}
        for row in self.report.detection:
            if not row.draws:
                groups.setdefault((row.attack, row.budget, row.seeds_left_out), []).append(row)
        found = [self._contest(rows) for rows in groups.values() if any(row.detector == self.default for row in rows)]
        return sorted(found, key=lambda each: each.default.auroc)

    def _contest(self, rows: Sequence[DetectionRow]) -> Contest:
        settings = self.report.run.settings
        default = next(row for row in rows if row.detector == self.default)
        attacker = settings.get(f"detection.{default.attack}", {})
        rival = max((row for row in rows if row.kind != "gate"), key=lambda row: row.auroc, default=None)
        known = rival is not None and _knows(settings.get(f"baseline.{rival.detector}"), attacker)
        kind = str(attacker.get("attack", default.attack))
        return Contest(default, rival, known, SAME.get(self.dataset, {}).get(default.budget, {}).get(kind))

    @property
    def worst(self) -> list[Contest]:
        """Of each attacker, with and without its seeds, the budget at which the gate sees least; and every other cell
        that is lost to a baseline or stays short of the paper's."""
        first = {(each.default.attack, each.default.seeds_left_out): each for each in reversed(self.contests)}
        return [each for each in self.contests if each in first.values() or each.lost or each.short]

    @property
    def detectors(self) -> list[Detector]:
        """Gates and baselines, by their median."""
        rows = [row for row in self.report.detection if not row.draws]
        costs = {row.policy: row for row in sorted(self.report.gate_costs, key=lambda row: -row.batch)}
        found = []
        for name in dict.fromkeys(row.detector for row in rows):
            mine = [row for row in rows if row.detector == name]
            middle = median(row.auroc for row in mine)
            found.append(Detector(name, mine[0].kind, middle, min(mine, key=lambda r: r.auroc), costs.get(name)))
        return sorted(found, key=lambda each: -each.median)

    @property
    def flagged(self) -> dict[str, dict[str, FalsePositiveRow]]:
        """By traffic, then policy: benign ones, those flagged most ahead; then attackers, the least seen first."""
        found: dict[str, dict[str, FalsePositiveRow]] = {}
        rows = sorted(self.report.false_positives, key=lambda row: row.flagged if row.malicious else -row.flagged)
        for row in sorted(rows, key=lambda row: row.malicious):
            found.setdefault(row.traffic, {})[row.policy] = row
        return found

    @property
    def hit(self) -> list[FalsePositiveRow]:
        """Benign traffic that a policy flags more of than its threshold was calibrated for, beyond chance; of each
        traffic the policy that flags most, the worst first."""
        mine = [max(rows.values(), key=lambda row: row.flagged) for rows in self.flagged.values()]
        return [row for row in mine if not row.malicious and row.low > row.stated]

    @property
    def prices(self) -> Iterator[tuple[str, WorkRow]]:
        """(who pays, what): of each policy unshifted users, the dearest, the cheapest and the middle attackers."""
        for policy in dict.fromkeys(row.policy for row in self.report.work):
            rows = sorted((row for row in self.report.work if row.policy == policy), key=lambda row: row.mean)
            attackers = [row for row in rows if row.malicious]
            yield from (("users, unshifted", row) for row in rows if row.traffic.startswith(BENIGN))
            yield from (("users, dearest", row) for row in [row for row in rows if not row.malicious][-1:])
            yield from (("attackers, cheapest", row) for row in attackers[:1])
            yield from (("attackers, middle", row) for row in attackers[len(attackers) // 2 :][:1])


def _knows(baseline: Mapping[str, Any] | None, attacker: Mapping[str, Any]) -> bool:
    """Whether a baseline's auxiliary images are those that an attacker asks about."""
    auxiliary = (baseline or {}).get("auxiliary")
    return auxiliary is not None and auxiliary == attacker.get("surrogate")
