"""Thieves that know all of a mark but its key, and clones that were changed after they had learnt it.

What a thief does with its answers is a `Lesson`: targets for the images it asked about, and how a clone is fitted to
them. What it does with the clone is an `Afterwards`: from the clone, its images and its answers, the probabilities that
the suspect gives to the owner's images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from attacks.clone import RECIPES, CloneRecipe, Cloning, fit, untrained
from attacks.seeded import from_seed
from attacks.service import Service
from zoo.images import size_of

AUGMENTED = RECIPES["adamw-augmented"]
# share of the answers with the largest loss that a thief throws away
PRUNED = 0.1
# probability that a thief spreads over all classes
SMOOTHED = 0.1
# fine-tuning: steps of the same batches, at a third of the rate
STEPS, RATE = 80, 1e-3


@dataclass(frozen=True, eq=False)
class Loot:
    """What a thief has: images (n,C,H,W) that it asked about, the answers of its account and of a second account of
    its own, both (n,K), the mean of its account's answers to jittered copies, and `owned` labelled images that it asked
    nobody about, with their labels. strength: of the mark, which it knows."""

    images: torch.Tensor
    answers: torch.Tensor
    other: torch.Tensor
    averaged: torch.Tensor
    owned: torch.Tensor
    labels: torch.Tensor
    strength: float


Targets = Callable[[Loot], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Lesson:
    """How a thief trains: images and targets from its loot, the clone's training recipe and architecture."""

    targets: Targets
    recipe: CloneRecipe = AUGMENTED
    architecture: str = "lenet5"


def asked(loot: Loot) -> tuple[torch.Tensor, torch.Tensor]:
    """The answers as they came."""
    return loot.images, loot.answers


def top(loot: Loot, *, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest probabilities alone, renormalised."""
    values, places = loot.answers.topk(kept, dim=1)
    shown = torch.zeros_like(loot.answers).scatter(1, places, values)
    return loot.images, shown / shown.sum(1, keepdim=True)


def rounded(loot: Loot, *, digits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities to so many decimals, renormalised."""
    shown = loot.answers.round(decimals=digits)
    return loot.images, shown / shown.sum(1, keepdim=True)


def warmed(loot: Loot, *, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """p^(1/T), renormalised: the small probabilities count for more, the mark with them."""
    return loot.images, (loot.answers.clamp(min=1e-8).log() / temperature).softmax(1)


def smoothed(loot: Loot) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixed with the uniform distribution."""
    return loot.images, (1 - SMOOTHED) * loot.answers + SMOOTHED / loot.answers.shape[1]


def labels(loot: Loot) -> tuple[torch.Tensor, torch.Tensor]:
    """The top class alone."""
    return loot.images, loot.answers.argmax(1)


def half(loot: Loot) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the first half of the queries."""
    count = len(loot.images) // 2
    return loot.images[:count], loot.answers[:count]


def averaged(loot: Loot) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over jittered copies, each charged."""
    return loot.images, loot.averaged


def merged(loot: Loot) -> tuple[torch.Tensor, torch.Tensor]:
    """Every other image asked about by a second account."""
    mixed = loot.answers.clone()
    mixed[1::2] = loot.other[1::2]
    return loot.images, mixed


def compared(loot: Loot) -> tuple[torch.Tensor, torch.Tensor]:
    """Of two accounts that both ask everything, the smaller probability of each class: keyed classes differ."""
    least = torch.minimum(loot.answers, loot.other)
    return loot.images, least / least.sum(1, keepdim=True)


def unmarked(loot: Loot) -> tuple[torch.Tensor, torch.Tensor]:
    """The strength of the mark taken off the second largest probability, where the mark most likely is."""
    second = loot.answers.topk(2, dim=1).indices[:, 1:]
    less = (loot.answers.gather(1, second) - loot.strength).clamp(min=0)
    shown = loot.answers.scatter(1, second, less)
    return loot.images, shown / shown.sum(1, keepdim=True)


LESSONS: Mapping[str, Lesson] = {
    "soft": Lesson(asked),
    "soft, not augmented": Lesson(asked, RECIPES["adamw"]),
    "soft, log p": Lesson(asked, replace(AUGMENTED, loss="log-p")),
    "top 3": Lesson(lambda loot: top(loot, kept=3)),
    "two decimals": Lesson(lambda loot: rounded(loot, digits=2)),
    "temperature 3": Lesson(lambda loot: warmed(loot, temperature=3)),
    "label smoothing": Lesson(smoothed),
    "weight decay x 100": Lesson(asked, replace(AUGMENTED, weight_decay=5e-2)),
    "smaller network": Lesson(asked, architecture="lenet5-fifth"),
    "half of the queries": Lesson(half),
    "averaged over copies": Lesson(averaged),
    "two accounts, half each": Lesson(merged),
    "two accounts compared": Lesson(compared),
    "mark taken off": Lesson(unmarked),
    "labels": Lesson(labels),
}


@dataclass(frozen=True, eq=False)
class Taught:
    """A clone, and what made it: batches of 128, epochs, seed."""

    network: nn.Module
    loot: Loot
    epochs: int
    seed: int


def learn(lesson: Lesson, loot: Loot, *, epochs: int, seed: int) -> nn.Module:
    """A clone of what the lesson makes of the loot."""
    images, targets = lesson.targets(loot)
    return fitted(images, targets, lesson, classes=loot.answers.shape[1], epochs=epochs, seed=seed)


def fitted(
    images: torch.Tensor, targets: torch.Tensor, lesson: Lesson, *, classes: int, epochs: int, seed: int
) -> nn.Module:
    """A fresh network, trained on images with targets: labels int64 (n,) or probabilities (n,K)."""
    generator = torch.Generator().manual_seed(seed)
    with from_seed(seed, images.device):
        network = fresh(lesson, images, classes, epochs=epochs)
        fit(network, images, targets, lesson.recipe, epochs=epochs, batch_size=128, generator=generator)
    return network.eval()


def fresh(lesson: Lesson, images: torch.Tensor, classes: int, *, epochs: int) -> nn.Module:
    """An untrained clone, its weights from torch's global generator."""
    service = Service(images.shape[1], size_of(images), classes)
    return untrained(Cloning(lesson.architecture, epochs), service, like=images)


def pruned(taught: Taught) -> nn.Module:
    """Trained again without the answers that the clone finds hardest."""
    loot = taught.loot
    logs = answers_of(taught.network, loot.images).clamp(min=1e-8).log()
    losses = -(loot.answers * logs).sum(1)
    kept = losses.argsort()[: round((1 - PRUNED) * len(losses))]
    classes = loot.answers.shape[1]
    return fitted(
        loot.images[kept],
        loot.answers[kept],
        Lesson(asked),
        classes=classes,
        epochs=taught.epochs,
        seed=taught.seed + 1,
    )


def tuned(taught: Taught, *, images: int) -> nn.Module:
    """Fine-tuned on labelled images of the thief's own."""
    loot = taught.loot
    owned, truth = loot.owned[:images], loot.labels[:images]
    epochs = max(1, round(STEPS * 128 / len(owned)))
    generator = torch.Generator().manual_seed(taught.seed)
    config = replace(AUGMENTED, lr=RATE)
    fit(taught.network, owned, truth, config, epochs=epochs, batch_size=128, generator=generator)
    return taught.network.eval()


def distilled(taught: Taught) -> nn.Module:
    """A fresh network taught by the clone alone."""
    loot = taught.loot
    answers = answers_of(taught.network, loot.images)
    classes = answers.shape[1]
    return fitted(loot.images, answers, Lesson(asked), classes=classes, epochs=taught.epochs, seed=taught.seed + 1)


def in_8_bits(taught: Taught) -> nn.Module:
    """Weights rounded to 255 levels, a tensor each, as int8 weights are."""
    with torch.no_grad():
        for weights in taught.network.parameters():
            scale = weights.abs().max() / 127
            weights.copy_((weights / scale.clamp(min=1e-12)).round() * scale)
    return taught.network


AFTERWARDS: Mapping[str, Callable[[Taught], nn.Module]] = {
    "pruned, trained again": pruned,
    "fine-tuned on 150": lambda taught: tuned(taught, images=150),
    "fine-tuned on 1,000": lambda taught: tuned(taught, images=1000),
    "distilled again": distilled,
    "served in int8": in_8_bits,
}


@torch.inference_mode()
def answers_of(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(N,K) probabilities of a network in evaluation mode."""
    network.eval()
    return torch.cat([network(batch).softmax(1) for batch in images.split(500)])
