"""What each attacker had before its first query, and what it got behind each policy, as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt

from report.figures.style import STYLE, manner, svg
from report.headline import Cell


def bought(attackers: Mapping[str, Mapping[str, Cell]], *, policies: Sequence[str]) -> str:
    """A line an attacker, from its clone without a query to its best one: a bar for the former, a mark for each policy.

    attackers: by name and policy, top to bottom. Where nobody measured what an attacker could train without a query
    there is no bar.
    """
    every = [cell for by_policy in attackers.values() for cell in by_policy.values()]
    lowest = min(min(cell.accuracy, cell.accuracy if cell.no_query is None else cell.no_query) for cell in every)
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, axis = plt.subplots(figsize=(9, 1.2 + 0.34 * len(attackers)))
        for number, by_policy in enumerate(attackers.values()):
            known = [cell.accuracy for cell in by_policy.values()]
            before = [cell.no_query for cell in by_policy.values() if cell.no_query is not None]
            axis.hlines(number, min(known + before), max(known + before), color="#cccccc", linewidth=2, zorder=1)
            if before:
                axis.plot(before[0], number, "|", color="#000000", markersize=14, markeredgewidth=2)
            for place, policy in enumerate(policies):
                if policy in by_policy:
                    style = {**manner(place, len(policies)), "linestyle": "none"}
                    axis.plot(by_policy[policy].accuracy, number, **style)
        axis.plot([], [], "|", color="#000000", markersize=14, markeredgewidth=2, label="without a query")
        for place, policy in enumerate(policies):
            axis.plot([], [], label=policy, **{**manner(place, len(policies)), "linestyle": "none"})
        axis.set(yticks=range(len(attackers)), yticklabels=list(attackers), ylim=(len(attackers) - 0.5, -0.5))
        # what is alike lies within a few points: the axis begins a little before the lowest of them
        axis.set(xlabel="clone accuracy", xlim=(max(0.0, math.floor(20 * lowest - 0.2) / 20), 1.01))
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=1 + len(policies))
        return svg(figure, "bought")
