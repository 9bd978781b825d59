"""The report's figures as inline SVG: no script, no network, readable in print and without colour.

Policies differ by colour (Okabe and Ito's palette, told apart by colour-blind readers) and by marker.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from handlers import wire
from loadtests.headline import Cell
from loadtests.results import BenchRow, CoherenceRow, RoutingRow

COLOURS = ("#555555", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def curves(cells: Mapping[str, Sequence[Cell]], *, chance: float | None, victim: float | None) -> str:
    """Clone accuracy against charged queries: a panel for each reading of the answers, a line a policy and attack.

    cells: by policy, as loadtests.headline.cells gives them. The band is one standard deviation over seeds.
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
        return _svg(figure, "curves")


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
        return _svg(figure, "routing")


def row_time(rows: Sequence[BenchRow]) -> str:
    """Worker time of a row over HTTP by stage: a panel a network, a bar a policy, backend and body."""
    stages = ("decode", "route", "predict", "respond", "encode", "outside the handler")
    architectures = list(dict.fromkeys(row.architecture for row in rows))
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, axes = plt.subplots(1, len(architectures), figsize=(11, 3.6), squeeze=False)
        for axis, architecture in zip(axes[0], architectures, strict=True):
            mine = [row for row in rows if row.architecture == architecture]
            names = [f"{row.policy}, {row.backend}, {'PNG' if row.body == wire.PNG else 'raw'}" for row in mine]
            left = [0.0] * len(mine)
            for stage, colour in zip(stages, COLOURS[1:], strict=True):
                widths = [row.stages_ms.get(stage, 0.0) if stage in stages[:-1] else row.outside_ms for row in mine]
                axis.barh(names, widths, left=left, color=colour, label=stage)
                left = [start + width for start, width in zip(left, widths, strict=True)]
            axis.invert_yaxis()
            axis.grid(visible=False, axis="y")
            axis.set(title=architecture, xlabel="worker milliseconds a row")
        figure.tight_layout()
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=6)
        return _svg(figure, "row-time")


def coherence(panels: Mapping[str, Sequence[CoherenceRow]]) -> str:
    """Cumulative distribution of coherence on a thief's images: a panel an experiment, a line a policy."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.2), sharey=True, squeeze=False)
        for axis, (name, rows) in zip(axes[0], panels.items(), strict=True):
            for number, row in enumerate(rows):
                axis.plot(row.percentiles, [share / 100 for share in range(101)], COLOURS[number], label=row.policy)
            axis.set(title=name, xlabel="coherence", xlim=(0, 1), ylim=(0, 1))
        axes[0][0].set_ylabel("share of images")
        axes[0][0].legend(loc="upper left")
        figure.tight_layout()
        return _svg(figure, "coherence")


def copies(panels: Mapping[str, Mapping[str, Sequence[int]]]) -> str:
    """EDM's Figure 6: of an image's transformed copies, the share at its most frequent member, its second, ..."""
    columns = 2
    with plt.rc_context(STYLE):
        lines = -(-len(panels) // columns)
        figure, axes = plt.subplots(lines, columns, figsize=(9, 2.8 * lines), sharey=True, squeeze=False)
        for axis, (name, hashes) in zip(axes.flat, panels.items(), strict=False):
            width = 0.8 / len(hashes)
            for number, (policy, counts) in enumerate(hashes.items()):
                places = [rank + 1 + (number - (len(hashes) - 1) / 2) * width for rank in range(len(counts))]
                shares = [count / sum(counts) for count in counts]
                axis.bar(places, shares, width, color=COLOURS[number], label=policy)
            axis.set(title=name, ylim=(0, 1))
            axis.set_xticks(range(1, 1 + max(map(len, hashes.values()))))
        for axis in axes[-1]:
            axis.set_xlabel("member, by its share of an image's copies")
        for axis in axes[:, 0]:
            axis.set_ylabel("share of copies")
        axes[0][0].legend()
        figure.tight_layout()
        return _svg(figure, "copies")


def _curve(axis: Any, line: Sequence[Cell], number: int, name: str) -> None:
    if not line:
        return
    budgets = [cell.budget for cell in line]
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


def _svg(figure: Any, name: str) -> str:
    """The figure as an <svg> element; `name` keeps the ids of several figures on one page apart."""
    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]
