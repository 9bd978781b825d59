"""Clone accuracy as figures: against the queries that were charged for, and below what labels alone give a thief."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from report.figures.style import COLOURS, MARKERS, STYLE, manner, reference, svg
from report.headline import Cell, Line


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
                        axis.axhline(level, **reference(style))
        for axis in axes[-1]:
            axis.set_xlabel("charged queries")
        figure.tight_layout(h_pad=1.2)
        handles = [_key(number, name, len(policies)) for number, name in enumerate(policies)]
        for name, style in (("undefended victim", "-"), ("no query at all", "--"), ("guessing", ":")):
            handles.append(Line2D([], [], label=name, **reference(style)))
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
        return svg(figure, "growth")


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


def _key(number: int, name: str, count: int) -> Any:
    return Line2D([], [], label=name, **manner(number, count))


def _bars(axis: Any, line: Sequence[Cell], number: int, count: int) -> None:
    """A line through the cells' means, with bars of one standard deviation."""
    if line:
        points = sorted(line, key=lambda cell: cell.budget)
        spreads = [cell.spread for cell in points]
        means = [cell.accuracy for cell in points]
        axis.errorbar([c.budget for c in points], means, spreads, elinewidth=1, capsize=3, **manner(number, count))


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
