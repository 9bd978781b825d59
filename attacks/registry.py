"""The attacks by name. To add one: its file, then one line here.

An attack's file holds a frozen dataclass of hyper-parameters (its table [attacks.NAME] in a recipe) and a `prepare`
function that makes the thief from them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol

from attacks import knockoff
from attacks.thief import Service, Thief


class Prepare(Protocol):
    """Makes a thief from its parameters, what it knows of the service, a seed and the folder of data sets."""

    def __call__(
        self, parameters: Any, service: Service, *, seed: int, root: str | os.PathLike[str] | None = None
    ) -> Thief: ...


@dataclass(frozen=True)
class Attack:
    """One entry: the dataclass of the attack's table (see attacks.thief.Parameters), and its maker."""

    parameters: type[Any]
    prepare: Prepare


ATTACKS = {
    "knockoff": Attack(knockoff.Knockoff, knockoff.prepare),
}


def attack(name: str) -> Attack:
    """The attack called `name`. Raises ValueError that names the known ones."""
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}; expected one of {', '.join(ATTACKS)}")
    return ATTACKS[name]
