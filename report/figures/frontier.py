"""What scores refuse of tuned attackers against what they refuse of customers, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import pyplot as plt

from report.figures.style import COLOURS, MARKERS, STYLE, svg


@dataclass(frozen=True)
class Point:
    """customers, attackers: shares that are refused. kind: which colour and marker. hollow: drawn empty. named: whether
    its name stands beside it."""

    name: str
    customers: float
    attackers: float
    kind: str
    hollow: bool
    named: bool


def frontier(tasks: Mapping[str, Sequence[Point]], *, kinds: Sequence[str]) -> str:
    """A panel a task, by name; a mark for each score. On the dotted line customers are refused as attackers are."""
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, panels = plt.subplots(
            1, len(tasks), figsize=(4.8 * len(tasks), 4.8), squeeze=False, layout="constrained"
        )
        for axis, (task, points) in zip(panels[0], tasks.items(), strict=True):
            axis.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
            for point in points:
                number = kinds.index(point.kind)
                colour = COLOURS[1 + number]
                face = "none" if point.hollow else colour
                axis.plot(
                    point.customers,
                    point.attackers,
                    marker=MARKERS[number],
                    color=colour,
                    markerfacecolor=face,
                    linestyle="none",
                )
                if point.named:
                    axis.annotate(
                        point.name,
                        (point.customers, point.attackers),
                        textcoords="offset points",
                        xytext=(6, 4),
                        fontsize=8,
                    )
            axis.set(title=task, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            axis.set(
                xlabel="customers' images refused after the worst shift",
                ylabel="tuned attackers' queries refused, mean",
            )
        for number, kind in enumerate(kinds):
            panels[0][0].plot([], [], label=kind, marker=MARKERS[number], color=COLOURS[1 + number], linestyle="none")
        figure.legend(loc="outside lower center", ncols=len(kinds))
        return svg(figure, "frontier")
