"""What an owner says of a file, in place of what would be found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Asked:
    """What the owner says. file: the model. images: a folder or a CSV of pictures; None: none. size, layout, output,
    gives, preset, fit, classes, expect: what is not to be found out; architecture: whose weights the file holds."""

    file: Path
    images: Path | None = None
    architecture: str = ""
    size: tuple[int, int] | None = None
    layout: str | None = None
    output: str = ""
    gives: str = ""
    preset: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    expect: Path | None = None
