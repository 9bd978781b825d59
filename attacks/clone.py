"""Clone training: what a thief does with a transfer set once the queries are paid for.

Soft labels are the served probabilities, renormalised where they do not sum to 1; hard labels the served label. What
the clone is drawn to is a recipe's loss (attacks/losses.py). Those of attacks/unmixing.py are for ensembles, and what
attacks/unexplained.py leaves of the answers is for a victim that misleads. Held-out answers cannot choose among them,
since they aim at what the answers hide: each counts as a separate thief.

The learning rate follows a cosine to zero, the network is always a fresh one (`Cloning.start` may lend it weights), and
its last state counts, never the best one on a test set.

The best training recipe of the clone differs from victim to victim, and judging a defense by one recipe proves nothing.
A thief can tell without the victim's test set: a tenth of the answered queries is held out of training, and the recipe
whose clones agree best with the held-out answers is the thief's choice (`best`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from attacks import metrics
from attacks.losses import LOSSES, Distance
from attacks.losses import centred_log as centred_log
from attacks.names import LABELS as LABELS
from attacks.names import best as best
from attacks.seeded import from_seed
from attacks.service import Service
from attacks.transfer import TransferSet
from attacks.unexplained import unexplained
from zoo import models, pretrained
from zoo.augment import Affine, Variation
from zoo.images import size_of

HELD_OUT = 0.1
# so that two rows are held out, the least one can choose by
LEAST_ROWS = 20
OPTIMISERS = ("sgd", "adamw")
# images, their labels -> bool (n,): the rows that a clone is fitted to
KEPT: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"unexplained": unexplained}


@dataclass(frozen=True)
class CloneRecipe:
    """How a clone is fitted: optimiser ("sgd", "adamw"), its constants, the random copies it sees in place of each
    image, the loss, one of losses.LOSSES, and which answers it is fitted to, one of KEPT; None: all."""

    optimiser: str
    lr: float
    weight_decay: float
    augment: Variation | None = None
    loss: str = "p"
    keep: str | None = None

    def __post_init__(self) -> None:
        choices = ("optimiser", self.optimiser, OPTIMISERS), ("loss", self.loss, LOSSES), ("keep", self.keep, KEPT)
        for name, value, known in choices:
            if value is not None and value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")

    def start(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over all of the network's parameters, at its highest learning rate."""
        if self.optimiser == "sgd":
            return torch.optim.SGD(
                network.parameters(), self.lr, momentum=0.9, weight_decay=self.weight_decay, nesterov=True, fused=True
            )
        return torch.optim.AdamW(network.parameters(), self.lr, weight_decay=self.weight_decay, fused=True)

    def distance(self, targets: torch.Tensor) -> Distance:
        """The loss of a batch against `targets`, labels int64 (n,) or probabilities float32 (n, K).
        Raises ValueError where the loss cannot read them."""
        labels, reads = "soft" if targets.is_floating_point() else "hard", LOSSES[self.loss].reads
        if labels not in reads:
            raise ValueError(f"{self.loss}: expected {' or '.join(reads)} labels, got {labels} ones")
        return LOSSES[self.loss].make(targets)


# The papers' thieves use SGD at 0.1, which collapses now and then on networks without batch normalisation (Conv3,
# LeNet5); half of that does not. Augmentation keeps to what leaves a digit or an object what it is, so that the answer
# still holds for the copy: no mirroring, and edges repeated in place of black borders.
RECIPES = {
    "sgd": CloneRecipe("sgd", lr=0.05, weight_decay=5e-4),
    "adamw": CloneRecipe("adamw", lr=3e-3, weight_decay=5e-4),
    "adamw-augmented": CloneRecipe(
        "adamw", lr=3e-3, weight_decay=5e-4, augment=Affine(degrees=10, shift=0.08, scale=0.1, fill="border")
    ),
    "adamw-log-p": CloneRecipe("adamw", lr=3e-3, weight_decay=5e-4, loss="log-p"),
}
# what a thief tries on any victim
USUAL = tuple(RECIPES)
# what a thief tries if it takes the victim for an ensemble
UNMIXING = ("centred", "mixture", "masked", "masked-log-p", "second-label", "prior-adjusted")
RECIPES |= {name: CloneRecipe("adamw", lr=3e-3, weight_decay=5e-4, loss=name) for name in UNMIXING}
# and if it takes the victim for one that misleads
RECIPES["unexplained"] = CloneRecipe("adamw", lr=3e-3, weight_decay=5e-4, keep="unexplained")


@dataclass(frozen=True)
class Cloning:
    """[clone].

    architecture, options: the clone's network, as zoo.models.build spells it.
    epochs, batch_size: the fit. recipes: those of RECIPES to try; the thief keeps the best one. apart: those that
    held-out answers cannot choose; each counts as a separate thief.
    seeds: one clone each (initial weights, held-out rows, order of batches).
    fractions: shares of the attack's budget at which the curve over queries is read.
    start: file of weights that the network begins with where they fit (zoo.pretrained); "" for none.
    """

    architecture: str
    epochs: int
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 128
    recipes: tuple[str, ...] = USUAL
    apart: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    fractions: tuple[float, ...] = (0.25, 0.5, 1.0)
    start: str = ""

    def __post_init__(self) -> None:
        models.named(self.architecture)
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(f"expected epochs >= 1 and batch_size >= 2, got {self.epochs}, {self.batch_size}")
        if not self.recipes or not self.seeds:
            raise ValueError(f"recipes, seeds: expected at least one, got {self.recipes}, {self.seeds}")
        for recipe in (*self.recipes, *self.apart):
            clone_recipe(recipe)
        if not all(0 < fraction <= 1 for fraction in self.fractions) or 1.0 not in self.fractions:
            raise ValueError(f"fractions: expected shares above 0 and up to 1, 1.0 among them, got {self.fractions}")


def clone_recipe(name: str) -> CloneRecipe:
    """The recipe called `name`. Raises ValueError that names the known ones."""
    if name not in RECIPES:
        raise ValueError(f"unknown clone recipe {name!r}; expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def recipe_reads(name: str, labels: str) -> bool:
    """Whether the recipe called `name` can be trained on such labels, "soft" or "hard"."""
    return labels in LOSSES[clone_recipe(name).loss].reads


@dataclass(frozen=True)
class Clone:
    """A trained clone, in evaluation mode, and its agreement with the thief's held-out answers, in [0, 1]."""

    network: nn.Module
    held_out: float


def train(
    transfer: TransferSet,
    cloning: Cloning,
    *,
    classes: int,
    labels: str,
    recipe: str,
    seed: int,
    device: torch.device | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Clone:
    """A fresh clone of `classes` outputs trained on the transfer set.

    labels: "soft" or "hard". recipe: a name of RECIPES. seed: owns initial weights, held-out rows, batches and
    augmentation; equal arguments give equal clones on one device and thread count. device: the first GPU where there
    is one, else the CPU. progress: called with (epochs done, mean loss) after each epoch.
    Raises ValueError for fewer than LEAST_ROWS answered rows, soft labels where the service returned labels only, and
    hard ones for a recipe that cannot read them (`recipe_reads`).
    """
    if labels not in LABELS:
        raise ValueError(f"labels: expected 'soft' or 'hard', got {labels!r}")
    if len(transfer) < LEAST_ROWS:
        raise ValueError(f"transfer set: expected at least {LEAST_ROWS} answered rows, got {len(transfer)}")
    device = device or here()
    config = clone_recipe(recipe)
    generator = torch.Generator().manual_seed(seed)
    kept, held_out = transfer.split(HELD_OUT, generator=generator)
    if config.keep is not None:
        left = KEPT[config.keep](kept.images, kept.labels)
        # where next to nothing is left, there was nothing to leave out
        kept = kept.where(left) if int(left.sum()) >= LEAST_ROWS else kept
    targets = kept.soft_targets() if labels == "soft" else kept.labels
    with from_seed(seed, device):
        channels, size = kept.images.shape[1], size_of(kept.images)
        network = untrained(cloning, Service(channels, size, classes), like=kept.images)
        network = network.to(memory_format=torch.channels_last).to(device)
        images = kept.images.to(device, memory_format=torch.channels_last)
        fit(
            network,
            images,
            targets.to(device),
            config,
            epochs=cloning.epochs,
            batch_size=cloning.batch_size,
            generator=generator,
            progress=progress,
        )
    return Clone(network, metrics.agreement(predict(network, held_out.images), held_out.labels))


def here() -> torch.device:
    """Where a thief trains: the first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def predict(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The network's labels, int64 (N,) on the CPU, for images float32 (N, C, H, W) in [0, 1]; sets it to eval."""
    network.eval()
    device = next(network.parameters()).device
    return torch.cat([network(batch.to(device)).argmax(dim=1).cpu() for batch in images.split(512)])


def untrained(cloning: Cloning, service: Service, *, like: torch.Tensor | None = None) -> nn.Module:
    """A network of `cloning`'s architecture, its weights drawn from torch's global generator, which the caller seeds;
    those that `cloning.start` holds are taken from there.

    like: the thief's images, float32 (n, C, H, W), by whose mean and spread its first layer normalises pixels in
    [0, 1]; by (x - 0.5) / 0.5 where a thief has none.
    """
    half = [0.5] * service.channels
    network = models.build(
        cloning.architecture,
        classes=service.classes,
        channels=service.channels,
        size=service.size,
        mean=half if like is None else like.mean(dim=(0, 2, 3)).tolist(),
        std=half if like is None else like.std(dim=(0, 2, 3)).clamp(min=1e-3).tolist(),
        **cloning.options,
    )
    if cloning.start:
        pretrained.take(network, cloning.start)
    return network


def fit(
    network: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    config: CloneRecipe,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train `network` in place for `epochs` under `config`, with a fresh optimiser and cosine schedule.

    images float32 (n, C, H, W) in [0, 1] and targets, int64 (n,) labels or float32 (n, K) rows that sum to 1, lie on
    the network's device. generator: a CPU one, owns the order of batches and augmentation.
    """
    network.train()
    distance = config.distance(targets)
    optimiser = config.start(network)
    batches = math.ceil(len(images) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs * batches)
    bf16 = images.device.type == "cuda" and torch.cuda.is_bf16_supported()
    for epoch in range(epochs):
        total = torch.zeros((), device=images.device)
        # near-equal batches: a last batch of one row would break batch normalisation
        for rows in torch.randperm(len(images), generator=generator).to(images.device).tensor_split(batches):
            batch = images[rows] if config.augment is None else config.augment(images[rows], generator=generator)
            with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = distance(network(batch), rows)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.detach()
        if progress is not None:
            progress(epoch + 1, total.item() / batches)
