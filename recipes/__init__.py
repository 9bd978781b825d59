"""Recipes: one TOML file per experiment, read into the dataclass that stands beside the code that uses it.

A recipe has a table per program (`[victim]`, `[hash]`, `[edm]`, ...). Each program asks for its own table and
gives the frozen dataclass that describes it; nothing here knows what a table means. An unknown table or key, a
wrong type and a missing key are errors that name the recipe, the key, the value and what was expected. Ranges
are checked by the dataclass itself in `__post_init__`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
TABLES = ("dataset", "victim", "hash", "edm", "serving", "policies", "attacks", "clone", "loadtest")

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe that cannot be read or does not say what a program needs."""


@dataclass(frozen=True)
class Recipe:
    """One recipe as read: its name (the file's stem) and its tables."""

    name: str
    path: Path
    tables: Mapping[str, Any]

    def section(self, table: str, cls: type[T]) -> T:
        """The table as an instance of the dataclass `cls`. Raises RecipeError."""
        if table not in self.tables:
            raise RecipeError(f"{self.path}: no table [{table}]; this program needs one")
        return build(cls, self.tables[table], where=f"{self.path}: [{table}]")

    def family(self, table: str, cls: type[T]) -> dict[str, T]:
        """The sub-tables `[table.NAME]`, in file order, each as an instance of `cls`. Raises RecipeError."""
        return {
            name: build(cls, fields, where=f"{self.path}: [{table}.{name}]")
            for name, fields in self.tables.get(table, {}).items()
        }


def read(name: str | Path) -> Recipe:
    """Read `recipes/NAME.toml`, or any path that ends in .toml. Raises RecipeError."""
    path = Path(name) if str(name).endswith(".toml") else HERE / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in HERE.glob("*.toml")))
        raise RecipeError(f"no recipe {str(name)!r}: expected one of {known}, or a path to a .toml file")
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    for table in tables:
        if table not in TABLES:
            raise RecipeError(f"{path}: unknown table [{table}]; expected one of {', '.join(TABLES)}")
    return Recipe(path.stem, path, tables)


def build(cls: type[T], fields: Mapping[str, Any], *, where: str) -> T:
    """An instance of the dataclass `cls` from TOML values; `where` opens every error. Raises RecipeError."""
    if not isinstance(fields, Mapping):
        raise RecipeError(f"{where}: expected a table, got {fields!r}")
    hints = typing.get_type_hints(cls)
    declared = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in fields:
        if key not in declared:
            raise RecipeError(f"{where}: unknown key {key!r}; expected one of {', '.join(declared)}")
    values = {key: _typed(hints[key], value, f"{where}: {key}") for key, value in fields.items()}
    for key, field in declared.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in values:
            raise RecipeError(f"{where}: missing key {key!r} ({hints[key]})")
    try:
        return cls(**values)
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type: TOML's arrays become tuples, its integers may stand for floats."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            if dataclasses.is_dataclass(option) and isinstance(value, dict):
                return _typed(option, value, where)  # its own errors say more than "none of these types"
            with contextlib.suppress(RecipeError):
                return _typed(option, value, where)
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where=where)
    elif origin is tuple and isinstance(value, list):
        return tuple(_typed(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    elif origin in (dict, Mapping) and isinstance(value, dict):
        return {key: _typed(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    raise RecipeError(f"{where}: expected {expected}, got {value!r}")
