"""The names by which results of attacks are read, and no more: this module needs no torch, so that printing a table
needs none.

The attacks and forms themselves are in attacks/registry.py; a test holds the names here against it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import mean

# the readings of the answers: probabilities, or the label alone
LABELS = ("soft", "hard")
# each attack, and the readings that it can make use of
ATTACKS: dict[str, tuple[str, ...]] = {
    "knockoff": LABELS,
    "knockoff-adaptive": LABELS,
    "in-distribution": LABELS,
    "near": LABELS,
    "augmented-seeds": LABELS,
    "mixed": LABELS,
    "jbda": LABELS,
    "jbda-tr": LABELS,
    "dfme": LABELS,
    "maze": LABELS,
    "dfms-hl": ("hard",),
}
# the adaptive forms
FORMS = ("averaging", "repeats", "jittered", "consensus", "own-noise", "matched", "filtered", "reconstructed")
# made against a gate: a matrix without one does not miss them
GATE_AWARE = ("near", "augmented-seeds", "mixed", "matched", "filtered", "reconstructed")
# of an image, by a form that copies images and gives no number
COPIES = 5


def in_form(attack: str, adaptive: str | None) -> str:
    """What results call an attack and its form, if it has one: "knockoff (matched)"."""
    return attack if adaptive is None else f"{attack} ({adaptive})"


def without_copies(name: str) -> str:
    """The bare name of a form that may carry a number of copies: "repeats" of "repeats-16"."""
    return re.sub(r"-[1-9][0-9]*$", "", name)


def best(held_out: Mapping[str, Sequence[float]]) -> str:
    """The recipe a thief would choose: the highest mean held-out agreement over its clones; the first of equals."""
    if not held_out:
        raise ValueError("expected at least one recipe to choose from, got none")
    return max(held_out, key=lambda recipe: mean(held_out[recipe]))
