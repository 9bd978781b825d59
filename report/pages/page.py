"""What every generated page shares: its results files, and the template's environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

from report.format import hundredth, number, percent, points, spread
from report.headline import who
from report.schema import ResultError

TEMPLATES = Path(__file__).parent


def files(folder: Path, prefix: str, *, made_by: str, but: str = " ") -> list[Path]:
    """The results files that begin so, MNIST's first, without those whose stem ends in `but`. Raises ResultError where
    there is none."""
    paths = [path for path in folder.glob(f"{prefix}*.json") if not path.stem.endswith(but)]
    if not paths:
        raise ResultError(f"{folder}: no {prefix}*.json; {made_by} RECIPE=mnist measures one")
    return sorted(paths, key=lambda path: (path.stem != f"{prefix}mnist", path.stem))


def render(template: str, *, filters: Mapping[str, Callable[..., object]] | None = None, **values: Any) -> str:
    """The Markdown of a template, with filters of its own alongside the shared ones; a name that it lacks is an
    error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    shared: dict[str, Callable[..., object]] = {
        "number": number,
        "percent": percent,
        "points": points,
        "spread": spread,
        "who": who,
        "hundredth": hundredth,
        "middle": middle,
        "between": between,
    }
    environment.filters.update({**shared, **(filters or {})})
    return re.sub(r"\n{3,}", "\n\n", environment.get_template(template).render(**values))


def middle(rounds: Sequence[float], digits: int = 2) -> str:
    """The median of what the rounds measured; a dash for none."""
    return number(median(rounds), digits) if rounds else "-"


def between(rounds: Sequence[float], digits: int = 2) -> str:
    """The lowest and the highest of what the rounds measured; a dash for a single one."""
    return f"{number(min(rounds), digits)} to {number(max(rounds), digits)}" if len(rounds) > 1 else "-"
