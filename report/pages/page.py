"""What every generated page shares: the template's environment and number formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from report.format import number, percent, points, spread


def render(template: Path, *, filters: Mapping[str, Callable[..., object]] | None = None, **values: Any) -> str:
    """The Markdown of a template, with filters of its own beside the shared ones; a name that it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, percent=percent, points=points, spread=spread, **(filters or {}))
    return environment.get_template(template.name).render(**values)
