"""The report's figure of the impact on benign users: their latencies before and during each attack, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

from report.figures.style import COLOURS, STYLE, svg
from report.rows.impact import FeltRow

LOOKS = {"before": (COLOURS[0], "o", "before the attack"), "during": (COLOURS[2], "^", "during it")}


def latencies(rows: Sequence[FeltRow]) -> str:
    """A line an attack and stretch, from the median over the 95th to the 99th percentile, logarithmic."""
    names = list(dict.fromkeys(map(name, rows)))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9, 1.1 + 0.5 * len(names)))
        for stretch, (colour, marker, label) in LOOKS.items():
            axis.plot([], [], color=colour, marker=marker, markersize=5, label=label)
            for row in (row for row in rows if row.stretch == stretch):
                place = names.index(name(row)) + (0.15 if stretch == "during" else -0.15)
                marks = [mark for mark in (row.p50_ms, row.p95_ms, row.p99_ms) if mark is not None]
                axis.plot(marks, [place] * len(marks), color=colour, marker=marker, markersize=5)
        axis.set(xscale="log", xlabel="milliseconds: median, 95th and 99th percentile of benign requests")
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(visible=False, axis="y")
        figure.legend(loc="lower center", bbox_to_anchor=(0.5, 0.9), ncols=2)
        return svg(figure, "felt")


def name(row: FeltRow) -> str:
    """The attack of a row in words."""
    labels = "" if row.labels == "both" else f", {row.labels} labels"
    clients = "1 client" if row.clients == 1 else f"{row.clients} clients"
    diluted = f", {row.dilution} % diluted" if row.dilution else ""
    return f"{row.policy}: {row.attack}{labels}, {clients}{diluted}"
