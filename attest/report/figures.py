"""Clone accuracy against queries and their price, a line a thief, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

from attest.measured import Measured
from report.figures.style import STYLE, manner, svg
from report.format import number


def curves(measured: Measured) -> str:
    """All thieves in one panel; the band is the exam's 95 % interval. Prices stand on top, where there are any."""
    with plt.rc_context({**STYLE, "figure.facecolor": "white", "font.size": 9}):
        figure, axis = plt.subplots(figsize=(8.4, 3.1))
        shown = [curve for curve in measured.curves if curve.points]
        for place, curve in enumerate(shown):
            style = manner(place, len(shown))
            style = {**style, "linewidth": 1 + style["linewidth"] / 3, "markersize": 5}
            start = [] if curve.no_query_accuracy is None else [(0, curve.no_query_accuracy)]
            line = start + [(point.queries, point.accuracy) for point in curve.points]
            axis.plot(*zip(*line, strict=True), label=f"{curve.thief}, {curve.labels} labels", **style)
            queries = [point.queries for point in curve.points]
            low, high = [point.low for point in curve.points], [point.high for point in curve.points]
            axis.fill_between(queries, low, high, color=style["color"], alpha=0.15, linewidth=0)
        _levels(axis, measured)
        axis.set(xlabel="queries", ylabel="clone accuracy", ylim=(0, 1.05), xlim=(0, None))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 0)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        target = measured.target
        if target.price_per_1000:
            top = axis.secondary_xaxis("top", functions=_prices(target.price_per_1000 / 1000))
            top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 2)))
            top.set_xlabel(f"price of the queries, {target.currency}")
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return svg(figure, "curves")


def _levels(axis: Any, measured: Measured) -> None:
    levels = ((measured.utility.accuracy, "the service"), (measured.utility.majority, "a constant answer"))
    for level, name in levels:
        axis.axhline(level, color="#777777", linestyle="--", linewidth=1)
        axis.annotate(
            name,
            (1, level),
            (-2, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color="#555555",
            bbox={"color": "white", "alpha": 0.75, "pad": 1},
        )


def _prices(price: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """From queries to their price, and back."""
    return (lambda queries: queries * price), (lambda amount: amount / price)
