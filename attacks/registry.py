"""The attacks by name, and the adaptive forms that any of them can take. To add one: its file, then one line here and
one in attacks/names.py.

An attack's file holds a frozen dataclass of hyper-parameters (its table [attacks.NAME] in a recipe) and a `prepare`
function that makes the thief from them. An adaptive form's file, in attacks/forms/, holds a thief that wraps another. A
form that copies images may take a number of copies after its name: "repeats-16" asks about every image 16 times.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from attacks import (
    augmented_seeds,
    dfme,
    dfms_hl,
    in_distribution,
    jbda,
    jbda_tr,
    knockoff,
    knockoff_adaptive,
    maze,
    mixed,
    near,
)
from attacks.clone import LABELS, Cloning
from attacks.forms.averaging import AveragingThief
from attacks.forms.consensus import ConsensusThief
from attacks.forms.filtered import FilteredThief
from attacks.forms.jittered import JitteredThief
from attacks.forms.matched import MatchedThief
from attacks.forms.own_noise import OwnNoiseThief
from attacks.forms.reconstructed import ReconstructedThief
from attacks.forms.repeats import RepeatsThief
from attacks.names import without_copies as without_copies
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

    learns: whether what it asks, or what it keeps of the answers, depends on them. If so, a thief that reads
    probabilities and one that reads labels alone end with different results, and each is a separate attack.
    ends_with_clone: whether it trains its clone while it queries. readings: what it can make use of, "soft" or "hard"
    labels. once: the parameter that names a data set whose images are all that it asks, each once; "" where it makes
    more.
    """

    parameters: type[Any]
    prepare: Prepare
    learns: bool = False
    ends_with_clone: bool = False
    readings: tuple[str, ...] = LABELS
    once: str = ""


class Wrap(Protocol):
    """Wraps a thief in an adaptive form, whose own randomness `seed` owns."""

    def __call__(self, thief: Thief, *, service: Service, cloning: Cloning, seed: int) -> Thief: ...


@dataclass(frozen=True)
class Form:
    """One adaptive form: what it wraps thieves in. learns: as of an attack (from more than refusals). copies: whether
    `wrap` takes a number of `copies` besides."""

    wrap: Wrap
    learns: bool = False
    copies: bool = False


# a request must hold all copies of an image
MOST_COPIES = 64


ATTACKS = {
    "knockoff": Attack(knockoff.Knockoff, knockoff.prepare, once="surrogate"),
    "knockoff-adaptive": Attack(
        knockoff_adaptive.KnockoffAdaptive, knockoff_adaptive.prepare, learns=True, once="surrogate"
    ),
    "in-distribution": Attack(in_distribution.InDistribution, in_distribution.prepare, once="dataset"),
    "near": Attack(near.Near, near.prepare),
    "augmented-seeds": Attack(augmented_seeds.AugmentedSeeds, augmented_seeds.prepare),
    "mixed": Attack(mixed.Mixed, mixed.prepare),
    "jbda": Attack(jbda.JBDA, jbda.prepare, learns=True),
    "jbda-tr": Attack(jbda_tr.JBDATR, jbda_tr.prepare, learns=True),
    "dfme": Attack(dfme.DFME, dfme.prepare, learns=True, ends_with_clone=True),
    "maze": Attack(maze.MAZE, maze.prepare, learns=True, ends_with_clone=True),
    "dfms-hl": Attack(dfms_hl.DfmsHl, dfms_hl.prepare, learns=True, ends_with_clone=True, readings=("hard",)),
}
FORMS = {
    # a mean of probabilities, or a vote of labels
    "averaging": Form(AveragingThief, learns=True, copies=True),
    "repeats": Form(RepeatsThief, learns=True, copies=True),
    "jittered": Form(JitteredThief, learns=True, copies=True),
    "consensus": Form(ConsensusThief, learns=True, copies=True),
    "own-noise": Form(OwnNoiseThief, learns=True),
    # learn of answers no more than whether they are refusals, which labels tell as well as probabilities
    "matched": Form(MatchedThief),
    "filtered": Form(FilteredThief),
    "reconstructed": Form(ReconstructedThief),
}


def attack(name: str) -> Attack:
    """The attack called `name`. Raises ValueError that names the known ones."""
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}; expected one of {', '.join(ATTACKS)}")
    return ATTACKS[name]


def form(name: str) -> Form:
    """The adaptive form called `name`, bound to the number of copies after it, if any: "repeats" or "repeats-16".
    Raises ValueError that names the known ones."""
    bare = without_copies(name)
    if bare not in FORMS:
        copying = ", ".join(known for known, entry in FORMS.items() if entry.copies)
        raise ValueError(
            f"unknown adaptive form {name!r}; expected one of {', '.join(FORMS)}; after {copying} a number of copies "
            f"may follow, 1 to {MOST_COPIES}, as in repeats-16"
        )
    found = FORMS[bare]
    if name == bare:
        return found
    if not found.copies:
        raise ValueError(f"adaptive form {name!r}: {bare} makes no copies; expected {bare} without a number")
    copies = int(name.removeprefix(f"{bare}-"))
    if copies > MOST_COPIES:
        raise ValueError(f"adaptive form {name!r}: expected 1 to {MOST_COPIES} copies, got {copies}")
    wrap: Callable[..., Thief] = found.wrap
    return replace(found, wrap=partial(wrap, copies=copies))
