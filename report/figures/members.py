"""Figures of what an ensemble's parts do to its thieves and to its users' shifted images, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from report.figures.style import MARKERS, MORE_COLOURS, STYLE, svg
from report.rows.members import ShiftRow

WHITE: dict[Any, Any] = {**STYLE, "figure.facecolor": "white"}


def changes(comparisons: Mapping[str, Mapping[str, tuple[float, bool]]], *, thieves: Sequence[str], even: float) -> str:
    """What becomes of each thief's clone, in points: a line a thief, a marker a comparison; left of 0 it got less.

    comparisons: by name and thief, the change of its clone's accuracy as a fraction, and whether there was something to
    take from it: hollow where not. even: points within which a change counts for nothing, a grey band.
    """
    with plt.rc_context(WHITE):
        figure, axis = plt.subplots(figsize=_size(thieves, len(comparisons)))
        for number, found in enumerate(comparisons.values()):
            for thief, (change, counted) in found.items():
                place = thieves.index(thief) + _beside(number, len(comparisons))
                axis.plot(100 * change, place, **_dot(number, hollow=not counted))
        axis.axvspan(-even, even, color="#cccccc", alpha=0.5, linewidth=0)
        axis.axvline(0, color="#333333", linewidth=1)
        _lines(axis, thieves)
        axis.set(xlabel="change of the clone's accuracy, points")
        figure.tight_layout()
        _legend(figure, list(comparisons))
        return svg(figure, "changes")


def shifts(rows: Sequence[ShiftRow]) -> str:
    """Accuracy after each benign shift: a line a shift, a marker a policy, both in the order of `rows`."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    kinds = list(dict.fromkeys(row.shift for row in rows))
    with plt.rc_context(WHITE):
        figure, axis = plt.subplots(figsize=_size(kinds, len(policies)))
        for row in rows:
            number = policies.index(row.policy)
            place = kinds.index(row.shift) + _beside(number, len(policies))
            axis.plot(100 * row.accuracy, place, **_dot(number))
        _lines(axis, kinds)
        axis.set(xlabel="accuracy, %")
        figure.tight_layout()
        _legend(figure, policies)
        return svg(figure, "shifts")


def _size(names: Sequence[str], markers: int) -> tuple[float, float]:
    """Of a figure with a line a name, each high enough for its markers; inches."""
    return 9, 1.2 + (0.18 + 0.06 * markers) * len(names)


def _lines(axis: Any, names: Sequence[str]) -> None:
    """A line a name, the first on top, with a thin rule between neighbours."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    for number in range(1, len(names)):
        axis.axhline(number - 0.5, color="#eeeeee", linewidth=0.8, zorder=0)


def _beside(number: int, count: int) -> float:
    """Where marker `number` of `count` lies about its line."""
    return 0.7 * ((number + 0.5) / count - 0.5)


def _dot(number: int, *, hollow: bool = False) -> dict[str, Any]:
    colour = MORE_COLOURS[number % len(MORE_COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 6,
        "linestyle": "none",
        "markerfacecolor": "none" if hollow else colour,
    }


def _legend(figure: Any, names: Sequence[str]) -> None:
    handles = [Line2D([], [], label=name, **_dot(number)) for number, name in enumerate(names)]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.01), ncols=3)
