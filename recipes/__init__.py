"""Recipes: one TOML file per experiment, read into the dataclass that stands beside the code that uses it.

A recipe has a table per program (`[victim]`, `[hash]`, `[edm]`, ...). Each program asks for its own table and
gives the frozen dataclass that describes it; nothing here knows what a table means. An unknown table or key, a
wrong type and a missing key are errors that name the recipe, the key, the value and what was expected. Ranges
are checked by the dataclass itself in `__post_init__`.

A recipe stands for what two cores can do. `[tiers.NAME]` holds what another size changes: its tables are laid over
the recipe's own, and `read("mnist@paper")` is the recipe "mnist-paper", with folders and archives of its own.
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
TABLES = (
    "dataset",
    "victim",
    "hash",
    "edm",
    "ensemble",
    "outlier_exposure",
    "misinformation",
    "surrogate",
    "mad_surrogate",
    "meco",
    "meco_without_dro",
    "meco_gaussian",
    "meco_gaussian_small",
    "meco_small",
    "meco_random_filters",
    "edm_fixed",
    "same",
    "same_small",
    "same_vit_tiny",
    "same_groups",
    "distilled",
    "misleader",
    "misleader_diverse",
    "misleader_released",
    "serving",
    "policies",
    "attacks",
    "clone",
    "evaluate",
    "detection",
    "benign",
    "loadtest",
)

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe that cannot be read or does not say what a program needs."""


@dataclass(frozen=True)
class Recipe:
    """One recipe as read: its name (the file's stem, and the tier's) and its tables.

    spec: what `read` takes to read it again.
    """

    name: str
    path: Path
    spec: str
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
    """Read `recipes/NAME.toml`, or any path that ends in .toml; "@TIER" may follow either. Raises RecipeError."""
    file, at, tier = str(name).rpartition("@")
    if not at:
        file, tier = str(name), ""
    path = Path(file) if file.endswith(".toml") else HERE / f"{file}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in HERE.glob("*.toml")))
        raise RecipeError(f"no recipe {file!r}: expected one of {known}, or a path to a .toml file")
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    tiers = tables.pop("tiers", {})
    if tier and tier not in tiers:
        raise RecipeError(f"{path}: no tier {tier!r}; it has {', '.join(tiers) or 'none'}, and itself without one")
    for table in (*tables, *tiers.get(tier, ())):
        if table not in TABLES:
            raise RecipeError(f"{path}: unknown table [{table}]; expected one of {', '.join((*TABLES, 'tiers'))}")
    if not tier:
        return Recipe(path.stem, path, str(path), tables)
    return Recipe(f"{path.stem}-{tier}", path, f"{path}@{tier}", _laid_over(tables, tiers[tier]))


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with every value that `above` gives in its place; tables are merged key by key."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _laid_over(under, value) if both else value  # type: ignore[arg-type]
    return merged


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
