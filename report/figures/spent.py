"""Which thieves' accounts a budget flags, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt

from report.figures.style import STYLE, manner, svg

Shares = Mapping[str, Mapping[str, float]]
"""By thief and setting, the share of accounts that are flagged"""


def spent(tasks: Mapping[str, Shares], *, settings: Sequence[str]) -> str:
    """A panel a task, by name: a line a thief, top to bottom, with a mark for each setting that was measured."""
    tallest = max(len(thieves) for thieves in tasks.values())
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure, panels = plt.subplots(
            1, len(tasks), figsize=(2.5 + 5 * len(tasks), 1.2 + 0.3 * tallest), squeeze=False, layout="constrained"
        )
        for axis, (task, thieves) in zip(panels[0], tasks.items(), strict=True):
            axis.hlines(range(len(thieves)), 0, 1, color="#dddddd", linewidth=1, zorder=1)
            for number, shares in enumerate(thieves.values()):
                for place, setting in enumerate(settings):
                    if setting in shares:
                        axis.plot(shares[setting], number, **{**manner(place, len(settings)), "linestyle": "none"})
            axis.set(yticks=range(len(thieves)), yticklabels=list(thieves), ylim=(len(thieves) - 0.5, -0.5))
            axis.set(title=task, xlabel="accounts flagged", xlim=(-0.03, 1.03))
            axis.spines["left"].set_visible(False)
            axis.tick_params(axis="y", length=0)
        for place, setting in enumerate(settings):
            axis.plot([], [], label=setting, **{**manner(place, len(settings)), "linestyle": "none"})
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure, "spent")
