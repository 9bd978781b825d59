"""What a thief gains from asking about copies of an image, as a figure."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from report.figures.style import STYLE, pair, reference, svg
from report.headline import Cell


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
                manner = pair(1 + policies.index(policy), second=kind != kinds[0])
                axis.errorbar(sorted(cells), means, spreads, elinewidth=1, capsize=3, **manner)
            if title in levels:
                axis.axhline(levels[title], **reference("-"))
            axis.set_title(title, fontsize=10)
            axis.set(xscale="log", xlabel="copies of an image, K", ylabel="clone accuracy")
            axis.set_xticks(counts, [str(count) for count in counts])
            axis.minorticks_off()
        figure.tight_layout(h_pad=1.2)
        handles = [
            Line2D([], [], label=f"{policy}, {kind}", **pair(number, second=kind != kinds[0]))
            for number, policy in enumerate(policies, start=1)
            for kind in kinds
        ]
        handles.append(Line2D([], [], label="undefended, K = 1", **reference("-")))
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3)
        return svg(figure, "averaging")
