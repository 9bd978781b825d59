"""Figures of what a gate sees and whom it hits, as inline SVG; and pictures of what it reconstructs."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from report.figures.style import COLOURS, MARKERS, MORE_COLOURS, STYLE, svg
from report.rows.gates import FalsePositiveRow, ScoreCurveRow

WHITE: dict[Any, Any] = {**STYLE, "figure.facecolor": "white"}
COLUMNS = 3
BINS = 60
# where a share of 0 lies on a logarithmic axis
LEAST = 1e-4


def rocs(curves: Sequence[ScoreCurveRow]) -> str:
    """A panel an attack, a line a detector: attack rows flagged against benign rows flagged, from their percentiles.

    A point lies at every percentile of either kind, so a share is right to about a hundredth.
    """
    attacks = list(dict.fromkeys(row.traffic for row in curves if row.malicious))
    names = list(dict.fromkeys(row.detector for row in curves))
    benign = {row.detector: row for row in curves if not row.malicious}
    with plt.rc_context(STYLE):
        figure, panels = _panels(attacks, height=2.9, sharey=True)
        for axis, attack in zip(panels, attacks, strict=True):
            for row in (row for row in curves if row.traffic == attack and row.detector in benign):
                axis.plot(*roc(benign[row.detector], row), **_line(names.index(row.detector)))
            axis.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
            axis.set_title(attack, fontsize=10)
            axis.set(xlim=(-0.01, 1), ylim=(0, 1.02), xlabel="benign rows flagged", ylabel="attack rows flagged")
        figure.tight_layout()
        _legend(figure, [Line2D([], [], label=name, **_line(number)) for number, name in enumerate(names)])
        return svg(figure, "rocs")


def roc(benign: ScoreCurveRow, attack: ScoreCurveRow) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of either kind above each percentile of both, from none to all: (points,), (points,)."""
    thresholds = np.unique([*benign.percentiles, *attack.percentiles])[::-1]
    shares = [
        np.concatenate([[0.0], [np.mean(np.asarray(row.percentiles) > level) for level in thresholds], [1.0]])
        for row in (benign, attack)
    ]
    return shares[0], shares[1]


def histograms(curves: Sequence[ScoreCurveRow], *, threshold: float | None) -> str:
    """Scores of one detector: a panel an attack, the benign rows behind each; logarithmic away from the middle.

    threshold: that of the policy as it is served.
    """
    benign = next(row for row in curves if not row.malicious)
    attacks = [row for row in curves if row.malicious]
    scale = max(benign.percentiles[75] - benign.percentiles[25], 1e-12)
    edges = _edges(curves, scale, middle=benign.percentiles[50])
    with plt.rc_context(STYLE):
        figure, panels = _panels([row.traffic for row in attacks], height=2.3, sharey=True)
        for axis, attack in zip(panels, attacks, strict=True):
            for row, colour, name in ((benign, COLOURS[0], "benign"), (attack, COLOURS[2], "attack")):
                share = np.histogram(_spread(row), edges)[0] / len(_spread(row))
                axis.stairs(share, edges, fill=True, alpha=0.35, color=colour)
                axis.stairs(share, edges, color=colour, linewidth=1.2, label=name)
            if threshold is not None:
                axis.axvline(threshold, color="#333333", linestyle="--", linewidth=1, label="threshold")
            axis.set_xscale("symlog", linthresh=_linear(benign, scale))
            axis.set_title(attack.traffic, fontsize=10)
            axis.set(xlabel="score", ylabel="share of rows")
            axis.tick_params(axis="x", labelsize=8)
        figure.tight_layout()
        _legend(figure, panels[0].get_legend_handles_labels()[0])
        return svg(figure, f"histograms-{benign.detector}")


def flagged(rows: Sequence[FalsePositiveRow]) -> str:
    """Share of rows flagged (log) by traffic, benign ones first, with its interval; a marker a policy.

    The dashed lines are the rates that the policies' thresholds were calibrated for.
    """
    traffics = _traffics((row.traffic, row.malicious) for row in rows)
    policies = list(dict.fromkeys(row.policy for row in rows))
    with plt.rc_context(WHITE):
        figure, axis = plt.subplots(figsize=(9, 1.2 + 0.32 * len(traffics)))
        for number, policy in enumerate(policies):
            mine = [row for row in rows if row.policy == policy]
            places = [traffics.index(row.traffic) + _beside(number, len(policies)) for row in mine]
            values = [max(LEAST, row.flagged) for row in mine]
            low = [value - max(LEAST, row.low) for value, row in zip(values, mine, strict=True)]
            high = [max(LEAST, row.high) - value for value, row in zip(values, mine, strict=True)]
            axis.errorbar(values, places, xerr=[low, high], label=policy, **_dots(number))
        for stated in sorted({row.stated for row in rows}):
            axis.axvline(stated, color="#333333", linestyle="--", linewidth=1)
        _by_traffic(axis, traffics, {row.traffic for row in rows if row.malicious})
        axis.set(xscale="log", xlim=(LEAST, 1.3), xlabel="share of rows not simply answered")
        figure.tight_layout()
        _legend(figure, axis.get_legend_handles_labels()[0])
        return svg(figure, "flagged")


def pictures(kinds: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]) -> bytes:
    """A PNG: of each kind a line of images as they were sent, and a line of their reconstructions below it.

    kinds: by name, images and reconstructions (n,C,H,W), n equal for all; clipped to [0, 1] to be shown.
    """
    columns = max(len(sent) for sent, _ in kinds.values())
    with plt.rc_context({"font.family": "sans-serif", "font.size": 7}):
        figure, axes = plt.subplots(2 * len(kinds), columns, figsize=(1.9 + 0.55 * columns, 1.14 * len(kinds)))
        for line, (name, both) in enumerate(kinds.items()):
            for half, images in enumerate(both):
                for axis, image in zip(axes[2 * line + half], images, strict=True):
                    shown = image.transpose(1, 2, 0).clip(0, 1)
                    axis.imshow(shown[..., 0] if shown.shape[2] == 1 else shown, cmap="gray", vmin=0, vmax=1)
                    axis.set_axis_off()
                first = axes[2 * line + half][0]
                caption = name if half == 0 else "reconstructed"
                first.text(-0.15, 0.5, caption, transform=first.transAxes, ha="right", va="center")
        figure.subplots_adjust(left=0.3, right=0.99, top=0.99, bottom=0.01, wspace=0.06, hspace=0.06)
        out = io.BytesIO()
        # tight: a name may be longer than the margin
        figure.savefig(out, format="png", dpi=110, bbox_inches="tight", pad_inches=0.05, metadata={"Software": None})
        plt.close(figure)
        return out.getvalue()


def _panels(titles: Sequence[str], *, height: float, sharey: bool) -> tuple[Any, list[Any]]:
    """A figure of three panels a line, and those of its axes that are needed."""
    lines = -(-len(titles) // COLUMNS)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(9.6, height * lines), sharey=sharey, squeeze=False)
    for axis in axes.flat[len(titles) :]:
        axis.set_axis_off()
    return figure, list(axes.flat[: len(titles)])


def _spread(row: ScoreCurveRow) -> NDArray[np.float64]:
    """A thousand scores with the row's percentiles."""
    spread: NDArray[np.float64] = np.interp(np.linspace(0, 100, 1001), np.arange(101), row.percentiles)
    return spread


def _edges(curves: Sequence[ScoreCurveRow], scale: float, *, middle: float) -> NDArray[np.float64]:
    """Edges of bins that are even about `middle` and grow with the distance from it."""
    ends = [value for row in curves for value in (row.percentiles[0], row.percentiles[100])]
    low, high = (np.arcsinh((end - middle) / scale) for end in (min(ends), max(ends)))
    edges: NDArray[np.float64] = middle + scale * np.sinh(np.linspace(low, max(high, low + 1e-9), BINS + 1))
    return edges


def _linear(benign: ScoreCurveRow, scale: float) -> float:
    """Up to where a symlog axis is linear: about where the benign scores lie."""
    return float(max(abs(benign.percentiles[99]), abs(benign.percentiles[1]), scale))


def _traffics(kinds: Iterable[tuple[str, bool]]) -> list[str]:
    """Of (traffic, malicious) the traffics, benign ones first, each once."""
    return list(dict.fromkeys(traffic for traffic, _ in sorted(kinds, key=lambda kind: kind[1])))


def _by_traffic(axis: Any, traffics: Sequence[str], malicious: set[str]) -> None:
    """A line a traffic, attackers' names in red."""
    axis.set_yticks(range(len(traffics)), traffics)
    axis.set_ylim(len(traffics) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    for label, traffic in zip(axis.get_yticklabels(), traffics, strict=True):
        label.set_color(COLOURS[2] if traffic in malicious else "#1b1f23")


def _beside(number: int, count: int) -> float:
    """Where line `number` of `count` lies about its place."""
    return 0.6 * ((number + 0.5) / count - 0.5)


def _line(number: int) -> dict[str, Any]:
    return {
        "color": MORE_COLOURS[number % len(MORE_COLOURS)],
        "linestyle": ("-", "--", "-.", ":")[number % 4],
        "linewidth": 1.6,
    }


def _dots(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 5,
        "linestyle": "none",
    }


def _legend(figure: Any, handles: Sequence[Any]) -> None:
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.01), ncols=3)
