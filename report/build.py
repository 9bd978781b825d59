"""JSON to the dataclasses of rows, by pydantic: each value is held against the type that its field states.

A fault names the place, what was expected and what was found there. All faults of a row are found at once; only a row
without any is made, so what its `__post_init__` checks has the right type.
"""

from __future__ import annotations

from typing import Any

from recipes import fields as strict

Faults = list[str]


def build(kind: Any, fields: object, where: str, faults: Faults) -> Any:
    """A `kind`, a dataclass, of the JSON object `fields`; None after adding to `faults`, each naming `where`."""
    try:
        return strict.build(kind, fields, where=where)
    except strict.RecipeError as error:
        faults += str(error).splitlines()
        return None
