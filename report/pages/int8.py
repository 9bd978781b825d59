"""results/int8-*.json to docs/results/int8.md: what 8 bits cost a policy's users, and what they give its attackers.

python -m report.pages int8
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot
from pathlib import Path

from report.headline import Cell, by_attacker
from report.pages import page
from report.schema import Report, ResultError, read

# of the rule of acceptance (export/quantise.py)
DROP, AGREEMENT = 0.002, 0.995
SUFFIX = "-int8"


@dataclass(frozen=True)
class Pair:
    """One attacker's clone of a policy in 8 bits, and of its float32 twin."""

    recipe: str
    policy: str
    narrow: Cell
    full: Cell

    @property
    def more(self) -> float:
        """How much better the clone of 8 bits is, as a fraction of test images."""
        return self.narrow.accuracy - self.full.accuracy

    @property
    def noise(self) -> float | None:
        """Standard deviation of `more` over the clones' seeds; None where one was trained."""
        both = (self.narrow, self.full)
        if any(len(each.accuracies) < 2 for each in both):
            return None
        return hypot(*(each.spread for each in both))


def pages(results: Path) -> dict[str, str]:
    """The page, by file name below docs/. Raises ResultError."""
    files = sorted(results.glob("int8-*.json"))
    if not files:
        raise ResultError(f"{results}: no int8-*.json; run `make reproduce-int8 RECIPE=mnist` first")
    return {"results/int8.md": render([read(path) for path in files])}


def render(reports: list[Report]) -> str:
    """The page; what lies outside the rule on the test split stands first, then what attackers gain most by."""
    rows = [row for report in reports for row in report.quantised]
    if not rows:
        raise ResultError("quantised: expected rows, got none")
    holds = {
        row: row.agreement >= AGREEMENT and row.accuracy >= row.float32_accuracy - DROP
        for row in sorted(rows, key=lambda row: (row.recipe, row.policy))
    }
    found = sorted((pair for report in reports for pair in pairs(report)), key=lambda pair: -pair.more)
    return page.render(
        "int8.md.j2",
        runs=[report.run for report in reports],
        rows=sorted(holds, key=lambda row: holds[row]),
        holds=holds,
        inside=sum(holds.values()),
        drop=DROP,
        least=AGREEMENT,
        pairs=found,
        better=[pair for pair in found if pair.more > 0],
    )


def pairs(report: Report) -> Iterator[Pair]:
    """Every attacker of a policy in 8 bits that met its twin too, each at the largest budget of both."""
    for policy in dict.fromkeys(row.policy for row in report.attacks):
        if not policy.endswith(SUFFIX):
            continue
        twins = by_attacker(report, policy.removesuffix(SUFFIX))
        for key, narrow in by_attacker(report, policy).items():
            if key in twins and twins[key].budget == narrow.budget:
                yield Pair(report.attacks[0].recipe, policy, narrow, twins[key])
