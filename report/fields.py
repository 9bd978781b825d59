"""What the rows of a report are checked by when they are made (report/schema.py, report/rows/gates.py)."""

from __future__ import annotations

from typing import Any


class ResultError(ValueError):
    """A row or a file that does not follow the schema."""


def fractions(row: Any, *names: str) -> None:
    """Raise ResultError unless each of the row's fields is None or lies in [0, 1]."""
    for name in names:
        value = getattr(row, name)
        if value is not None and not 0 <= value <= 1:
            raise ResultError(f"{name}: expected a fraction in [0, 1], got {value}")


def tuples(row: Any, *names: str) -> None:
    """Make tuples of the row's lists: JSON knows no tuples. The row is a frozen dataclass in its `__post_init__`."""
    for name in names:
        object.__setattr__(row, name, tuple(getattr(row, name)))
