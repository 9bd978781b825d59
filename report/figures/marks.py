"""What each thief's clone says against it, as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt

from report.figures.style import COLOURS, STYLE, svg
from report.rows.marks import MarkRow


def evidence(studies: Mapping[str, Sequence[MarkRow]], target: float) -> str:
    """A panel a recipe: a dot a clone at -log10 p, filled where its account is named, and a line at the target. Thieves
    stand in the order of the best hidden clone anywhere."""
    rows = sorted((row for each in studies.values() for row in each), key=lambda row: -row.p)
    names = list(dict.fromkeys(row.thief for row in rows))
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        size = (3.6 + 2.4 * len(studies), 1.2 + 0.28 * len(names))
        figure, axes = plt.subplots(1, len(studies), figsize=size, sharex=True, sharey=True, squeeze=False)
        for axis, (recipe, clones) in zip(axes[0], studies.items(), strict=True):
            for row in clones:
                axis.plot(
                    -math.log10(max(row.p, 1e-300)),
                    names.index(row.thief),
                    "o" if row.named else "X",
                    color=COLOURS[1] if row.named else COLOURS[2],
                    markersize=7,
                    alpha=0.8,
                )
            axis.axvline(-math.log10(target), color="#000000", linestyle="--", linewidth=1)
            axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5), xlim=(-0.4, None))
            axis.set_title(recipe, fontsize=10)
            axis.tick_params(axis="y", length=0)
        for label, marker, colour in (("named", "o", COLOURS[1]), ("not named", "X", COLOURS[2])):
            axes[0][0].plot([], [], marker, color=colour, label=label)
        axes[0][0].plot([], [], "--", color="#000000", linewidth=1, label=f"p = {target:g}")
        figure.supxlabel("-log10 p, under redrawn keys", fontsize=10)
        figure.tight_layout()
        figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3)
        return svg(figure, "marks")
