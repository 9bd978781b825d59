"""results/misleader-*.json to docs/results/misleader.md and its figure: what MISLEADER and its parts cost and stop.

    python -m report.pages misleader

Every number on the page comes from the results files, but the constants of the released code (MISLEADER, 2025), which
stand here. The paper's own tables were not at hand. Sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from report.analysis.finding import Finding
from report.analysis.study import Pair, Study
from report.figures.heat_map import heat_map
from report.headline import UNDEFENDED
from report.pages.method import Method
from report.rows.members import ROUTED_OVER_AVERAGED, ROUTED_OVER_DEAREST, EnsembleCostRow, ShiftRow

MISLEADER, DISTILLED, DIVERSE, RELEASED = "misleader", "distilled", "misleader-diverse", "misleader-released"
ROUTED = "-routed"
OURS = (DISTILLED, DISTILLED + ROUTED, MISLEADER, MISLEADER + ROUTED, DIVERSE, DIVERSE + ROUTED, RELEASED)
# (what two policies differ in, from, to)
PARTS = (
    *(("all of it", UNDEFENDED, policy) for policy in (MISLEADER, MISLEADER + ROUTED, DIVERSE, DIVERSE + ROUTED)),
    ("the attacker term", DISTILLED, MISLEADER),
    ("the attacker term", DISTILLED + ROUTED, MISLEADER + ROUTED),
    *(("routing in place of the mean", policy, policy + ROUTED) for policy in (DISTILLED, MISLEADER, DIVERSE)),
    ("the diversity term", MISLEADER, DIVERSE),
    ("the diversity term", MISLEADER + ROUTED, DIVERSE + ROUTED),
    ("the released code's faults", MISLEADER, RELEASED),
)
# the released harness: DFME given probabilities in place of logits
HARNESSED, HARNESS = "dfme", "p-as-logits"
# what users may lose, and on shifted images against another policy, in points
WITHIN, WITHIN_SHIFTED = 0.5, 1.0
# points that two clones may differ by for nothing: 10,000 test images alone are good for 0.7, one standard error
EVEN = 1.0
# lambda of the released scripts, by data set and member
RELEASED_LAMBDA = {
    "mnist": {"lenet5": 0.5, "lenet5-half": 0.5, "lenet5-fifth": 0.5},
    "cifar10": {"resnet18-8x": 0.001, "mobilenetv2": 0.05, "densenet121": 0.01},
}


@dataclass(frozen=True)
class Experiment(Study):
    """One results file, with the look-ups that the page needs."""

    @property
    def missing(self) -> list[str]:
        report = self.report
        known = {
            "accuracy": {row.policy for row in report.policies},
            "clones": {row.policy for row in report.attacks},
            "shifted images": {row.policy for row in report.shifts},
        }
        lacking = {what: [policy for policy in OURS if policy not in names] for what, names in known.items()}
        return [f"{what} of {', '.join(names)}" for what, names in lacking.items() if names]

    @property
    def parts(self) -> list[tuple[str, str, str, list[Pair]]]:
        """(what differs, from, to, attackers measured on both)."""
        found = [(what, base, other, self.pairs(base, other)) for what, base, other in PARTS]
        return [part for part in found if part[-1]]

    @property
    def shifted(self) -> dict[str, dict[str, ShiftRow]]:
        """By shift, then policy; the shift on which a policy loses most to the undefended one first."""
        found: dict[str, dict[str, ShiftRow]] = {}
        for row in self.report.shifts:
            found.setdefault(row.shift, {})[row.policy] = row
        return dict(sorted(found.items(), key=lambda each: -_most_lost(each[1])))

    def harmed(self, base: str, other: str) -> list[tuple[ShiftRow, ShiftRow]]:
        """Shifts on which `other` loses more than WITHIN_SHIFTED points to `base`, the worst first."""
        pairs = [(rows[base], rows[other]) for rows in self.shifted.values() if {base, other} <= set(rows)]
        worse = [pair for pair in pairs if round(100 * (pair[0].accuracy - pair[1].accuracy), 6) > WITHIN_SHIFTED]
        return sorted(worse, key=lambda pair: pair[1].accuracy - pair[0].accuracy)

    @property
    def harness(self) -> dict[str, Pair]:
        """By policy, DFME given log p and given p for logits, at the largest budget of both; what the harness alone
        takes most from stands first."""
        found = {}
        for policy in self.policies:
            plain = {cell.budget: cell for cell in self.of(HARNESSED, policy=policy, labels="soft")}
            for cell in self.of(HARNESSED, HARNESS, policy=policy, labels="soft"):
                if cell.budget in plain:
                    found[policy] = Pair(plain[cell.budget], cell)
        return dict(sorted(found.items(), key=lambda each: each[1].points))

    @property
    def costs(self) -> list[tuple[EnsembleCostRow, float | None]]:
        """By batch, and the time of a policy that routes over that of the same members' mean."""
        known = {(row.batch, row.policy): row for row in self.report.ensemble_costs}
        base = {key: known.get((key[0], key[1].removesuffix(ROUTED))) for key in known if key[1].endswith(ROUTED)}
        return [(row, row.over(other) if (other := base.get(key)) else None) for key, row in sorted(known.items())]


def findings(studies: Sequence[Experiment], files: Sequence[Experiment]) -> Iterator[Finding]:
    """What it adds, what the attacker term buys, what shifted images lose, and what a routed response takes."""
    for each in studies:
        yield each.adds(MISLEADER)
        term = [pair for pair in each.pairs(DISTILLED, MISLEADER) if pair.counts]
        if term:
            worse, better = (sum(sign * pair.points > EVEN for pair in term) for sign in (-1, 1))
            change = mean(pair.points for pair in term)
            text = (
                f"{each.recipe}: the attacker term changes clones by {change:+.1f} points on average over {len(term)} "
                f"attackers: {worse} worse, {better} better{f', most {term[0]}' if better else ''}."
            )
            yield Finding(change < -EVEN and not better, text)
        if each.shifted:
            harmed = each.harmed(UNDEFENDED, MISLEADER)
            named = "; ".join(f"{b.shift} ({100 * a.accuracy:.2f} → {100 * b.accuracy:.2f})" for a, b in harmed[:2])
            text = (
                f"{each.recipe}: `{MISLEADER}` loses more than {WITHIN_SHIFTED:.0f} point to `{UNDEFENDED}` on "
                f"{len(harmed)} of {len(each.shifted)} kinds of shifted images{f': {named}' if named else ''}."
            )
            yield Finding(not harmed, text)
        yield each.costs_users(MISLEADER, MISLEADER + ROUTED, within=WITHIN)
        if fault := each.harness.get(UNDEFENDED):
            text = f"the released harness alone takes {-fault.points:.1f} points from DFME on `{UNDEFENDED}`: {fault}"
            yield Finding(-fault.points <= EVEN, f"{each.recipe}: {text}; no defense has earned them.")
    routed = [(row, over) for each in files for row, over in each.costs if row.hash_ms_rounds]
    late = [row for row, over in routed if row.times > ROUTED_OVER_DEAREST or (over or 0.0) > ROUTED_OVER_AVERAGED]
    if routed:
        text = (
            f"{len(late)} of {len(routed)} routed cells miss their targets, at most {ROUTED_OVER_DEAREST} times the "
            f"dearest member and {ROUTED_OVER_AVERAGED} times the mean; the slowest takes "
            f"{max(row.times for row, _ in routed):.2f} times its dearest member."
        )
        yield Finding(not late, text)


def slashed(value: float | None) -> str:
    """A setting, at most three significant digits; a dash for None."""
    return "-" if value is None else f"{value:.3g}"


def _most_lost(rows: dict[str, ShiftRow]) -> float:
    if UNDEFENDED not in rows:
        return 0.0
    return max(rows[UNDEFENDED].accuracy - row.accuracy for row in rows.values())


METHOD = Method(
    "misleader",
    Experiment,
    findings=findings,
    draw=lambda studies: heat_map(**studies[0].heat()) if studies[0].report.attacks else None,
    caption="Clone accuracy by policy and attacker",
    filters={"slashed": slashed},
    values={
        "trained": ShiftRow.TRAINED,
        "even": EVEN,
        "released": RELEASED_LAMBDA,
        "over_dearest": ROUTED_OVER_DEAREST,
        "over_averaged": ROUTED_OVER_AVERAGED,
    },
)
