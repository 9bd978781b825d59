"""results/meco-*.json to docs/results/meco.md and its figure: what MeCo costs, what it stops, what averages it away.

    python -m report.pages meco

Every number on the page comes from the results files, but the paper's (report/analysis/literature.py, the
template). Its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean, stdev

from report.analysis.finding import Finding
from report.analysis.literature import MECO
from report.analysis.noises import ABLATIONS, ATTACKING, BENIGN, DEFAULT, FRESH, GAUSSIAN, NOISES, Noises
from report.figures.heat_map import heat_map
from report.format import number, points, spread
from report.headline import UNDEFENDED
from report.pages.method import Method
from report.rows.gradients import GradientRow

# of the target, in points
WITHIN = 0.5
# an attacker that loses fewer points than this is not stopped
STOPPED = 5.0


def findings(studies: Sequence[Noises], files: Sequence[Noises]) -> Iterator[Finding]:
    """What the default stops and costs, and why it is the default."""
    for each in studies:
        pairs = [pair for pair in each.pairs(UNDEFENDED, DEFAULT) if pair.counts]
        weak = [pair for pair in pairs if -pair.points < STOPPED]
        named = f", so it does not stop them: {'; '.join(map(str, weak[:3]))}" if weak else ""
        text = (
            f"{each.recipe}: {len(weak)} of {len(pairs)} attackers that do well on `{UNDEFENDED}` lose fewer than "
            f"{STOPPED:.0f} points to `{DEFAULT}`{named}."
        )
        yield Finding(not weak if pairs else None, text)
        yield each.adds(DEFAULT)
        yield each.costs_users(FRESH, DEFAULT, within=WITHIN)
        learned, gaussian = (each.largest(name, "soft", "log-p") for name in (FRESH, GAUSSIAN))
        if learned and gaussian:
            bought = round(100 * (gaussian.accuracy - learned.accuracy), 1)
            text = (
                f"{each.recipe}: learning the noise buys {bought} points: clones of logits reach {spread(learned)} of "
                f"`{FRESH}` and {spread(gaussian)} of untrained Gaussian noise that costs users as little."
            )
            yield Finding(bought >= 1, text)
        gain = {choice.policy: choice.gain["identical"] for choice in each.choices if "identical" in choice.gain}
        if {FRESH, DEFAULT} <= set(gain):
            text = (
                f"{each.recipe}: identical copies of an image gain {points(gain[FRESH])} points on fresh noise and "
                f"{points(gain[DEFAULT])} on keyed noise, for as many images."
            )
            yield Finding(gain[DEFAULT] < gain[FRESH], text)
    slow = [
        (row.times, row.architecture) for each in files for row in each.report.defense_costs if row.defense == DEFAULT
    ]
    if slow:
        yield Finding(True, f"`{DEFAULT}` takes up to {max(slow)[0]:.2f} times the victim's time ({max(slow)[1]}).")


def draw(studies: Sequence[Noises]) -> str | None:
    """The attackers without copies of the first experiment, on the policies that most of them were measured on."""
    first = studies[0]
    return heat_map(**first.heat(policies=first.compared)) if first.report.attacks else None


def draws(values: Sequence[float], digits: int) -> str:
    """The mean over draws of noise, and their standard deviation where there are several."""
    deviation = f" ± {number(stdev(values), digits)}" if len(values) > 1 else ""
    return f"{number(mean(values), digits)}{deviation}"


def cosine(row: GradientRow | None) -> str:
    """The cosine and its standard deviation over images; a dash for None."""
    return "-" if row is None else f"{row.cosine:.2f} ± {row.deviation:.2f}"


METHOD = Method(
    "meco",
    Noises,
    findings=findings,
    draw=draw,
    caption="Clone accuracy by policy and attacker",
    filters={"draws": draws, "cosine": cosine},
    values={
        "default": DEFAULT,
        "noises": NOISES,
        "descriptions": ABLATIONS,
        "benign": BENIGN,
        "attacking": ATTACKING,
        "paper": MECO,
    },
)
