"""Clone accuracy against the queries that were charged for, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt

from report.figures.style import COLOURS, MARKERS, STYLE, svg
from report.headline import Cell


def curves(cells: Mapping[str, Sequence[Cell]], *, chance: float | None, victim: float | None) -> str:
    """Clone accuracy against charged queries: a panel for each reading of the answers, a line a policy and attack.

    cells: by policy, as report.headline.cells gives them. The band is one standard deviation over seeds.
    chance, victim: accuracies drawn as reference lines.
    """
    readings = [labels for labels in ("soft", "hard") if any(c.labels == labels for cs in cells.values() for c in cs)]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(readings), figsize=(9, 3.6), sharey=True, squeeze=False)
        for axis, labels in zip(axes[0], readings, strict=True):
            for number, (policy, points) in enumerate(cells.items()):
                for attack in dict.fromkeys(cell.attack for cell in points):
                    line = [cell for cell in points if cell.labels == labels and cell.attack == attack]
                    _curve(axis, line, number, f"{policy}, {attack}")
            axis.set(title=f"{labels} labels", xlabel="charged queries", ylim=(0, 1.09))
            axis.set_xlim(left=0)
            for level, name in ((victim, "undefended victim"), (chance, "guessing")):
                if level is not None:
                    axis.axhline(level, color="#999999", linestyle="--", linewidth=1)
                    where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
                    axis.annotate(name, (0, level), (3, 3), color="#666666", fontsize=8, **where)
        axes[0][0].set_ylabel("clone accuracy")
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3)
        return svg(figure, "curves")


def _curve(axis: Any, line: Sequence[Cell], number: int, name: str) -> None:
    if not line:
        return
    budgets = [cell.queries if cell.short else cell.budget for cell in line]
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axis.plot(budgets, [cell.accuracy for cell in line], color=colour, marker=marker, label=name)
    axis.fill_between(
        budgets,
        [cell.accuracy - cell.spread for cell in line],
        [cell.accuracy + cell.spread for cell in line],
        color=colour,
        alpha=0.18,
        linewidth=0,
    )
