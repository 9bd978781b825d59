"""How well thieves estimate gradients, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from report.figures.style import STYLE, pair, svg
from report.rows.gradients import GradientRow


def cosines(rows: Sequence[GradientRow]) -> str:
    """Cosine of the estimated and the true gradient against the probe's length (log): a panel a kind of traffic.

    A line a policy and number of repeats, more than one dashed. The band holds 95 % of means that see nothing.
    """
    kinds = list(dict.fromkeys(row.traffic for row in rows))
    policies = list(dict.fromkeys(row.policy for row in rows))
    repeats = sorted({row.repeats for row in rows})
    lowest = min(-0.1, min(row.cosine for row in rows) - 0.05)
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, axes = plt.subplots(1, len(kinds), figsize=(4.8 * len(kinds), 3.4), sharey=True, squeeze=False)
        for axis, kind in zip(axes[0], kinds, strict=True):
            for number, policy in enumerate(policies):
                for count in repeats:
                    line = [row for row in rows if (row.traffic, row.policy, row.repeats) == (kind, policy, count)]
                    line.sort(key=lambda row: row.epsilon)
                    manner = pair(number, second=count != repeats[0])
                    axis.plot([row.epsilon for row in line], [row.cosine for row in line], **manner)
            chance = max(2 / (row.directions * row.images) ** 0.5 for row in rows if row.traffic == kind)
            axis.axhspan(-chance, chance, color="#cccccc", alpha=0.5, linewidth=0)
            axis.set_title(kind, fontsize=10)
            axis.set(xscale="log", xlabel="length of a probe, epsilon", ylim=(lowest, 1.05))
            axis.minorticks_off()
        axes[0][0].set_ylabel("cosine with the true gradient")
        figure.tight_layout()
        handles: list[Any] = [
            Line2D([], [], label=f"{policy}, {told}", **pair(number, second=count != repeats[0]))
            for number, policy in enumerate(policies)
            for count in repeats
            for told in ["one answer" if count == 1 else f"mean of {count}"]
        ]
        handles.append(Patch(facecolor="#cccccc", alpha=0.5, label="as good as chance"))
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3)
        return svg(figure, "cosines")
