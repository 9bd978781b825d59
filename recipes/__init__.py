"""Recipes: one TOML file per experiment, read into the dataclass that stands next to the code that uses it.

[dataset] and [victim] say what is defended, [networks.NAME] what is trained for it, [policies.NAME] what archives do.
Each program asks for its own table and gives the frozen dataclass that describes it. A file is held against the shapes
of all its tables when it is read (recipes/schema.py), and against defenses.policy, whichever table a program asks for:
misspellings are reported before anything is trained. What may be said once and mean several things stands in
recipes/variants.py, what may be left out in recipes/defaults.py.

A recipe stands for what two cores can do. `[tiers.NAME]` holds what another size changes: its tables are laid over
the recipe's own, and `read("mnist@paper")` is the recipe "mnist-paper", with folders and archives of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from recipes import defaults, tables, variants
from recipes.fields import RecipeError as RecipeError
from recipes.fields import build as build
from recipes.fields import nearest, shown

if sys.version_info >= (3, 11):
    import tomllib as tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """One recipe as read: its name (the file's stem, and the tier's) and its tables, variants carried out.

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

    def network(self, name: str, cls: type[T]) -> T:
        """[networks.NAME] as an instance of its program's dataclass. Raises RecipeError."""
        if name not in self.networks:
            raise RecipeError(f"{self.path}: no table [networks.{name}]; {nearest(name, self.networks)}")
        return build(cls, self.networks[name], where=f"{self.path}: [networks.{name}]")

    @property
    def architecture(self) -> str:
        """What the victim is, for rows of results: its architecture, or the file of an adopted model."""
        model = self.tables.get("model")
        if model is not None:
            return str(model.get("architecture") or Path(model["file"]).name)
        return str(self.tables["victim"]["architecture"])

    @property
    def max_rows(self) -> int:
        """Rows that a request to any of its policies may have."""
        from recipes import schema

        return int(self.tables.get("serving", {}).get("max_rows", schema.default("serving", "max_rows")))

    @property
    def adopted(self) -> dict[str, str]:
        """What reports say of an adopted model, as settings of a run; {} for a victim that was trained here."""
        model = self.tables.get("model")
        if model is None:
            return {}
        said = ", ".join(f"{key} {value}" for key, value in model["input"].items())
        return {
            "model.file": Path(model["file"]).name,
            "model.preprocessing": said,
            "model.proven": str(model.get("proven") or "nothing was stated of it"),
        }

    @property
    def networks(self) -> Mapping[str, Mapping[str, Any]]:
        """[networks.NAME] by name: what each says to its program."""
        return {
            name: {key: value for key, value in fields.items() if key not in variants.OWN}
            for name, fields in self.tables.get("networks", {}).items()
        }

    def captions(self, policies: Iterable[str]) -> dict[str, str]:
        """What the recipe says that each of these policies is, of those that it says anything of: "about.NAME", as the
        settings of a report hold it."""
        stated = self.tables.get("policies", {})
        return {f"about.{name}": stated[name]["about"] for name in policies if stated.get(name, {}).get("about")}

    def family(self, table: str, cls: type[T]) -> dict[str, T]:
        """The sub-tables `[table.NAME]`, in file order, each as an instance of `cls`. Raises RecipeError."""
        return {
            name: build(cls, fields, where=f"{self.path}: [{table}.{name}]")
            for name, fields in self.tables.get(table, {}).items()
        }


def known() -> list[str]:
    """The recipes of this checkout."""
    return sorted(file.stem for file in HERE.glob("*.toml"))


def find(name: str | Path) -> tuple[Path, str]:
    """The file and the tier ("" for none) of `NAME`, or of a path that ends in .toml, either with "@TIER". Raises
    RecipeError."""
    file, at, tier = str(name).rpartition("@")
    if not at:
        file, tier = str(name), ""
    path = Path(file) if file.endswith(".toml") else HERE / f"{file}.toml"
    if not path.is_file():
        raise RecipeError(f"no recipe {file!r}: {nearest(file, known())}, or a path to a .toml file")
    return path, tier


def read(name: str | Path) -> Recipe:
    """Read `recipes/NAME.toml`, or any path that ends in .toml; "@TIER" may follow either.

    Raises RecipeError with a line for each fault: file, table, key, value, and what was expected.
    """
    # results are built by recipes.fields, and need neither a policy's code nor the shapes of tables
    from recipes import policies, schema

    path, tier = find(name)
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    tiers = raw.pop("tiers", {})
    if tier and tier not in tiers:
        raise RecipeError(f"{path}: no tier {tier!r}; it has {', '.join(tiers) or 'none'}, and itself without one")
    above = tiers.get(tier, {})
    faults = list(_unknown(raw, above))
    expanded = variants.expand(_readable(raw), _readable(above), faults)
    faults += [*schema.faults(expanded), *policies.faults(expanded)]
    if faults:
        raise RecipeError("\n".join(f"{path}: {fault}" for fault in dict.fromkeys(faults)))
    whole = defaults.added(expanded)
    if not tier:
        return Recipe(path.stem, path, str(path), whole)
    return Recipe(f"{path.stem}-{tier}", path, f"{path}@{tier}", whole)


def _readable(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What has the name and the form of a recipe's tables."""
    return {table: fields for table, fields in raw.items() if table in tables.NAMES and isinstance(fields, Mapping)}


def _unknown(raw: Mapping[str, Any], tier: Mapping[str, Any]) -> Iterator[str]:
    """What no table may be called, and what is no table."""
    for table, fields in (*raw.items(), *tier.items()):
        if table in tables.PROGRAMS and table not in tables.NAMES:
            yield f"unknown table [{table}]; a network's table is called [networks.{table}]"
        elif table not in tables.NAMES:
            yield f"unknown table [{table}]; {nearest(table, (*tables.NAMES, 'tiers'))}"
        elif not isinstance(fields, Mapping):
            yield f"{table}: expected a table, got {shown(fields)}"
    for name, fields in raw.get("networks", {}).items() if isinstance(raw.get("networks"), Mapping) else ():
        program = fields.get("program", name) if isinstance(fields, Mapping) else name
        if program not in tables.PROGRAMS and not (isinstance(fields, Mapping) and "like" in fields):
            yield f"[networks.{name}]: program: no program {program!r}; {nearest(program, tables.PROGRAMS)}"
    for name in raw.get("attacks", {}) if isinstance(raw.get("attacks"), Mapping) else ():
        if name not in tables.ATTACKS:
            yield f"[attacks.{name}]: no attack {name!r}; {nearest(name, tables.ATTACKS)}"
