"""JSON to dataclasses: each value is held against the type that its field states, and a list becomes a tuple.

A fault names the place, what was expected and what was found there. All faults of a row are found at once; only a row
without any is made, so what its `__post_init__` checks has the right type.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Union

from report.fields import ResultError

# of a value that a message quotes
LETTERS = 60

Faults = list[str]


def build(kind: Any, fields: object, where: str, faults: Faults) -> Any:
    """A `kind`, a dataclass, of the JSON object `fields`; None after adding to `faults`, each naming `where`."""
    if not isinstance(fields, Mapping):
        faults.append(f"{where}: expected an object, got {_shown(fields)}")
        return None
    hints = _hints(kind)
    if set(fields) != set(hints):
        wrong = [f"{name} is missing" for name in hints if name not in fields]
        wrong += [f"{name} is unknown" for name in fields if name not in hints]
        faults.append(f"{where}: expected the keys {', '.join(hints)}; {', '.join(wrong)}")
        return None
    found: Faults = []
    values = {name: _value(hint, fields[name], f"{where}: {name}", found) for name, hint in hints.items()}
    if not found:
        try:
            return kind(**values)
        except ResultError as error:
            found.append(f"{where}: {error}")
    faults += found
    return None


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _value(hint: Any, given: Any, where: str, faults: Faults) -> Any:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return given
    if origin in (Union, types.UnionType):
        return _either(inside, given, where, faults)
    if origin is tuple:
        return _tuple(inside, given, where, faults)
    if origin is dict:
        return _dict(inside[1], given, where, faults)
    if dataclasses.is_dataclass(hint):
        return build(hint, given, where, faults)
    name, holds = SCALARS[hint]
    if not holds(given):
        faults.append(f"{where}: expected {name}, got {_shown(given)}")
    return given


def _either(hints: tuple[Any, ...], given: Any, where: str, faults: Faults) -> Any:
    """The first of the types that fits; the faults of the first one where none does."""
    if given is None and type(None) in hints:
        return None
    first: Faults = []
    for hint in hints:
        found: Faults = []
        value = _value(hint, given, where, found)
        if not found:
            return value
        first = first or found
    faults += first
    return None


def _tuple(inside: tuple[Any, ...], given: Any, where: str, faults: Faults) -> Any:
    if not isinstance(given, (list, tuple)):
        faults.append(f"{where}: expected a list, got {_shown(given)}")
        return None
    hints = [inside[0]] * len(given) if inside[-1] is Ellipsis else list(inside)
    if len(hints) != len(given):
        faults.append(f"{where}: expected {len(hints)} values, got {len(given)}")
        return None
    return tuple(
        _value(hint, each, f"{where}[{i}]", faults) for i, (hint, each) in enumerate(zip(hints, given, strict=True))
    )


def _dict(inside: Any, given: Any, where: str, faults: Faults) -> Any:
    if not isinstance(given, Mapping):
        faults.append(f"{where}: expected an object, got {_shown(given)}")
        return None
    return {key: _value(inside, each, f"{where}: {key}", faults) for key, each in given.items()}


def _whole(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)


def _finite(given: object) -> bool:
    return _whole(given) or (isinstance(given, float) and math.isfinite(given))


SCALARS: Mapping[Any, tuple[str, Callable[[object], bool]]] = {
    str: ("a text", lambda given: isinstance(given, str)),
    bool: ("true or false", lambda given: isinstance(given, bool)),
    int: ("a whole number", _whole),
    float: ("a number", _finite),
    type(None): ("null", lambda given: given is None),
}


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}..."
