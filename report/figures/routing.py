"""Where an ensemble's rows go and how far its members agree, as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt

from report.figures.style import COLOURS, STYLE, svg
from report.rows.routing import CoherenceRow, RoutingRow


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
