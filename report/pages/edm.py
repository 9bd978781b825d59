"""results/edm-*.json to docs/results/edm.md and its figure: EDM's tables measured again, next to the paper's.

    python -m report.pages edm

Every number on the page comes from the results files, but the paper's (report/analysis/literature.py). Its
sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from attacks.names import COPIES, LABELS
from report.analysis import literature
from report.analysis.finding import Finding
from report.analysis.study import Pair, Study
from report.figures.heat_map import heat_map
from report.format import number, percent, spread
from report.headline import UNDEFENDED
from report.pages.method import Method
from report.rows.routing import CoherenceRow, entropy

REGULAR, EDM = "ensemble", "edm"
# targets, in points: the undefended clone reaches, EDM's clone lies below it, users lose at most
NEAR, LOWER, WITHIN = 85.0, 25.0, 0.5


@dataclass(frozen=True)
class Experiment(Study):
    """One results file, with the look-ups that the page needs."""

    @property
    def paper(self) -> literature.EDM | None:
        return literature.EDM_PRINTS.get(self.dataset)

    def both(self, policy: str, labels: str) -> Pair | None:
        """Knockoff's clones of `undefended` and of a policy at the largest budget that both have."""
        found = (pair for pair in self.pairs(UNDEFENDED, policy) if pair.base.labels == labels)
        return next((pair for pair in found if pair.base.attack == "knockoff"), None)

    @property
    def averaged(self) -> Iterator[tuple[str, Pair]]:
        """(policy, Knockoff's plain clone and the one of COPIES copies of each image, of as many images)."""
        for policy in self.policies:
            for labels in LABELS:
                plain = {cell.budget: cell for cell in self.of("knockoff", policy=policy, labels=labels)}
                for cell in self.of("knockoff", "averaging", policy=policy, labels=labels):
                    if cell.budget // COPIES in plain:
                        yield policy, Pair(plain[cell.budget // COPIES], cell)

    @property
    def hashes(self) -> Iterator[tuple[str, float, dict[str, float]]]:
        """(hash, entropy of its least balanced traffic over that of equal shares, by traffic the share of transformed
        copies that keep their member at the middle strength)."""
        strengths = sorted({row.degrees for row in self.report.invariance})
        for name in dict.fromkeys(row.policy for row in self.report.invariance):
            counts: dict[str, list[int]] = {}
            for row in self.report.routing:
                if row.policy == name:
                    counts.setdefault(row.traffic, []).append(row.rows)
            mine = [row for row in self.report.invariance if row.policy == name]
            kept = {row.traffic: row.kept for row in mine if row.degrees == strengths[len(strengths) // 2]}
            yield name, min(map(entropy, counts.values()), default=0.0), kept

    def coherence(self, policy: str) -> list[CoherenceRow]:
        return [row for row in self.report.coherence if row.policy == policy]


def findings(studies: Sequence[Experiment], _: Sequence[Experiment]) -> Iterator[Finding]:
    """The targets, and what routing alone and the averaging attacker do, of soft labels."""
    informed = (
        "Attackers that have read EDM's paper unmix its members' probabilities, with no further query: "
        "[unmixing.md](unmixing.md). Serve its labels. The attackers of this page have not read it."
    )
    yield Finding(False, informed)
    for each in studies:
        yield from (_lowered(each, EDM, "EDM"), _lowered(each, REGULAR, "routing members not trained to disagree"))
        yield each.costs_users(EDM, within=WITHIN)
        for policy, pair in each.averaged:
            if (policy, pair.base.labels) == (EDM, "soft"):
                text = (
                    f"{each.recipe}: the averaging attacker moves EDM's clone from {spread(pair.base)} to "
                    f"{spread(pair.other)} ({pair.points:+.1f} points) with as many images, {COPIES} times the queries."
                )
                yield Finding(pair.points <= 0, text)
        both = each.both(EDM, "soft")
        if each.dataset == "mnist" and both:
            text = f"{each.recipe}: the undefended clone reaches {spread(both.base)}; at least {NEAR:.0f} was asked."
            yield Finding(100 * both.base.accuracy >= NEAR, text)


def _lowered(each: Experiment, policy: str, what: str) -> Finding:
    pair = each.both(policy, "soft")
    if pair is None:
        return Finding(None, f"{each.recipe}: clones of `{policy}` from soft labels.")
    text = (
        f"{each.recipe}: {what} lowers Knockoff's clone by {-pair.points:.1f} points ({spread(pair.base)} → "
        f"{spread(pair.other)}, soft labels, {number(pair.base.budget, 0)} queries); at least {LOWER:.0f} was asked."
    )
    return Finding(-pair.points >= LOWER, text)


def draw(studies: Sequence[Experiment]) -> str | None:
    """Every clone of every experiment."""
    heats = [each.heat(f"{each.recipe},\n") for each in studies if each.report.attacks]
    if not heats:
        return None
    return heat_map(
        {title: panel for heat in heats for title, panel in heat["panels"].items()},
        rows=list(dict.fromkeys(row for heat in heats for row in heat["rows"])),
        columns=list(dict.fromkeys(column for heat in heats for column in heat["columns"])),
        void={square for heat in heats for square in heat["void"]},
    )


METHOD = Method(
    "edm",
    Experiment,
    findings=findings,
    draw=draw,
    caption="Clone accuracy by policy and attacker",
    values={
        "regular": REGULAR,
        "edm": EDM,
        "percents": lambda kept: ", ".join(
            f"{name.replace('thief (', 'attacker (')} {percent(share)}" for name, share in kept.items()
        ),
    },
)
