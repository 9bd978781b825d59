"""What JBDA and JBDA-TR share: a set of images that doubles by steps along a clone's gradient.

Seeds of the victim's distribution are labelled by the victim. Then, each round: train a clone on all that was
answered, move a copy of every image along the clone's gradient, query the copies. The victim labels the copies, so what
the clone believes of them decides where is asked, never what is learnt.

Convention of the count: every image is asked about once and never again, and every round doubles the set, the last one
too: s seeds and R rounds are s * 2^R charged images (150 and 6: 9,600). Public code often augments one round less, or
relabels the whole set each round, which charges s * (2^R - 1) for half the images. A copy that equals an image that
was asked about before is not asked about.

The attack ends after its rounds, even where the budget would go further: more rounds, or rounds = 0 (until the budget
is spent), are the way to use it, and a reservoir keeps rounds from growing. Copies are asked about in random order, so
that a budget that ends within a round has seen all of it alike.

Signs of gradients are scale free, and so is what is differentiated here. The gradient of the cross entropy
CE(z, y) = softplus(lse_{k != y} z_k - z_y) is that of lse_{k != y} z_k - z_y times a positive factor; the factor
vanishes in float32 where the clone is certain, and took the sign with it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from attacks import clone, owned
from attacks.clone import CloneRecipe, Cloning
from attacks.script import Script, ScriptedThief
from attacks.seeded import seeded
from attacks.service import Service
from attacks.thief import check
from attacks.transfer import Collector, TransferSet

FITS = {
    "sgd": clone.RECIPES["sgd"],
    "adamw": clone.RECIPES["adamw"],
    # EDM's, but for the learning rate, which goes to zero as everywhere here
    "adam": CloneRecipe("adamw", lr=1e-3, weight_decay=0.0),
}
CHUNK = 512

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""logits (N, K), labels int64 (N,) -> what to climb, (N,)."""
Move = Callable[[nn.Module, torch.Tensor, torch.Tensor, int], torch.Tensor]
"""clone in evaluation mode, images float32 (N, C, H, W) in [0, 1] and their served labels int64 (N,), both on the CPU,
round from 0 -> the moved copies, like the images."""


@dataclass(frozen=True)
class Augmentation:
    """The hyper-parameters that both attacks share.

    dataset: where the seeds come from, the victim's task as zoo.datasets.load spells it: its training split, since the
        test split is the exam.
    budget: images the thief may be charged for. rows: images in one request.
    seeds: images the thief starts from, as many of each class as there can be.
    rounds: augmentations; 0: until the budget is spent.
    step: how far every pixel of [0, 1] moves, in all; copies are clipped to [0, 1].
    epochs, fit, batch_size: how the clone of a round is trained; fit is a name of FITS. Batches are smaller than the
        final clone's: 10 epochs of 150 images in batches of 128 are 20 steps.
    restart: train every round's clone from fresh weights; False: go on from the last round's, which has learnt all but
        the newest images already and costs no more.
    reservoir: from round `reservoir_from` on (counted from 0), move so many random images only; 0: always all.
    """

    dataset: str
    budget: int
    rows: int = 64
    seeds: int = 150
    rounds: int = 6
    step: float = 0.2
    epochs: int = 10
    fit: str = "adamw"
    batch_size: int = 32
    restart: bool = False
    reservoir: int = 0
    reservoir_from: int = 3

    def __post_init__(self) -> None:
        check(self)
        owned.check_seeds(self.seeds)
        if not 0 < self.step <= 1:
            raise ValueError(f"step: expected above 0 and up to 1, got {self.step}")
        if self.fit not in FITS:
            raise ValueError(f"fit: expected one of {', '.join(FITS)}, got {self.fit!r}")
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(f"expected epochs >= 1 and batch_size >= 2, got {self.epochs}, {self.batch_size}")
        if min(self.rounds, self.reservoir, self.reservoir_from) < 0:
            raise ValueError(
                f"rounds, reservoir, reservoir_from: expected 0 or more, got {self.rounds}, {self.reservoir}, "
                f"{self.reservoir_from}"
            )


def prepare(
    parameters: Augmentation,
    move: Move,
    service: Service,
    *,
    cloning: Cloning,
    generator: torch.Generator,
    root: str | os.PathLike[str] | None,
) -> ScriptedThief:
    """The thief that augments by `move`. `own` gives the seeds with their true labels.

    generator: the thief's, on the CPU, for the seeds, the clones, and the order of queries.
    """
    seeds = owned.seeds(parameters.dataset, parameters.seeds, service, root, generator=generator)
    script = augmenting(seeds.pixels, parameters, move, service, cloning=cloning, generator=generator)
    return ScriptedThief(script, own=seeds.as_transfer_set())


def augmenting(
    seeds: torch.Tensor,
    parameters: Augmentation,
    move: Move,
    service: Service,
    *,
    cloning: Cloning,
    generator: torch.Generator,
) -> Script:
    """The attack from its seeds, float32 (s, C, H, W) in [0, 1], on. Ends early where fewer than two images were
    answered, or where no copy is new."""
    known, asked, images = Collector(), set[bytes](), seeds
    network: nn.Module | None = None
    number, answered = 0, 0
    while True:
        images = _new(images, asked)
        if not len(images):
            return
        answers = yield images
        if not answers.refused.all():
            known.add(images, answers)
            answered += int((~answers.refused).sum())
        if answered < 2 or (parameters.rounds and number == parameters.rounds):
            return
        transfer = known.transfer_set()
        with seeded(generator, clone.here()):
            if network is None or parameters.restart:
                network = clone.untrained(cloning, service, like=seeds)
                network = network.to(memory_format=torch.channels_last).to(clone.here())
            _learn(network, transfer, parameters, generator)
        chosen = torch.randperm(len(transfer), generator=generator)
        if parameters.reservoir and number >= parameters.reservoir_from:
            chosen = chosen[: parameters.reservoir]
        images = move(network, transfer.images[chosen], transfer.labels[chosen], number)
        number += 1


def climb(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    """sign of the gradient by the pixels of `objective`: float32 like `images`, in {-1, 0, 1}, on the CPU.

    network: in evaluation mode, so that the rows are independent; its parameters gather no gradient.
    """
    device = next(network.parameters()).device
    signs = []
    for part, targets in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
        pixels = part.to(device).requires_grad_()
        with torch.enable_grad():
            total = objective(network(pixels), targets.to(device)).sum()
        (gradient,) = torch.autograd.grad(total, pixels)
        signs.append(gradient.sign().cpu())
    return torch.cat(signs)


def doubt(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """lse_{k != y} z_k - z_y, (N,): rises and falls with the cross entropy, and has a gradient wherever that has one.

    logits (N, K), K >= 2; labels int64 (N,)."""
    own = labels[:, None]
    others = logits.scatter(1, own, -torch.inf).logsumexp(dim=1)
    return others - logits.gather(1, own)[:, 0]


def logit(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """z_y, (N,), of logits (N, K) and labels int64 (N,)."""
    return logits.gather(1, labels[:, None])[:, 0]


def _learn(network: nn.Module, transfer: TransferSet, parameters: Augmentation, generator: torch.Generator) -> None:
    """Fit the clone to every answer there is, by cross entropy against the served probabilities or labels."""
    device = next(network.parameters()).device
    targets = transfer.labels if transfer.probabilities is None else transfer.soft_targets()
    clone.fit(
        network,
        transfer.images.to(device, memory_format=torch.channels_last),
        targets.to(device),
        FITS[parameters.fit],
        epochs=parameters.epochs,
        batch_size=parameters.batch_size,
        generator=generator,
    )
    network.eval()


def _new(images: torch.Tensor, asked: set[bytes]) -> torch.Tensor:
    """The images not yet in `asked`, which they join."""
    fresh = []
    for row, image in enumerate(images):
        key = hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()
        if key not in asked:
            asked.add(key)
            fresh.append(row)
    return images[fresh]
