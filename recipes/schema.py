"""The shape of every table as JSON Schema, so that a recipe is held against it in a moment, before torch is loaded.

    python -m recipes schema          writes recipes/schema.json from the dataclasses of recipes/tables.py

Keys and types are in it. Ranges are checked by the dataclasses, what a policy does by defenses.policy.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs

from recipes import tables
from recipes.fields import followed, model, nearest, path, shown

FILE = Path(__file__).with_name("schema.json")
WORDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "an array",
    "object": "a table",
    "null": "nothing",
}


def generate() -> str:
    """The text of schema.json."""
    found = {}
    for key, spec in tables.every().items():
        whole = model(tables.resolve(spec)).model_json_schema()  # type: ignore[arg-type]
        found[key] = {**whole["properties"]["value"], "$defs": whole.get("$defs", {})}
    return json.dumps(_without_prose(found), indent=1, sort_keys=True) + "\n"


def faults(recipe: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the keys and types of an expanded recipe's tables; each opens with its table."""
    for where, key, fields in tables.entries(recipe):
        schema, validator = _validators()[key]
        for error in validator.iter_errors(fields):
            yield from (f"{where}: {line}" for line in _lines(error, schema))


def default(key: str, field: str) -> Any:
    """What a field is where its table does not say; None where it has to, or where there is no such table."""
    schema = _validators().get(key, ({}, None))[0]
    return followed(schema, schema).get("properties", {}).get(field, {}).get("default")


def _without_prose(schema: Any) -> Any:
    """The same without docstrings and titles, which may change as they like. A field may be called so, and stays."""
    if isinstance(schema, list):
        return [_without_prose(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        name: _without_prose(value)
        for name, value in schema.items()
        if not (name in ("title", "description") and isinstance(value, str))
    }


@functools.cache
def _validators() -> dict[str, tuple[Any, Any]]:
    return {key: (each, jsonschema_rs.validator_for(each)) for key, each in json.loads(FILE.read_text("utf-8")).items()}


def _lines(error: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    where, kind = path(error.instance_path), error.kind
    if kind.name == "additionalProperties":
        known = _at(schema, error.schema_path[:-1]).get("properties", {})
        for name in kind.unexpected:
            yield f"{where}unknown key {name!r}; {nearest(name, known)}"
    elif kind.name == "required":
        yield f"{where}missing key {kind.property!r}"
    elif kind.name == "anyOf":
        # a table that one of the alternatives describes says more than that it fits none
        inner = [each for each in kind.context if isinstance(error.instance, Mapping) and not _is_type(each)]
        if inner:
            for each in inner[0]:
                yield from _lines(each, schema)
        else:
            words = [word for each in kind.context for one in each for word in _types(one)]
            yield f"{where}expected {' or '.join(dict.fromkeys(words))}, got {shown(error.instance)}"
    elif kind.name == "type":
        yield f"{where}expected {' or '.join(_types(error))}, got {shown(error.instance)}"
    elif kind.name == "enum":
        yield f"{where}{nearest(error.instance, map(str, kind.options))}, got {shown(error.instance)}"
    else:
        yield f"{where}{error.message}"


def _is_type(errors: Any) -> bool:
    """Whether an alternative fails for what the value is, not for what is in it."""
    return any(each.kind.name == "type" and isinstance(each.instance, Mapping) for each in errors)


def _types(error: Any) -> list[str]:
    kind = error.kind
    if kind.name != "type":
        return [error.message]
    types = kind.types if isinstance(kind.types, (list, tuple)) else [kind.types]
    return [WORDS.get(str(each), str(each)) for each in types if str(each) != "null"]


def _at(schema: Mapping[str, Any], path: list[Any]) -> Mapping[str, Any]:
    """The part of a schema at a path, through its references."""
    node: Any = schema
    for part in path:
        if part == "$defs":  # where a reference has led
            node = schema["$defs"]
        elif part != "$ref":
            node = followed(schema, node)[part]
    return dict(followed(schema, node))
