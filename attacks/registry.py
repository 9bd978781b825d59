"""The attacks by name, and the adaptive forms that any of them can take. To add one: its file, then one line here.

An attack's file holds a frozen dataclass of hyper-parameters (its table [attacks.NAME] in a recipe) and a `prepare`
function that makes the thief from them. An adaptive form's file holds a thief that wraps another.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol

from attacks import knockoff
from attacks.averaging import AveragingThief
from attacks.clone import Cloning
from attacks.service import Service
from attacks.thief import Thief


class Prepare(Protocol):
    """Makes a thief from its parameters, what it knows of the service, the clone it is after (for attacks that train
    one between queries), a seed and the folder of data sets."""

    def __call__(
        self,
        parameters: Any,
        service: Service,
        *,
        cloning: Cloning,
        seed: int,
        root: str | os.PathLike[str] | None = None,
    ) -> Thief: ...


@dataclass(frozen=True)
class Attack:
    """One entry: the dataclass of the attack's table (see attacks.thief.Parameters), and its maker.

    learns: whether what it asks depends on the answers. If so, a thief who reads probabilities and one who reads
    labels alone send other queries, and each is a theft of its own.
    """

    parameters: type[Any]
    prepare: Prepare
    learns: bool


class Adapt(Protocol):
    """Wraps a thief in an adaptive form, whose own randomness `seed` owns."""

    def __call__(self, thief: Thief, *, seed: int) -> Thief: ...


ATTACKS = {
    "knockoff": Attack(knockoff.Knockoff, knockoff.prepare, learns=False),
}
ADAPTIVE: dict[str, Adapt] = {
    "averaging": AveragingThief,
}


def attack(name: str) -> Attack:
    """The attack called `name`. Raises ValueError that names the known ones."""
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}; expected one of {', '.join(ATTACKS)}")
    return ATTACKS[name]


def adaptive(name: str) -> Adapt:
    """The adaptive form called `name`. Raises ValueError that names the known ones."""
    if name not in ADAPTIVE:
        raise ValueError(f"unknown adaptive form {name!r}; expected one of {', '.join(ADAPTIVE)}")
    return ADAPTIVE[name]
