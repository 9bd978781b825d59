"""A soak over time as SVG: latency in the upper panel, memory in the lower one, with the fifths that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

from report.figures.style import COLOURS, STYLE, svg
from report.rows.soak import FIFTHS, JAVA, Sample, Window


def over_time(windows: Sequence[Window], samples: Sequence[Sample]) -> str:
    """Benign latency of each window, and the memory (PSS) of Java and of each worker."""
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 5.4), sharex=True)
        minutes = [window.at / 60 for window in windows]
        for name, colour in (("p50", COLOURS[1]), ("p99", COLOURS[2])):
            upper.plot(
                minutes, [getattr(each, f"{name}_ms") or float("nan") for each in windows], color=colour, label=name
            )
        upper.set(ylabel="latency (ms)", yscale="log")
        upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        upper.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        upper.yaxis.set_minor_locator(NullLocator())
        upper.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        _memory(lower, samples)
        length = (windows[-1].at + (windows[1].at - windows[0].at if len(windows) > 1 else 0)) / 60 if windows else 0
        for axis in (upper, lower):
            for number in (1, FIFTHS - 1):
                axis.axvspan(number * length / FIFTHS, (number + 1) * length / FIFTHS, color="#f0f0f0", zorder=0)
        return svg(figure, "soak")


def _memory(axis: Any, samples: Sequence[Sample]) -> None:
    minutes = [sample.at / 60 for sample in samples]
    names = list(dict.fromkeys(process.name for sample in samples for process in sample.processes))
    for name in names:
        mine = {sample.at / 60: each.pss_mb for sample in samples for each in sample.processes if each.name == name}
        colour, width = (COLOURS[2], 1.6) if name == JAVA else (COLOURS[0], 0.9)
        axis.plot(list(mine), list(mine.values()), color=colour, linewidth=width)
        # workers hold much the same, so that one label is all that can be read
        label = "Java" if name == JAVA else "each worker" if name == names[-1] else ""
        where = {"textcoords": "offset points", "fontsize": 8, "va": "center"}
        axis.annotate(label, (list(mine)[-1], list(mine.values())[-1]), (4, 0), **where)
    axis.plot(minutes, [sample.pss_mb for sample in samples], color="black", linewidth=1.6, label="all processes")
    axis.set(xlabel="minutes", ylabel="memory, PSS (MB)")
    axis.set_ylim(bottom=0)
    axis.legend(loc="center right")
