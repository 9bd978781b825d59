"""What a thief could train without a single query, from its seed set, augmented without end.

A clone's accuracy shows an attack's gain only where it beats this. The seed set is small: plain training sees each
image once an epoch and stops there; with augmentation it trains as long as on answers:

    in each epoch `images` fresh copies v(x) of the owned images x, each as often as the others, with the labels of x

Everything else is as attacks.clone trains: architecture, recipe, number of steps, and a tenth of the owned images held
out, by which the thief chooses among recipes, the plain training without copies included.
"""

from __future__ import annotations

import dataclasses

import torch

from attacks import clone, metrics
from attacks.clone import HELD_OUT, LEAST_ROWS, Clone, Cloning
from attacks.seeded import from_seed
from attacks.service import Service
from attacks.transfer import TransferSet
from zoo.augment import Variation
from zoo.images import size_of

# a network's batch statistics need as many
FEWEST = 2


def train(
    own: TransferSet,
    cloning: Cloning,
    *,
    classes: int,
    recipe: str,
    variation: Variation,
    images: int,
    seed: int,
) -> Clone:
    """A fresh clone of `classes` outputs trained on copies that `variation` makes of what the thief owns.

    images: copies in an epoch, the queries that the thief is compared at; at least as many as it owns are made. recipe,
    seed: as of attacks.clone.train; the same rows are held out. Of fewer than LEAST_ROWS owned images none is held out,
    and the clone's `held_out` is 0: there is nothing to choose by.
    Raises ValueError for fewer than FEWEST owned images.
    """
    if len(own) < FEWEST:
        raise ValueError(f"owned images: expected at least {FEWEST}, got {len(own)}")
    config = dataclasses.replace(clone.clone_recipe(recipe), augment=variation)
    generator = torch.Generator().manual_seed(seed)
    kept, held_out = own.split(HELD_OUT if len(own) >= LEAST_ROWS else 0.0, generator=generator)
    rows = torch.arange(max(images, len(kept))) % len(kept)
    device = clone.here()
    with from_seed(seed, device):
        channels, size = kept.images.shape[1], size_of(kept.images)
        network = clone.untrained(cloning, Service(channels, size, classes), like=kept.images)
        network = network.to(memory_format=torch.channels_last).to(device)
        clone.fit(
            network,
            kept.images[rows].to(device, memory_format=torch.channels_last),
            kept.labels[rows].to(device),
            config,
            epochs=cloning.epochs,
            batch_size=cloning.batch_size,
            generator=generator,
        )
    agreement = metrics.agreement(clone.predict(network, held_out.images), held_out.labels) if len(held_out) else 0.0
    network.eval()
    return Clone(network, agreement)
