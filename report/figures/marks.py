"""What each thief's clone says against it, as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import pyplot as plt

from report.figures.style import COLOURS, STYLE, svg
from report.rows.marks import MarkRow


def evidence(rows: Sequence[MarkRow], target: float) -> str:
    """A dot a clone at -log10 p, filled where its account is named, and a line at the target."""
    names = list(dict.fromkeys(row.thief for row in rows))
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, axis = plt.subplots(figsize=(8, 1.2 + 0.3 * len(names)))
        for row in rows:
            colour = COLOURS[1] if row.named else COLOURS[2]
            axis.plot(
                -math.log10(max(row.p, 1e-300)),
                names.index(row.thief),
                "o" if row.named else "X",
                color=colour,
                markersize=8,
            )
        axis.axvline(-math.log10(target), color="#000000", linestyle="--", linewidth=1)
        for label, marker, colour in (("named", "o", COLOURS[1]), ("not named", "X", COLOURS[2])):
            axis.plot([], [], marker, color=colour, label=label)
        axis.plot([], [], "--", color="#000000", linewidth=1, label=f"p = {target:g}")
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5), xlim=(-0.3, None))
        axis.set(xlabel="-log10 p, under redrawn keys")
        axis.tick_params(axis="y", length=0)
        figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3)
        return svg(figure, "marks")
