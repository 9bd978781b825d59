"""What every generated page shares: the template's environment, number formats, and writing whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from report.html import number, percent, points, spread


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


def write(path: Path, text: str) -> None:
    """Write to a temporary name beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, "utf-8")
    unfinished.replace(path)
