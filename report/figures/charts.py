"""The report's figures as inline SVG: no script, no network, readable in print and without colour.

Policies differ by colour (Okabe and Ito's palette, told apart by colour-blind readers) and by marker.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from handlers import wire
from report.headline import Cell, Line
from report.schema import BenchRow, CoherenceRow, GradientRow, RoutingRow

COLOURS = ("#555555", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MORE_COLOURS = (*COLOURS, "#000000", "#8C6D1F", "#7B3294", "#B2182B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# of a row's time over HTTP, beside the handler's stages
REST, OUTSIDE = "rest of the handler", "outside the handler"
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
        return svg(figure, "routing")


def row_time(rows: Sequence[BenchRow]) -> str:
    """Worker time of a row over HTTP by stage: a panel a network, a bar a policy, backend and body."""
    known = ("decode", "limit", "admit", "route", "perturb", "predict", "gate", "respond", "encode")
    stages = [*(stage for stage in known if any(stage in row.stages_ms for row in rows)), REST, OUTSIDE]
    architectures = list(dict.fromkeys(row.architecture for row in rows))
    longest = max(sum(row.architecture == name for row in rows) for name in architectures)
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        size = (11, 1 + 0.3 * longest)
        figure, axes = plt.subplots(1, len(architectures), figsize=size, squeeze=False)
        for axis, architecture in zip(axes[0], architectures, strict=True):
            mine = [row for row in rows if row.architecture == architecture]
            names = [f"{row.policy}, {row.backend}, {'PNG' if row.body == wire.PNG else 'raw'}" for row in mine]
            left = [0.0] * len(mine)
            for number, stage in enumerate(stages):
                special = {REST: [row.rest_ms for row in mine], OUTSIDE: [row.outside_ms for row in mine]}
                widths = special.get(stage) or [row.stages_ms.get(stage, 0.0) for row in mine]
                axis.barh(names, widths, left=left, color=MORE_COLOURS[number], label=stage)
                left = [start + width for start, width in zip(left, widths, strict=True)]
            axis.invert_yaxis()
            axis.grid(visible=False, axis="y")
            axis.set(title=architecture, xlabel="worker milliseconds a row")
        figure.tight_layout()
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=6)
        return svg(figure, "row-time")


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
        return svg(figure, "coherence")


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
        return svg(figure, "copies")


def gaps(lines: Sequence[Line]) -> str:
    """gap_vs_top1 by policy, its number printed; beside it a small circle for each thief held against itself.

    Policies without a gap are left out.
    """
    known = [(line.policy, line.gap_vs_top1, line.duels) for line in lines if line.gap_vs_top1 is not None]
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, axis = plt.subplots(figsize=(9, 1.0 + 0.38 * len(known)))
        for number, (_, gap, duels) in enumerate(known):
            each = [100 * duel.gap for duel in duels]
            axis.plot(each, [number] * len(each), "o", color="#777777", markersize=5, markerfacecolor="none")
            axis.plot(100 * gap, number, "D", color=COLOURS[2], markersize=7)
            axis.text(1.01, number, f"{100 * gap:+.1f}", transform=axis.get_yaxis_transform(), va="center")
        axis.plot([], [], "D", color=COLOURS[2], markersize=7, label="gap_vs_top1 (number at the right)")
        axis.plot([], [], "o", color="#777777", markersize=5, markerfacecolor="none", label="one thief against itself")
        axis.axvline(0, color="#333333", linewidth=1)
        axis.set(yticks=range(len(known)), yticklabels=[policy for policy, _, _ in known])
        axis.set(ylim=(len(known) - 0.5, -0.5), xlabel="points below the label-only clone of undefended")
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2)
        return svg(figure, "gaps")


def heat_map(
    panels: Mapping[str, Mapping[tuple[str, str], tuple[float, str]]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    void: Collection[tuple[str, str, str]] = (),
) -> str:
    """Shares in [0, 1] as coloured squares with their percentage, a panel beside the other.

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


def growth(
    attacks: Mapping[str, Mapping[str, Sequence[Cell]]],
    *,
    chance: float | None,
    victim: float | None,
    no_query: Mapping[str, float],
    void: Collection[tuple[str, str]] = (),
) -> str:
    """Clone accuracy against charged queries (log): a row of panels an attack, a panel a reading, a line a policy.

    attacks: by attack and policy, the cells of both readings; every attack has the same policies in the same order.
    Bars are one standard deviation over seeds. no_query: by attack, the accuracy without any query. void:
    (attack, reading) where there is nothing to measure; such a panel is left out.
    """
    policies = list(next(iter(attacks.values())))
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, axes = plt.subplots(
            len(attacks), 2, figsize=(9.6, 2.1 * len(attacks)), sharey=True, sharex="row", squeeze=False
        )
        for (left, right), (attack, by_policy) in zip(axes, attacks.items(), strict=True):
            left.set_ylabel("clone accuracy")
            budgets = sorted({cell.budget for cells in by_policy.values() for cell in cells})
            for axis, labels in ((left, "soft"), (right, "hard")):
                if (attack, labels) in void:
                    axis.set_axis_off()
                    right.tick_params(labelleft=True)  # the axes share the left one's numbers
                    right.set_ylabel("clone accuracy")
                    continue
                axis.set_title(f"{attack}, {labels} labels", fontsize=10)
                axis.set(xscale="log", ylim=(0, 1.05))
                if len(budgets) == 1:  # a single point has no range of its own
                    axis.set_xlim(budgets[0] / 2, budgets[0] * 2)
                lines = {name: [c for c in cells if c.labels == labels] for name, cells in by_policy.items()}
                for number, name in enumerate(policies):
                    _bars(axis, lines[name], number, len(policies))
                axis.set_xticks(budgets, [f"{budget:,}".replace(",", "\u202f") for budget in budgets])
                axis.minorticks_off()
                if not any(lines.values()):
                    axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color="#666666")
                for level, style in ((victim, "-"), (chance, ":"), (no_query.get(attack), "--")):
                    if level is not None:
                        axis.axhline(level, **_level(style))
        for axis in axes[-1]:
            axis.set_xlabel("charged queries")
        figure.tight_layout(h_pad=1.2)
        handles = [_key(number, name, len(policies)) for number, name in enumerate(policies)]
        for name, style in (("undefended victim", "-"), ("no query at all", "--"), ("guessing", ":")):
            handles.append(Line2D([], [], label=name, **_level(style)))
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
        return svg(figure, "growth")


def averaging(
    panels: Mapping[str, Mapping[tuple[str, str], Mapping[int, Cell]]], *, levels: Mapping[str, float]
) -> str:
    """Clone accuracy against the number of copies of an image (log), a line a policy and kind of copies.

    panels: two a line, each with its own scale; by title and (policy, kind of copies), the cells by their number of
    copies. Every kind after the first is dashed. Bars are one standard deviation over seeds. levels: by title, the
    plain clone of `undefended`.
    """
    columns = 2
    policies = list(dict.fromkeys(policy for lines in panels.values() for policy, _ in lines))
    kinds = list(dict.fromkeys(kind for lines in panels.values() for _, kind in lines))
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        rows = -(-len(panels) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(9.6, 3.6 * rows), squeeze=False)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
            counts = sorted({count for cells in lines.values() for count in cells})
            for (policy, kind), cells in lines.items():
                means = [cells[count].accuracy for count in sorted(cells)]
                spreads = [cells[count].spread for count in sorted(cells)]
                manner = _pair(1 + policies.index(policy), second=kind != kinds[0])
                axis.errorbar(sorted(cells), means, spreads, elinewidth=1, capsize=3, **manner)
            if title in levels:
                axis.axhline(levels[title], **_level("-"))
            axis.set_title(title, fontsize=10)
            axis.set(xscale="log", xlabel="copies of an image, K", ylabel="clone accuracy")
            axis.set_xticks(counts, [str(count) for count in counts])
            axis.minorticks_off()
        figure.tight_layout(h_pad=1.2)
        handles = [
            Line2D([], [], label=f"{policy}, {kind}", **_pair(number, second=kind != kinds[0]))
            for number, policy in enumerate(policies, start=1)
            for kind in kinds
        ]
        handles.append(Line2D([], [], label="undefended, K = 1", **_level("-")))
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3)
        return svg(figure, "averaging")


def cosines(rows: Sequence[GradientRow]) -> str:
    """Cosine of the estimated and the true gradient against the probe's length (log): a panel a kind of traffic.

    A line a policy and number of repeats, more than one dashed. The band holds 95 % of means that see nothing.
    """
    kinds = list(dict.fromkeys(row.traffic for row in rows))
    policies = list(dict.fromkeys(row.policy for row in rows))
    repeats = sorted({row.repeats for row in rows})
    lowest = min(-0.1, min(row.cosine for row in rows) - 0.05)
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, axes = plt.subplots(1, len(kinds), figsize=(4.8 * len(kinds), 3.4), sharey=True, squeeze=False)
        for axis, kind in zip(axes[0], kinds, strict=True):
            for number, policy in enumerate(policies):
                for count in repeats:
                    line = [row for row in rows if (row.traffic, row.policy, row.repeats) == (kind, policy, count)]
                    line.sort(key=lambda row: row.epsilon)
                    manner = _pair(number, second=count != repeats[0])
                    axis.plot([row.epsilon for row in line], [row.cosine for row in line], **manner)
            chance = max(2 / (row.directions * row.images) ** 0.5 for row in rows if row.traffic == kind)
            axis.axhspan(-chance, chance, color="#cccccc", alpha=0.5, linewidth=0)
            axis.set_title(kind, fontsize=10)
            axis.set(xscale="log", xlabel="length of a probe, epsilon", ylim=(lowest, 1.05))
            axis.minorticks_off()
        axes[0][0].set_ylabel("cosine with the true gradient")
        figure.tight_layout()
        handles: list[Any] = [
            Line2D([], [], label=f"{policy}, {told}", **_pair(number, second=count != repeats[0]))
            for number, policy in enumerate(policies)
            for count in repeats
            for told in ["one answer" if count == 1 else f"mean of {count}"]
        ]
        handles.append(Patch(facecolor="#cccccc", alpha=0.5, label="as good as chance"))
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3)
        return svg(figure, "cosines")


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


def _key(number: int, name: str, count: int) -> Any:
    return Line2D([], [], label=name, **_manner(number, count))


def _level(style: str) -> dict[str, Any]:
    """How a line of reference is drawn."""
    return {"color": "#777777", "linestyle": style, "linewidth": 1}


def _manner(number: int, count: int) -> dict[str, Any]:
    """How line `number` of `count` is drawn: later ones thinner, so that lines which coincide lie in one another."""
    share = number / max(1, count - 1)
    return {
        "color": MORE_COLOURS[number % len(MORE_COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 9 - 5.5 * share,
        "linewidth": 4 - 3.2 * share,
        "linestyle": "-" if number < len(COLOURS) else "--",
    }


def _pair(number: int, *, second: bool) -> dict[str, Any]:
    """How the two lines of policy `number` are drawn: one colour and marker; the second on top, dashed and hollow."""
    colour = MORE_COLOURS[number % len(MORE_COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 6,
        "linewidth": 1.2 if second else 2.4,
        "linestyle": "--" if second else "-",
        "markerfacecolor": "white" if second else colour,
        "zorder": 3 if second else 2,
    }


def _bars(axis: Any, line: Sequence[Cell], number: int, count: int) -> None:
    """A line through the cells' means, with bars of one standard deviation."""
    if line:
        points = sorted(line, key=lambda cell: cell.budget)
        spreads = [cell.spread for cell in points]
        means = [cell.accuracy for cell in points]
        axis.errorbar([c.budget for c in points], means, spreads, elinewidth=1, capsize=3, **_manner(number, count))


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


def svg(figure: Any, name: str) -> str:
    """The figure as an <svg> element; `name` keeps the ids of several figures on one page apart."""
    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]
