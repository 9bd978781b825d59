"""results/same-*.json to docs/results/same.md and its figure: what the gate sees, whom it hits, what it costs.

    python -m report.pages same

Every number on the page comes from the results files, but the paper's (report/analysis/literature.py). Its
sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from report.analysis.detection import DEFAULT, Detection
from report.analysis.finding import Finding
from report.figures import gates
from report.format import hundredth, number
from report.pages.method import Method
from report.rows.gates import FalsePositiveRow

REJECT = "same-reject"
# an attacker whose AUROC is below this is not detected well
SEEN = 0.9
# an attacker's campaign, for what it would pay
CAMPAIGN = 10_000


def findings(studies: Sequence[Detection], files: Sequence[Detection]) -> Iterator[Finding]:
    """What the default gate sees, whom it hits, and what it costs."""
    informed = (
        "The score measures how sharp and how dark an image is; attackers who know the gate tune that and pass "
        "([gate-aware.md](gate-aware.md)), and other scores fare otherwise ([gate-scores.md](gate-scores.md))."
    )
    yield Finding(False, f"{informed} Attackers of this page do not know it.")
    for each in studies:
        contests = each.contests
        if contests:
            least = contests[0]
            text = (
                f"{each.recipe}: `{each.default}` tells {least.title} apart with an AUROC of "
                f"{hundredth(least.default.auroc)} ({number(least.default.budget, 0)} queries; 50 is a guess), the "
                f"median over {len(contests)} cells is {hundredth(median(c.default.auroc for c in contests))}."
            )
            yield Finding(least.default.auroc >= SEEN, text)
            lost, short = [c for c in contests if c.lost], sum(c.short for c in contests)
            named = max(lost, key=lambda c: (c.rival.auroc if c.rival else 0) - c.default.auroc, default=None)
            worst = (
                f", most on {named.title}: {hundredth(named.default.auroc)} against {named.rival_cell}" if named else ""
            )
            text = (
                f"{each.recipe}: a baseline sees more in {len(lost)} of {len(contests)} cells{worst}; {short} fall "
                "short of the paper."
            )
            yield Finding(not lost and not short, text)
        kinds = [traffic for traffic, rows in each.flagged.items() if not any(row.malicious for row in rows.values())]
        if kinds:
            worst = ", ".join(f"{row.traffic} {hundredth(row.flagged)} % (`{row.policy}`)" for row in each.hit[:4])
            text = (
                f"{each.recipe}: {len(each.hit)} of {len(kinds)} kinds of benign traffic are flagged more often than "
                f"the threshold was calibrated for{f': {worst}' if worst else ''}."
            )
            yield Finding(not each.hit, text)
        if each.report.attacks:
            yield each.adds(REJECT)
    costs = [(row.ratio, each.recipe) for each in files for row in each.report.gate_costs if row.policy == DEFAULT]
    if costs:
        (low, small), (high, large) = min(costs), max(costs)
        text = f"`{DEFAULT}` takes {low:.2f} ({small}) to {high:.2f} ({large}) times the undefended policy's time."
        yield Finding(True, text)


def interval(row: FalsePositiveRow | None) -> str:
    """The share flagged and its interval, in percent; bold where benign rows suffer beyond chance; a dash for None."""
    if row is None:
        return "-"
    bold = "**" if not row.malicious and row.low > row.stated else ""
    return f"{bold}{hundredth(row.flagged)}{bold} ({hundredth(row.low)} to {hundredth(row.high)})"


METHOD = Method(
    "same",
    Detection,
    findings=findings,
    draw=lambda studies: gates.flagged(rows) if (rows := studies[0].report.false_positives) else None,
    caption="Share of rows flagged, by traffic",
    filters={"interval": interval},
    values={"campaign": CAMPAIGN},
)
