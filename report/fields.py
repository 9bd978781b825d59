"""What the rows of a report are checked by when they are made (report/rows/*.py)."""

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


def known(row: Any, **choices: tuple[str, ...]) -> None:
    """Raise ResultError unless each of the row's fields has one of its values."""
    for name, values in choices.items():
        value = getattr(row, name)
        if value not in values:
            raise ResultError(f"{name}: expected one of {', '.join(values)}, got {value!r}")
