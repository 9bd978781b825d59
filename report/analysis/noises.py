"""What each kind of input noise costs and leaves: attackers that copy images, those that follow gradients, and time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attacks.names import COPIES, without_copies
from report.analysis.study import Study
from report.headline import Cell
from report.rows.bench import DefenseCostRow
from report.rows.gradients import GradientRow
from report.rows.noise import NoiseRow

FRESH, DEFAULT = "meco", "meco-keyed"
# where a policy's noise comes from
NOISES = {
    FRESH: "drawn again for every query",
    DEFAULT: "keyed by the image, a mix of the next two",
    "meco-keyed-bytes": "keyed by the image's exact bytes",
    "meco-keyed-perceptual": "keyed by a perceptual code of the image",
}
GAUSSIAN = "meco-gaussian-small"
ABLATIONS = {
    FRESH: "the generator, trained with particle steps",
    "meco-without-dro": "no particle steps",
    "meco-gaussian": "Gaussian noise of the same size, nothing learned",
    GAUSSIAN: "Gaussian noise that costs users no more",
    "meco-random-filters": "the released code's random filters, drawn for each image",
}
# adaptive forms that ask about copies of an image, as the page calls them
COPYING = {"repeats": "identical", "jittered": "jittered"}
# of traffic in the "noise" rows, by how its names begin
BENIGN, ATTACKING = "benign (", "thief ("


@dataclass(frozen=True)
class Choice:
    """What one noise leaves Knockoff with soft labels, and an attacker that follows gradients.

    plain: without copies. best: the best clone from more than one copy of an image, by kind of copies, for as many
    queries in all. gain: of the best number of copies over the plain one for as many images, by kind. once, averaged:
    the largest cosine of any traffic and probe, from one response and from the mean of most.
    """

    policy: str
    plain: Cell | None
    best: dict[str, Cell]
    gain: dict[str, float]
    once: GradientRow | None
    averaged: GradientRow | None


@dataclass(frozen=True)
class Noises(Study):
    """One results file, with the look-ups that the page needs."""

    @property
    def missing(self) -> list[str]:
        return [name for name in NOISES if not self.policy(name)]

    @property
    def compared(self) -> list[str]:
        """The policies attacked with more than Knockoff; all where none was."""
        met = {row.policy for row in self.report.attacks if row.attack != "knockoff"}
        return [policy for policy in self.policies if policy in met or not met]

    def noise(self, policy: str, traffic: str) -> NoiseRow | None:
        """The row of the traffic whose name begins so."""
        rows = (row for row in self.report.noise if row.policy == policy and row.traffic.startswith(traffic))
        return next(rows, None)

    @property
    def ablations(self) -> list[str]:
        """The fresh noise, and what was measured of the others."""
        known = {row.policy for row in self.report.policies} | {row.policy for row in self.report.noise}
        return [policy for policy in ABLATIONS if policy in known]

    @property
    def choices(self) -> list[Choice]:
        """The noises that were measured in any way that a choice goes by."""
        found = [self._choice(policy) for policy in NOISES]
        return [each for each in found if each.plain or each.once]

    def _choice(self, policy: str) -> Choice:
        once_each = {cell.budget: cell for cell in self.of("knockoff", policy=policy, labels="soft")}
        plain = self.largest(policy, "soft")
        best: dict[str, Cell] = {}
        gain: dict[str, float] = {}
        for attack, form in self.attackers:
            for kind, count in _copies(form) if attack == "knockoff" else ():
                for cell in self.of(attack, form, policy=policy, labels="soft"):
                    if plain and cell.budget == plain.budget:
                        best[kind] = max(cell, best.get(kind, cell), key=lambda each: each.accuracy)
                    elif alike := once_each.get(cell.budget // count):
                        gain[kind] = max(gain.get(kind, -1.0), cell.accuracy - alike.accuracy)
        rows = [row for row in self.report.gradients if row.policy == policy]
        most = max((row.repeats for row in rows), default=1)
        once = _clearest(row for row in rows if row.repeats == 1)
        averaged = _clearest(row for row in rows if row.repeats == most > 1)
        return Choice(policy, plain, best, gain, once, averaged)

    @property
    def costs(self) -> list[list[DefenseCostRow]]:
        """Batches of each network, defense and form, the slowest over the victim first."""
        groups: dict[tuple[str, str, str], list[DefenseCostRow]] = {}
        for row in sorted(self.report.defense_costs, key=lambda row: row.batch):
            groups.setdefault((row.architecture, row.defense, row.form), []).append(row)
        return sorted(groups.values(), key=lambda rows: -max(row.times for row in rows))


def _copies(form: str | None) -> list[tuple[str, int]]:
    """[(kind of copies, how many)] of a form that asks about copies of an image, else nothing."""
    kind = COPYING.get(without_copies(form or ""))
    if kind is None or form is None:
        return []
    count = form.rpartition("-")[2]
    return [(kind, int(count) if count.isdigit() else COPIES)]


def _clearest(rows: Iterable[GradientRow]) -> GradientRow | None:
    return max(rows, key=lambda row: row.cosine, default=None)
