"""Numbers as pages print them, and ratios that are taken round by round."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Protocol


class Spread(Protocol):
    """What `spread` prints: fractions, their mean, and their standard deviation."""

    @property
    def accuracies(self) -> Sequence[float]: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def spread(self) -> float: ...


def percent(fraction: float | None) -> str:
    """0.9134 -> "91.3 %"; a dash for None."""
    return "-" if fraction is None else f"{fraction:.1%}".replace("%", " %")


def hundredth(fraction: float | None) -> str:
    """0.98765 -> "98.77", a percentage without its sign; a dash for None."""
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def points(difference: float | None) -> str:
    """0.123 -> "+12.3" percentage points, with its sign; a dash for None."""
    return "-" if difference is None else f"{100 * difference:+.1f}"


def spread(cell: Spread | None) -> str:
    """Mean and standard deviation of a cell's clones in percent; a dash for None."""
    if cell is None:
        return "-"
    deviation = f" ± {100 * cell.spread:.1f}" if len(cell.accuracies) > 1 else ""
    return f"{100 * cell.accuracy:.1f}{deviation} %"


def number(value: float | None, digits: int = 1) -> str:
    """A plain number with `digits` decimals and thin spaces between thousands; a dash for None."""
    return "-" if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """One path's value against another's, round by round."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over rounds of one path's value against another's."""
    return median(ratios(numerators, denominators))
