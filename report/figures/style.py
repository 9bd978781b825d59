"""How every figure looks, as inline SVG: no script, no network, readable in print and without colour.

Policies differ by colour (Okabe and Ito's palette, distinguishable for colour-blind readers) and by marker.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

COLOURS = ("#555555", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MORE_COLOURS = (*COLOURS, "#000000", "#8C6D1F", "#7B3294", "#B2182B")
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


def svg(figure: Any, name: str) -> str:
    """The figure as an <svg> element; `name` keeps the ids of several figures on one page apart."""
    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def manner(number: int, count: int) -> dict[str, Any]:
    """How line `number` of `count` is drawn: later ones thinner, so that lines which coincide lie in one another."""
    share = number / max(1, count - 1)
    return {
        "color": MORE_COLOURS[number % len(MORE_COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 9 - 5.5 * share,
        "linewidth": 4 - 3.2 * share,
        "linestyle": "-" if number < len(COLOURS) else "--",
    }
