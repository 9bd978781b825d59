"""The perceptual-hash network: a classifier of a *secret* task that later picks the member for each query.

EDM, Kariyappa et al., ICLR 2021, sec. 4.2.1: a small network f_H trained on a task that the thief does not know; its
class and confidence on a query are the query's hash (defenses/routing.py makes the hash of its answers).

    python -m training.perceptual_hash RECIPE

Reads [dataset] for the geometry and [hash]; writes runs/RECIPE/hash.safetensors. The secret task is "glyphs", a
procedural task drawn from the deployment's key, or a data set such as "kmnist:test". Either way weights and order
are seeded from the key as well, so that nobody can repeat the training: a new key gives a new hash.
"""

from __future__ import annotations

import argparse
import hmac
import os
from dataclasses import dataclass, field
from typing import Any

import recipes
from handlers.key import read_key
from training.session import Optimisation, Session, run
from training.victim import Split, architecture, fit, split
from zoo.augment import Affine
from zoo.datasets import Data, load
from zoo.glyphs import glyphs

KEY = "TORCHWARDEN_KEY"


@dataclass(frozen=True)
class Hash:
    """[hash]: the secret task and the network that learns it.

    classes and per_class size the "glyphs" task; a data set brings its own.
    """

    task: str
    architecture: str
    optimisation: Optimisation
    classes: int = 10
    per_class: int = 1000
    options: dict[str, Any] = field(default_factory=dict)
    affine: Affine | None = None


def secret_task(hash_net: Hash, key: bytes, *, size: int, channels: int, root: str | None) -> Split:
    """The secret task's images at the victim's geometry, with a validation part the network never trains on."""
    if hash_net.task != "glyphs":
        return split(load(hash_net.task, "train", root=root, size=size, channels=channels))
    secret = subkey(key, "glyphs")
    shape: dict[str, int] = {"classes": hash_net.classes, "size": size, "channels": channels}
    seen = glyphs(secret, per_class=hash_net.per_class, draw=0, **shape)
    fresh = glyphs(secret, per_class=max(1, hash_net.per_class // 10), draw=1, **shape)
    assert seen.labels is not None
    assert fresh.labels is not None
    return Split(seen.pixels, seen.labels, fresh.pixels, fresh.labels, seen.classes)


def subkey(key: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose only: HMAC-SHA256(key, "torchwarden/hash-net/" + purpose)."""
    return hmac.digest(key, f"torchwarden/hash-net/{purpose}".encode(), "sha256")


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    data, hash_net = recipe.section("dataset", Data), recipe.section("hash", Hash)
    try:
        key = read_key(KEY, os.environ)
    except RuntimeError as error:
        raise ValueError(f"the secret hash network needs the deployment's key: {error}") from error
    session = Session(
        recipe.name,
        "hash",
        {"dataset": data, "hash": hash_net},
        runs=arguments.runs,
        seed=arguments.seed,
        secret=subkey(key, "seed"),
    )
    if session.done():
        return
    _, channels, size, _ = data.load("test", arguments.data).pixels.shape
    task = secret_task(hash_net, key, size=size, channels=channels, root=arguments.data)
    plan = architecture(hash_net.architecture, hash_net.options, task)
    fit(session, task, plan, hash_net.optimisation, hash_net.affine)


if __name__ == "__main__":
    run("perceptual_hash", main)
