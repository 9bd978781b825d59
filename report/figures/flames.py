"""Stacks of a worker as a flame graph: a row of boxes a depth, a box's width its share of wall time.

Callers stand below what they call. Colours say whose time it is (report/rows/profile.py), not how hot it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.patches import Patch, Rectangle

from report.figures.style import COLOURS, STYLE, svg
from report.rows.profile import GRAPHS, OURS, SERVER, WAITING, WHO, ProfileRow, who

COLOUR = {GRAPHS: COLOURS[1], OURS: COLOURS[2], SERVER: COLOURS[6], WAITING: "#cccccc"}
# narrower boxes are left out, and narrower ones than those have no name
LEAST_SHARE = 0.002
NAMED_SHARE = 0.03
# of a box as wide as the figure
LETTERS = 150


@dataclass(frozen=True)
class Box:
    """One call: from `left`, so wide, as shares of the whole; depth 0 is the outermost."""

    name: str
    depth: int
    left: float
    width: float
    owner: str


def boxes(stacks: Mapping[str, int]) -> list[Box]:
    """The boxes of a flame graph, without those under LEAST_SHARE and without what every stack begins with."""
    split = [(stack.split(";"), count) for stack, count in stacks.items()]
    total = sum(count for _, count in split)
    shared = 0
    while all(len(frames) > shared + 1 and frames[shared] == split[0][0][shared] for frames, _ in split):
        shared += 1
    return list(_layer(split, shared, 0, 0.0, total))


def _layer(stacks: Sequence[tuple[list[str], int]], first: int, depth: int, left: float, total: int) -> Iterator[Box]:
    called: dict[str, list[tuple[list[str], int]]] = {}
    for frames, count in stacks:
        if len(frames) > first + depth:
            called.setdefault(frames[first + depth], []).append((frames, count))
    for name, inside in sorted(called.items()):
        width = sum(count for _, count in inside) / total
        if width >= LEAST_SHARE:
            # whose a box is, its own frames decide; waiting is waiting below too
            owners = {who(frames) for frames, _ in inside}
            frames = inside[0][0][: first + depth + 1]
            yield Box(name, depth, left, width, WAITING if owners == {WAITING} else who(frames))
            yield from _layer(inside, first, depth + 1, left, total)
        left += width


def flame(profiles: Sequence[ProfileRow]) -> str:
    """One panel a policy, as an <svg> element."""
    drawn = [boxes(profile.stacks) for profile in profiles]
    depths = [1 + max(box.depth for box in each) for each in drawn]
    with plt.rc_context({**STYLE, "figure.facecolor": "white"}):
        size = (11, 0.4 * len(profiles) + 0.22 * sum(depths))
        figure, axes = plt.subplots(len(profiles), 1, figsize=size, height_ratios=depths, squeeze=False)
        for axis, profile, each, depth in zip(axes[:, 0], profiles, drawn, depths, strict=True):
            for box in each:
                colour = COLOUR[box.owner]
                axis.add_patch(
                    Rectangle((box.left, box.depth), box.width, 1, facecolor=colour, edgecolor="white", linewidth=0.4)
                )
                if box.width >= NAMED_SHARE:
                    text = box.name[: int(LETTERS * box.width)]
                    axis.text(box.left + 0.002, box.depth + 0.5, text, fontsize=6.5, va="center", clip_on=True)
            axis.set(xlim=(0, 1), ylim=(0, depth), yticks=[], title=f"{profile.policy}: a worker's wall time")
            axis.grid(visible=False)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        figure.tight_layout()
        handles = [Patch(color=COLOUR[name], label=name) for name in WHO]
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.01), ncols=len(WHO))
        return svg(figure, "flames")
