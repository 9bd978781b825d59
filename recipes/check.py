"""All that is wrong with a recipe, in one go and before anything is trained.

`recipes.read` finds what is misspelt, of the wrong type, or no policy that can be carried out, in a moment. The rest
needs the code that a table configures: ranges, data sets, architectures and attacks that a name stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import recipes
from recipes import tables, tomllib
from recipes.fields import RecipeError, build, nearest
from recipes.variants import OF_EVALUATIONS

# the key whose value is an architecture of zoo.models
ARCHITECTURE = "architecture"


def check(name: str) -> list[str]:
    """Every fault of a recipe and of its tiers; none where all is well."""
    path, tier = recipes.find(name)
    specs = [name] if tier else [str(path), *(f"{path}@{each}" for each in _tiers(path))]
    found: list[str] = []
    for spec in specs:
        try:
            found += [f"{path}: {fault}" for fault in _faults(recipes.read(spec))]
        except RecipeError as error:
            found += str(error).splitlines()
    return list(dict.fromkeys(found))


def _tiers(path: Any) -> list[str]:
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except ValueError:
        return []  # which reading it without a tier reports
    return list(raw.get("tiers", {}))


def _faults(recipe: recipes.Recipe) -> Iterator[str]:
    for table in ("dataset", "policies"):
        if not recipe.tables.get(table):
            yield f"expected a table [{table}{'.NAME' if table == 'policies' else ''}], got none"
    specs = tables.every()
    for where, key, fields in tables.entries(recipe.tables):
        try:
            build(tables.resolve(specs[key]), fields, where=where)
        except RecipeError as error:
            yield from str(error).splitlines()
        yield from (f"{where}: {fault}" for fault in _names(fields))
    for name, study in recipe.tables.get("studies", {}).items():
        known, keys = recipe.tables.get("evaluate", {}), [*OF_EVALUATIONS, "policies", *_studies()]
        for key in study:
            if key not in keys:
                yield f"[studies.{name}]: no study {key!r}; {nearest(key, keys)}"
        for key in OF_EVALUATIONS:
            for table in study.get(key, ()):
                if table not in known:
                    yield f"[studies.{name}]: {key}: no [evaluate.{table}]; {nearest(table, known)}"


def _studies() -> list[str]:
    """Every study of archives, and every cost."""
    found: list[str] = []
    for module, registry in (("evaluation.studies.registry", "STUDIES"), ("bench.costs.registry", "COSTS")):
        found += getattr(import_module(module), registry)
    return found


def _names(fields: Any, place: str = "") -> Iterator[str]:
    """Architectures that there are not, anywhere in a table."""
    built, published = import_module("zoo.models").ARCHITECTURES, import_module("zoo.published")
    if isinstance(fields, Mapping):
        for key, value in fields.items():
            if key == ARCHITECTURE and isinstance(value, str) and value and published.is_published(value):
                if not published.known(value):
                    yield f"{place}{key}: no network {value!r} in its library"
            elif key == ARCHITECTURE and isinstance(value, str) and value and value not in built:
                yield f"{place}{key}: no architecture {value!r}; {nearest(value, built)}"
            yield from _names(value, f"{place}{key}: ")
    elif isinstance(fields, list):
        for number, value in enumerate(fields):
            yield from _names(value, f"{place}[{number}]: ")
