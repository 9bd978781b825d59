"""Where an ensemble's rows go, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot as plt

from report.figures.style import COLOURS, STYLE, svg
from report.rows.routing import RoutingRow


def routing(rows: Sequence[RoutingRow]) -> str:
    """Share of each kind of traffic that each member answers, for the rows of one policy."""
    kinds = list(dict.fromkeys(row.traffic for row in rows))
    members = 1 + max(row.member for row in rows)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9, 2.8))
        width = 0.8 / len(kinds)
        for number, kind in enumerate(kinds):
            mine = [row for row in rows if row.traffic == kind]
            total = sum(row.rows for row in mine)
            places = [row.member + (number - (len(kinds) - 1) / 2) * width for row in mine]
            bars = axis.bar(
                places, [row.rows / total for row in mine], width * 0.92, color=COLOURS[1 + number], label=kind
            )
            axis.bar_label(bars, fmt=lambda share: f"{share:.0%}", fontsize=8, padding=1)
        axis.axhline(1 / members, color="#999999", linestyle="--", linewidth=1)
        axis.set(xticks=range(members), xticklabels=[f"member {number}" for number in range(members)])
        axis.set(ylabel="share of rows", ylim=(0, 1.08))
        axis.grid(visible=False, axis="x")
        figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=len(kinds))
        return svg(figure, "routing")
