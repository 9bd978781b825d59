"""The perceptual-hash network: a classifier of a *secret* task that later picks the member for each query.

EDM, Kariyappa et al., ICLR 2021, sec. 4.2.1: a small network f_H trained on a task that the thief does not know; its
class and confidence on a query are the query's hash. What is written is the network in whole numbers (zoo/hash_net.py),
which answers with its penultimate features' side of secret hyperplanes as well: a tree of them, grown on the defender's
own mix of traffic (training/hash_tree.py). defenses/routing.py makes a hash of either answer.

    python -m training.perceptual_hash RECIPE

Reads [dataset] and [networks.hash]; writes runs/RECIPE/hash.safetensors. The secret task is "glyphs", a procedural task
drawn from the deployment's key, or a data set such as "kmnist:test". Either way weights, order and hyperplanes are
seeded from the key as well, so that only the key's owner can repeat the training: a new key gives a new hash.
"""

from __future__ import annotations

import argparse
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import recipes
from training.checkpoint import Architecture
from training.deployment_key import deployment_key
from training.hash_tree import Tree
from training.session import Optimisation, Session, run
from training.victim import Split, accuracy, architecture, fit, split, training_images
from zoo.augment import Affine
from zoo.datasets import Data, load
from zoo.fixed_point import fixed_point
from zoo.generator import untrained
from zoo.glyphs import glyphs
from zoo.hash_net import HashNet
from zoo.images import size_of, unit
from zoo.noise import noise
from zoo.shrink import copier

# what a copy may differ by and should still be answered by the same member
COPIES = (Affine(15, 0.1, 0.1), Affine(15, 0.1, 0.1), Affine(25, 0.2, 0.2), Affine(25, 0.2, 0.2))
# of the noise in the mix, from white noise to blurs of a few spots, as shares of the side
GRAINS = (0.0, 0.1, 0.2, 0.4)
# what data-free thieves begin with is public
GENERATORS = 5


@dataclass(frozen=True)
class Hash:
    """[networks.NAME] of the program hash: the secret task and the network that learns it.

    classes and per_class size the "glyphs" task; a data set brings its own. mix: data sets other than the victim's and
    the secret task's whose images the tree is balanced on, such as the auxiliary set; the defender does not know the
    thief's. mix_rows: images of each. size: side of the small copy that the network looks at; 0: the image.
    """

    task: str
    architecture: str
    optimisation: Optimisation
    classes: int = 10
    per_class: int = 1000
    options: dict[str, Any] = field(default_factory=dict)
    affine: Affine | None = None
    tree: Tree = field(default_factory=Tree)
    mix: tuple[str, ...] = ()
    mix_rows: int = 1000
    size: int = 0

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size: expected a side in pixels, or 0 for the image's, got {self.size}")
        if self.mix_rows < 1:
            raise ValueError(f"mix_rows: expected >= 1, got {self.mix_rows}")


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


def traffic(
    hash_net: Hash, task: Split, data: Data, *, generator: torch.Generator, root: Path | None
) -> Iterator[torch.Tensor]:
    """Images (mix_rows or fewer,C,S,S) of each kind of traffic that the tree is to be balanced on."""
    rows, (_, channels, size, _) = hash_net.mix_rows, task.images.shape
    yield task.images[:rows]
    own = training_images(data.load("train", root), data.rows)[:rows]
    yield copier(size_of(own), size)(unit(own))
    for name in hash_net.mix:
        yield load(name, "train", root=root, size=size, channels=channels).pixels[:rows]
    white, *blurred = (max(1, round(share * size)) for share in GRAINS)
    yield noise(rows, channels=channels, size=size, grain=white, generator=generator)
    part = -(-rows // len(blurred))
    yield torch.cat([noise(part, channels=channels, size=size, grain=g, generator=generator) for g in blurred])
    seeds, part = torch.randint(2**31, (GENERATORS,), generator=generator).tolist(), -(-rows // GENERATORS)
    yield torch.cat([untrained(part, channels=channels, size=size, seed=seed) for seed in seeds])


@torch.no_grad()
def hashing(network: nn.Module, mix: torch.Tensor, tree: Tree, *, generator: torch.Generator, secret: bytes) -> HashNet:
    """A float network of zoo.models in whole numbers, with the tree of hyperplanes that `secret` draws.

    network: is spent. mix: (n,C,S,S) images of all traffic in equal shares. generator: draws the images' copies.
    Raises FixedPointError.
    """
    fixed = fixed_point(network, mix)
    features = _features(fixed, mix)
    copies = np.stack([_features(fixed, affine(mix, generator=generator)) for affine in COPIES])
    made = HashNet(fixed, tree.nodes)
    made.place(*tree.grow(features, copies, np.random.default_rng(int.from_bytes(secret, "big"))))
    return made.eval()


def _features(fixed: nn.Module, images: torch.Tensor) -> np.ndarray:
    return torch.cat([fixed(part)[0] for part in images.split(512)]).double().numpy()


def main(arguments: argparse.Namespace) -> None:
    recipe = recipes.read(arguments.recipe)
    data, hash_net = recipe.section("dataset", Data), recipe.network(arguments.network, Hash)
    key = deployment_key("the secret hash network")
    session = Session(
        recipe.name,
        arguments.network,
        {"dataset": data, "hash": hash_net},
        runs=arguments.runs,
        seed=arguments.seed,
        secret=subkey(key, "seed"),
    )
    if session.done():
        return
    _, channels, height, width = data.load("test", arguments.data).stored.shape
    side = hash_net.size or height
    if not hash_net.size and height != width:
        raise ValueError(f"size: expected the side of a small square copy, images are {height} x {width}; give 28")
    task = secret_task(hash_net, key, size=side, channels=channels, root=arguments.data)
    plan = architecture(hash_net.architecture, hash_net.options, task)
    geometry = {"size": side if (height, width) == (side, side) else [height, width]}
    copied = {"shrunk": side} if (height, width) != (side, side) else {}
    whole = Architecture(plan.name, {**plan.arguments, **geometry, **copied, "projections": hash_net.tree.nodes})
    whole.network()  # an architecture that has no form in whole numbers is reported before it is trained
    trained = fit(session, task, plan, hash_net.optimisation, hash_net.affine).cpu().float()
    held_out = accuracy(trained, task.validation_images, task.validation_labels)
    mix = torch.cat([*traffic(hash_net, task, data, generator=session.generator, root=arguments.data)])
    made = hashing(trained, mix, hash_net.tree, generator=session.generator, secret=subkey(key, "hyperplanes"))
    # the secret task's images are small copies already
    answers = torch.cat([made(part)["probabilities"].argmax(1) for part in task.validation_images.split(512)])
    in_whole_numbers = (answers == task.validation_labels).float().mean().item()
    metrics = {"validation_accuracy": in_whole_numbers, "validation_accuracy_float": held_out}
    served = whole.network()
    served.load_state_dict(made.state_dict())
    session.finish([served], [whole], metrics)


if __name__ == "__main__":
    run("perceptual_hash", main, network="hash")
