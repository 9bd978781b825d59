"""TOML values to the frozen dataclass that describes them, by pydantic: exact types, known keys, all faults at once.

TOML's arrays become tuples and its integers may stand for floats; nothing else is converted. Ranges are checked by the
dataclass itself in `__post_init__`, once every type is right.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
# how close a name has to be for a message to suggest it
CLOSE = 0.6
# of a value that a message quotes
LETTERS = 80
# what pydantic calls the alternatives of a union
TYPES = ("str", "int", "float", "bool", "none", "dict", "tuple", "list")
EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "an array",
    "list_type": "an array",
    "dict_type": "a table",
    "dataclass_type": "a table",
    "none_required": "nothing",
    "finite_number": "a finite number",
}


class RecipeError(ValueError):
    """A recipe that cannot be read or does not say what a program needs; one line for each fault."""


@functools.cache
def model(cls: type[Any]) -> type[BaseModel]:
    """A pydantic model with one field, `value`, that is validated strictly as the dataclass `cls`."""
    return create_model(cls.__name__, __config__=STRICT, value=(cls, ...))


def build(cls: type[T], fields: object, *, where: str) -> T:
    """An instance of the dataclass `cls` from TOML values; `where` opens every line of the RecipeError."""
    if not isinstance(fields, Mapping):
        raise RecipeError(f"{where}: expected a table, got {shown(fields)}")
    try:
        # as JSON, whose arrays are strictly tuples too
        read: Any = model(cls).model_validate_json(json.dumps({"value": fields}, default=str))  # type: ignore[arg-type]
    except ValidationError as error:
        raise RecipeError("\n".join(dict.fromkeys(f"{where}: {line}" for line in _lines(cls, error)))) from None
    built: T = read.value
    return built


def shown(value: object) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}..."


def nearest(name: object, known: Iterable[str]) -> str:
    """What a message adds about a name that is not among the known ones: the nearest, and all of them."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=CLOSE)
    return (f"did you mean {close[0]!r}? " if close else "") + f"expected one of {', '.join(names) or 'none'}"


def _lines(cls: type[Any], error: ValidationError) -> Iterable[str]:
    """What was wrong, a line a fault: key, what was expected and what is there."""
    unions: dict[tuple[Any, ...], list[Any]] = {}
    for fault in error.errors():
        place = [part for part in fault["loc"][1:] if isinstance(part, int) or _is_key(part)]
        where = path(place)
        kind = fault["type"]
        if kind == "unexpected_keyword_argument":
            owner = _within(cls, place[:-1])
            yield f"{path(place[:-1])}unknown key {place[-1]!r}; {nearest(place[-1], owner)}"
        elif kind == "missing" and isinstance(place[-1], int):
            yield f"{path(place[:-1])}expected more than {place[-1]} values"
        elif kind == "missing":
            yield f"{path(place[:-1])}missing key {place[-1]!r}"
        elif kind == "value_error":
            yield f"{where}{fault['ctx']['error']}"
        else:
            unions.setdefault(tuple(place), []).append(fault)
    for at, faults in unions.items():
        wanted = " or ".join(dict.fromkeys(EXPECTED.get(fault["type"], fault["msg"]) for fault in faults))
        yield f"{path(at)}expected {wanted}, got {shown(faults[0]['input'])}"


def _is_key(part: str) -> bool:
    """Whether a part of a place is a key: pydantic also names the alternatives of a union there."""
    return part == part.lower() and part.replace("-", "_").isidentifier() and part not in TYPES


def path(place: Sequence[Any]) -> str:
    """Where in a table a fault is, as a message opens: keys with dots, places of arrays in brackets."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return f"{text}: " if text else ""


def _within(cls: type[Any], place: Sequence[Any]) -> list[str]:
    """The keys of the table at a place of `cls`."""
    schema = model(cls).model_json_schema()  # type: ignore[arg-type]
    node: Any = schema["properties"]["value"]
    for part in [None, *place]:
        if part is not None and not isinstance(part, int):
            node = node.get("properties", {}).get(part, {})
        elif isinstance(part, int):
            node = node.get("items", {})
        for option in node.get("anyOf", []):
            if "$ref" in option:
                node = option
        node = followed(schema, node)
    return list(node.get("properties", {}))


def followed(schema: Mapping[str, Any], node: Any) -> Any:
    """A node of a JSON Schema, or what its reference leads to."""
    while isinstance(node, Mapping) and "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node
