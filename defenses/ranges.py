"""The range checks that every table of a policy shares."""

from __future__ import annotations

import re

# Names become file names and metric labels: no separators, nothing hidden.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def integer(name: str, value: object, low: int, high: int) -> None:
    """Raise ValueError unless `value` is an int (a bool is none) with low <= value <= high."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name}: expected an integer from {low} to {high}, got {value!r}")


def number(name: str, value: object, *, above: float, most: float) -> None:
    """Raise ValueError unless `value` is an int or a float (a bool is neither) with above < value <= most."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= most:
        raise ValueError(f"{name}: expected a number above {above:g}, at most {most:g}, got {value!r}")


def between(name: str, value: object, low: float, high: float) -> None:
    """Raise ValueError unless `value` is an int or a float (a bool is neither) with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")


def boolean(name: str, value: object) -> None:
    """Raise ValueError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {value!r}")


def identifier(name: str, value: object) -> None:
    """Raise ValueError unless `value` is letters, digits, '.', '_', '-', and opens with one of the first two."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{name}: expected letters, digits, '.', '_' or '-', got {value!r}")


def choice(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
