"""Thieves that know all of a mark but its key, and clones that were changed after they had learnt it.

What a thief does with its answers is a `Lesson`: targets for the images it asked about, and how a clone is fitted to
them. What it does with the clone is an `Afterwards`: from the clone, its images and its answers, the probabilities that
the suspect gives to the owner's images. What network it trains is a family's (FAMILIES): one that learns the task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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


# an architecture and its options, as zoo.models.build spells them
Network = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Family:
    """What clones are: a network that learns the task, and one that learns less of it."""

    usual: Network
    smaller: Network


FAMILIES: Mapping[str, Family] = {
    "lenet5": Family(("lenet5", {}), ("lenet5-fifth", {})),
    # of photographs LeNet5 learns little; this one takes three times as long
    "resnet9": Family(("resnet9", {"width": 8}), ("resnet9", {"width": 4})),
}
LENET5 = FAMILIES["lenet5"]

Targets = Callable[[Loot], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Lesson:
    """How a thief trains: images and targets from its loot, the clone's training recipe, which network of a family, and
    for what share of the epochs."""

    targets: Targets
    recipe: CloneRecipe = AUGMENTED
    smaller: bool = False
    share: float = 1.0


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
    "smaller network": Lesson(asked, smaller=True),
    "half of the queries": Lesson(half),
    "half of the epochs": Lesson(asked, share=0.5),
    "averaged over copies": Lesson(averaged),
    "two accounts, half each": Lesson(merged),
    "two accounts compared": Lesson(compared),
    "mark taken off": Lesson(unmarked),
    "labels": Lesson(labels),
}
# who learn from the answers of two accounts of their own
OF_TWO = ("two accounts, half each", "two accounts compared")


@dataclass(frozen=True, eq=False)
class Taught:
    """A clone, and what made it: batches of 128, epochs, seed, its family."""

    network: nn.Module
    loot: Loot
    epochs: int
    seed: int
    family: Family = LENET5

    def again(self, images: torch.Tensor, targets: torch.Tensor) -> nn.Module:
        """A fresh clone of other targets."""
        classes, seed = self.loot.answers.shape[1], self.seed + 1
        return fitted(
            images, targets, Lesson(asked), classes=classes, epochs=self.epochs, seed=seed, family=self.family
        )


def learn(lesson: Lesson, loot: Loot, *, epochs: int, seed: int, family: Family = LENET5) -> nn.Module:
    """A clone of what the lesson makes of the loot."""
    images, targets = lesson.targets(loot)
    classes = loot.answers.shape[1]
    return fitted(images, targets, lesson, classes=classes, epochs=epochs, seed=seed, family=family)


def fitted(
    images: torch.Tensor,
    targets: torch.Tensor,
    lesson: Lesson,
    *,
    classes: int,
    epochs: int,
    seed: int,
    family: Family = LENET5,
) -> nn.Module:
    """A fresh network, trained on images with targets: labels int64 (n,) or probabilities (n,K)."""
    generator = torch.Generator().manual_seed(seed)
    images = images.contiguous(memory_format=torch.channels_last)
    with from_seed(seed, images.device):
        network = fresh(lesson, images, classes, family=family)
        epochs = max(1, round(lesson.share * epochs))
        fit(network, images, targets, lesson.recipe, epochs=epochs, batch_size=128, generator=generator)
    return network.eval()


def fresh(lesson: Lesson, images: torch.Tensor, classes: int, *, family: Family = LENET5) -> nn.Module:
    """An untrained clone, its weights from torch's global generator."""
    name, options = family.smaller if lesson.smaller else family.usual
    service = Service(images.shape[1], size_of(images), classes)
    network = untrained(Cloning(name, epochs=1, options=dict(options)), service, like=images)
    return network.to(memory_format=torch.channels_last)


def pruned(taught: Taught) -> nn.Module:
    """Trained again without the answers that the clone finds hardest."""
    loot = taught.loot
    logs = answers_of(taught.network, loot.images).clamp(min=1e-8).log()
    losses = -(loot.answers * logs).sum(1)
    kept = losses.argsort()[: round((1 - PRUNED) * len(losses))]
    return taught.again(loot.images[kept], loot.answers[kept])


def tuned(taught: Taught, *, images: int) -> nn.Module:
    """Fine-tuned on labelled images of the thief's own."""
    loot = taught.loot
    owned, truth = loot.owned[:images].contiguous(memory_format=torch.channels_last), loot.labels[:images]
    epochs = max(1, round(STEPS * 128 / len(owned)))
    generator = torch.Generator().manual_seed(taught.seed)
    config = replace(AUGMENTED, lr=RATE)
    fit(taught.network, owned, truth, config, epochs=epochs, batch_size=128, generator=generator)
    return taught.network.eval()


def distilled(taught: Taught) -> nn.Module:
    """A fresh network taught by the clone alone."""
    images = taught.loot.images
    return taught.again(images, answers_of(taught.network, images))


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
