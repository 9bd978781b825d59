"""Attackers against policies as a heat map."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.patches import Patch, Rectangle

from report.figures.style import STYLE, svg


def heat_map(
    panels: Mapping[str, Mapping[tuple[str, str], tuple[float, str]]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    void: Collection[tuple[str, str, str]] = (),
) -> str:
    """Shares in [0, 1] as coloured squares with their percentage, one panel next to the other.

    panels: by title, the value of (row, column) and a few letters to print below it, or "". void: (panel, row, column)
    where there is nothing to measure; they stay blank. Any other square without a value is hatched: not measured.
    """
    # about 1,000 pixels at most, however many policies there are
    width, height = min(10.2, 2.4 + 0.5 * len(columns) * len(panels)), 1.6 + 0.36 * len(rows)
    with plt.rc_context({**STYLE, "figure.facecolor": "white", "axes.grid": False, "hatch.linewidth": 0.8}):
        figure, axes = plt.subplots(1, len(panels), figsize=(width, height), sharey=True, squeeze=False)
        colours = plt.get_cmap("YlGnBu")
        for axis, (title, values) in zip(axes[0], panels.items(), strict=True):
            for y, row in enumerate(rows):
                for x, column in enumerate(columns):
                    if (row, column) in values:
                        _square(axis, x, y, *values[row, column], colours)
                    elif (title, row, column) not in void:
                        axis.add_patch(_unmeasured(x, y, f"not-measured-{title}-{row}-{column}".replace(" ", "-")))
            axis.set(title=title, xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
            axis.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
            axis.set_yticks(range(len(rows)), rows)
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        figure.tight_layout(w_pad=1.0)
        hatched = Patch(facecolor="white", edgecolor="#888888", hatch="/////", linewidth=0, label="not measured")
        blank = Patch(facecolor="white", edgecolor="#cccccc", linewidth=1, label="nothing to measure")
        figure.legend(handles=[hatched, blank], loc="upper center", bbox_to_anchor=(0.5, 0.01), ncols=2)
        return svg(figure, "heat-map")


def _square(axis: Any, x: int, y: int, value: float, below: str, colours: Any) -> None:
    """One coloured square with its number, and a few letters below it."""
    axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colours(value), edgecolor="white", linewidth=1))
    ink = "white" if value > 0.6 else "black"
    axis.text(x, y - (0.14 if below else 0), f"{100 * value:.1f}", color=ink, ha="center", va="center", fontsize=8.5)
    if below:
        axis.text(x, y + 0.26, below, color=ink, ha="center", va="center", fontsize=6.5)


def _unmeasured(x: int, y: int, name: str) -> Rectangle:
    """A hatched square; `name` is its id in the SVG."""
    patch = Rectangle(
        (x - 0.46, y - 0.46), 0.92, 0.92, facecolor="white", edgecolor="#888888", hatch="/////", linewidth=0
    )
    patch.set_gid(name)
    return patch
