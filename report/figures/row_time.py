"""Where a row's time over HTTP goes, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot as plt

from report.figures.style import MORE_COLOURS, STYLE, svg
from report.rows.bench import PNG, BenchRow

# of a row's time over HTTP, next to the handler's stages
REST, OUTSIDE = "rest of the handler", "outside the handler"


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
            names = [f"{row.policy}, {row.backend}, {'PNG' if row.body == PNG else 'raw'}" for row in mine]
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
