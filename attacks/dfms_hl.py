"""DFMS-HL: a thief without data of the task that receives labels only and generates its queries.

Sanyal et al., "Towards Data-Free Model Stealing in a Hard Label Setting", CVPR 2022. Labels give no gradient to learn a
generator by, so the generator learns to draw like unrelated proxy images (a DCGAN), and the thief's clone, not the
victim, shows which classes it draws too few of:

1. train a DCGAN on the proxies; 2. ask about proxies and about drawn images, train a clone on the labels;
3. train the DCGAN further on L = L_adv + w L_div, L_div = sum_k a_k log a_k, where a is the mean of the clone's softmax
over a batch: lowest where the batch holds all classes alike, and free of queries; 4. ask about what it draws now, train
the clone afresh on everything; 5. until the budget is spent: draw, warp, ask, one step of the clone, one of the
generator on L with a large w, one of the discriminator. Weight averages of the clone over the last part compete on
validation images that the thief drew and asked about; agreement counts every class of the victim alike.

Where the paper has millions of queries, this thief has some ten thousands, all of them counted: those for proxies and
validation images too, which the released code leaves out. So an answered image is used more than once (`replay`).
It reads labels even where the service returns probabilities.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from attacks import clone
from attacks.clone import Clone, Cloning, clone_recipe
from attacks.oracle import REFUSED, Answers
from attacks.script import Script, ScriptedThief
from attacks.seeded import from_seed
from attacks.service import Service
from zoo import datasets, dcgan
from zoo.augment import Affine
from zoo.images import sides

# the paper warps by AutoAugment, whose colours mean nothing here; asked about after the warp, so no label is wrong
WARP = Affine(degrees=15, shift=0.1, scale=0.15, fill="border")
# answered images over which the clone's foresight is counted
LATEST = 2000
PART = 500
# rows of a batch that batch normalisation can learn from
LEAST = 2
_SHARES = ("proxy_share", "drawn_share", "diverse_share", "validation_share")
_POSITIVE = ("budget", "rows", "filters", "latent", "gan_epochs", "diverse_epochs", "clone_epochs")


@dataclass(frozen=True)
class DfmsHl:
    """[attacks.dfms-hl]. The defaults are for one CPU core; the paper's values in parentheses.

    proxy, proxies: data set the generator learns to draw like, as zoo.datasets.load spells it, and images of it to use
        (CIFAR-100 classes of 500 images each).
    budget: images the thief is charged for. rows: images in one request.
    filters, latent: of the DCGAN (64, 100). gan_epochs, gan_batch, gan_lr: over the proxies (200, 64, 2e-4).
    diverse_epochs, diverse_weight: step 3 and its w (100, 10).
    proxy_share, drawn_share, diverse_share, validation_share: parts of the budget for proxies, for images of the DCGAN,
        for images of step 4 and for validation images; the rest is for step 5 (almost all of it).
    clone_recipe, clone_epochs: how the clone is trained in steps 2 and 4, as attacks.clone.RECIPES names it.
    batch, lr, weight: of step 5: images a step (128), the clone's highest learning rate, SGD (0.01), and w (500).
    replay: further steps of the clone on earlier answered images after each of step 5 (0). memory: how many of those,
        the latest ones, it remembers.
    decays: of the weight averages that compete with the clone itself (.5, .9, .99, .999, .9995, .9998).
    """

    proxy: str
    budget: int
    rows: int = 64
    proxies: int = 5_000
    filters: int = 8
    latent: int = dcgan.LATENT
    gan_epochs: int = 10
    gan_batch: int = 64
    gan_lr: float = 1e-3
    diverse_epochs: int = 2
    diverse_weight: float = 10.0
    proxy_share: float = 0.1
    drawn_share: float = 0.1
    diverse_share: float = 0.2
    validation_share: float = 0.02
    clone_recipe: str = "adamw"
    clone_epochs: int = 10
    batch: int = 128
    lr: float = 0.01
    weight: float = 500.0
    replay: int = 1
    memory: int = 50_000
    decays: tuple[float, ...] = (0.9, 0.99)

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("proxies", "gan_batch", "batch", "memory"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}: expected at least 2 images, got {getattr(self, name)}")
        for name in ("gan_lr", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected above 0, got {getattr(self, name)}")
        for name in ("diverse_weight", "weight", "replay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        shares = [getattr(self, name) for name in _SHARES]
        if min(shares) <= 0 or sum(shares) >= 1:
            raise ValueError(f"{', '.join(_SHARES)}: expected above 0 and together below 1, got {shares}")
        clone_recipe(self.clone_recipe)
        if not all(0 < decay < 1 for decay in self.decays):
            raise ValueError(f"decays: expected above 0 and below 1, got {self.decays}")

    def images(self, share: float) -> int:
        """So many images are `share` of the budget, at least one."""
        return max(1, round(share * self.budget))


def prepare(
    parameters: DfmsHl,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> ScriptedThief:
    """The thief of a recipe; `root` holds data sets. The DCGAN is trained when the first image is asked for."""
    drawing = Drawing(
        proxy=parameters.proxy,
        root=None if root is None else os.fspath(root),
        channels=service.channels,
        size=service.side,
        count=parameters.proxies,
        filters=parameters.filters,
        latent=parameters.latent,
        epochs=parameters.gan_epochs,
        batch=parameters.gan_batch,
        lr=parameters.gan_lr,
        seed=seed,
    )
    apprentice = Apprentice(parameters, service, cloning, seed=seed)
    return ScriptedThief(script(drawing, parameters, apprentice, seed=seed), clone=apprentice.clone, keep=LATEST)


def script(drawing: Drawing, parameters: DfmsHl, apprentice: Apprentice, *, seed: int) -> Script:
    """The attack, top to bottom; what it learns of the victim is in `apprentice`."""
    generator = torch.Generator().manual_seed(seed + 1)
    proxies, painter = trained(drawing)
    painter = copy.deepcopy(painter)

    def warped(drawn: torch.Tensor) -> torch.Tensor:
        return WARP(drawn, generator=generator).clamp(0, 1)

    def new(share: float) -> torch.Tensor:
        return warped(painter.draw(parameters.images(share), generator=generator))

    apprentice.begin(proxies)
    # the proxies are in random order already
    images = torch.cat([proxies[: parameters.images(parameters.proxy_share)], new(parameters.drawn_share)])
    yield from asking(images, apprentice)
    apprentice.study(generator)

    for _ in range(parameters.diverse_epochs):
        for shown in painter.batches(proxies, generator=generator):
            drawn = painter.paint(len(shown), generator=generator)
            painter.learn(shown, drawn, apprentice.network, weight=parameters.diverse_weight)

    images = new(parameters.diverse_share)
    yield from asking(images, apprentice)
    apprentice.begin(proxies)
    apprentice.study(generator)
    images = new(parameters.validation_share)
    apprentice.sit(images, (yield images))

    apprentice.practise(max(1, math.ceil((parameters.budget - apprentice.asked) / parameters.batch)))
    while True:
        drawn = painter.paint(parameters.batch, generator=generator)
        images = warped(drawn.detach().cpu())
        apprentice.hear(images, (yield images))
        apprentice.step(generator)
        shown = proxies[torch.randint(len(proxies), (parameters.batch,), generator=generator)]
        painter.learn(shown, drawn, apprentice.network, weight=parameters.weight)


def asking(images: torch.Tensor, apprentice: Apprentice) -> Script:
    """Ask about many images in parts, so that a clone taken in between measures how well it predicted them."""
    for part in images.split(PART):
        apprentice.hear(part, (yield part))


def diversity(logits: torch.Tensor) -> torch.Tensor:
    """L_div = sum_k a_k log a_k, a the mean over the batch of softmax(logits (N,K)): from -log K, where all classes are
    drawn alike, to 0, where one is."""
    # in logarithms, where the slope stays finite for a class that is not drawn at all
    log = logits.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits))
    return (log.exp() * log).sum()


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """All that a DCGAN depends on, and no victim: see DfmsHl."""

    proxy: str
    root: str | None
    channels: int
    size: int
    count: int
    filters: int
    latent: int
    epochs: int
    batch: int
    lr: float
    seed: int

    def proxies(self) -> torch.Tensor:
        """`count` random images of the proxy's training split, float32 (n, channels, size, size) in [0, 1]."""
        stored = datasets.load(self.proxy, "train", root=self.root, size=self.size, channels=self.channels).pixels
        order = torch.randperm(len(stored), generator=torch.Generator().manual_seed(self.seed))
        return stored[order[: self.count]]


class Painter:
    """A DCGAN with its optimisers, on the thief's device."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing
        self._device = clone.here()
        with from_seed(drawing.seed, self._device):
            geometry = {"channels": drawing.channels, "size": drawing.size, "filters": drawing.filters}
            self._generator: nn.Module = dcgan.Generator(**geometry, latent=drawing.latent)
            self._discriminator: nn.Module = dcgan.Discriminator(**geometry)
        for network in (self._generator, self._discriminator):
            network.to(self._device).to(memory_format=torch.channels_last)
        self._generators = torch.optim.Adam(self._generator.parameters(), drawing.lr, betas=(0.5, 0.999))
        self._discriminators = torch.optim.Adam(self._discriminator.parameters(), drawing.lr, betas=(0.5, 0.999))

    def paint(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """One batch of `count` images on the thief's device, which a loss of theirs can be traced back through."""
        latents = torch.randn(count, self._drawing.latent, generator=generator).to(self._device)
        images: torch.Tensor = self._generator(latents)
        return images

    @torch.no_grad()
    def draw(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """`count` >= 1 images on the CPU, painted in whole batches."""
        batch = self._drawing.batch
        parts = [self.paint(batch, generator=generator).cpu() for _ in range(math.ceil(count / batch))]
        return torch.cat(parts)[:count]

    def batches(self, proxies: torch.Tensor, *, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """The proxies once, in random order, in near-equal batches."""
        order = torch.randperm(len(proxies), generator=generator)
        for rows in order.tensor_split(math.ceil(len(proxies) / self._drawing.batch)):
            yield proxies[rows]

    def learn(
        self, shown: torch.Tensor, drawn: torch.Tensor, network: nn.Module | None = None, *, weight: float = 0.0
    ) -> None:
        """One step of the discriminator, and one of the generator that painted `drawn`.

        shown: proxies (n, C, H, W) in [0, 1]. network: the clone whose classes are to be drawn alike, by `weight`;
        its training mode, weights and statistics stay as they are.
        """
        loss = dcgan.discriminate(self._discriminator, shown.to(self._device), drawn)
        self._discriminators.zero_grad(set_to_none=True)
        loss.backward()
        self._discriminators.step()
        with _frozen(self._discriminator):
            loss = dcgan.deceive(self._discriminator, drawn)
            if network is not None and weight:
                with _frozen(network):
                    was_training = network.training
                    loss = loss + weight * diversity(network.eval()(drawn))
                    network.train(was_training)
            self._generators.zero_grad(set_to_none=True)
            loss.backward()
        self._generators.step()


@lru_cache(maxsize=4)
def trained(drawing: Drawing) -> tuple[torch.Tensor, Painter]:
    """Step 1: the proxies and the DCGAN that draws like them. Needs no victim, so the thefts from several victims share
    it; who trains it further does so with a copy."""
    generator = torch.Generator().manual_seed(drawing.seed)
    proxies, painter = drawing.proxies(), Painter(drawing)
    for _ in range(drawing.epochs):
        for shown in painter.batches(proxies, generator=generator):
            painter.learn(shown, painter.paint(len(shown), generator=generator))
    return proxies, painter


class Memory:
    """The latest `most` images that were answered, with their labels, on the CPU."""

    def __init__(self, most: int, service: Service) -> None:
        self._images = torch.empty(most, service.channels, *sides(service.size))
        self._labels = torch.empty(most, dtype=torch.int64)
        self._added = 0

    def add(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Remember these, and forget as many of the oldest where there is no room."""
        places = torch.arange(self._added, self._added + len(labels))[-len(self._labels) :] % len(self._labels)
        self._images[places], self._labels[places] = images[-len(places) :], labels[-len(places) :]
        self._added += len(labels)

    def all(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (n, C, H, W) and labels (n,), in no particular order: views of what later ones may replace."""
        held = min(self._added, len(self._labels))
        return self._images[:held], self._labels[:held]

    def some(self, count: int, *, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` of them, drawn with replacement; none from an empty memory."""
        images, labels = self.all()
        rows = torch.randint(max(1, len(labels)), (count if len(labels) else 0,), generator=generator)
        return images[rows], labels[rows]


class Apprentice:
    """The clone, its weight averages, and what the victim said to it. Learns nothing but labels."""

    network: nn.Module

    def __init__(self, parameters: DfmsHl, service: Service, cloning: Cloning, *, seed: int) -> None:
        self._parameters, self._service, self._cloning, self._seed = parameters, service, cloning, seed
        self._device = clone.here()
        # the clone itself first; the others follow it slowly
        self._averages: list[nn.Module] = []
        self._decays: tuple[float, ...] = (0.0,)
        self._foreseen = torch.empty(1, 0, dtype=torch.bool)
        self._memory = Memory(min(parameters.memory, parameters.budget), service)
        self._validation = self._memory.all()
        self._latest = self._memory.all()
        self._done = 0
        self.asked = 0

    def begin(self, proxies: torch.Tensor) -> None:
        """A network without experience, which normalises by the mean and spread of the proxies."""
        with from_seed(self._seed, self._device):
            self.network = clone.untrained(self._cloning, self._service, like=proxies)
        self.network.to(self._device).to(memory_format=torch.channels_last)
        self._averages = [self.network]
        self._learned = False

    def hear(self, images: torch.Tensor, answers: Answers) -> None:
        """Count the correctly predicted answers, and remember the answered images."""
        self._latest = asked, labels = self._answered(images, answers)
        # the predictions of an untrained network tell nothing about the later one
        if len(labels) and self._learned:
            foreseen = torch.stack([clone.predict(each, asked) == labels for each in self._averages])
            self._foreseen = torch.cat([self._foreseen, foreseen], dim=1)[:, -LATEST:]
        self._memory.add(asked, labels)

    def sit(self, images: torch.Tensor, answers: Answers) -> None:
        """Set these images aside: the averages are compared by them, and never learn them."""
        self._validation = self._answered(images, answers)

    def study(self, generator: torch.Generator) -> None:
        """Steps 2 and 4: train the network on all that is remembered, for whole epochs."""
        images, labels = self._memory.all()
        if len(labels) < LEAST:
            return
        self._learned = True
        clone.fit(
            self.network,
            images.to(self._device, memory_format=torch.channels_last),
            labels.to(self._device),
            clone_recipe(self._parameters.clone_recipe),
            epochs=self._parameters.clone_epochs,
            batch_size=self._parameters.batch,
            generator=generator,
        )

    def practise(self, steps: int) -> None:
        """Get ready for step 5, `steps` steps of it: SGD, its rate rising over the first tenth, then a cosine to 0."""
        self._steps = steps
        self._optimiser = torch.optim.SGD(
            self.network.parameters(), self._parameters.lr, momentum=0.9, weight_decay=5e-4
        )
        self._decays = (0.0, *self._parameters.decays)
        self._averages = [self.network, *(copy.deepcopy(self.network) for _ in self._parameters.decays)]
        self._foreseen = self._foreseen.repeat(len(self._decays), 1)

    def step(self, generator: torch.Generator) -> None:
        """Learn from what was heard last, then, `replay` times, from a random part of all that is remembered."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._parameters.lr * rate(self._done, self._steps)
        self._done += 1
        self._learn(*self._latest)
        for _ in range(self._parameters.replay):
            self._learn(*self._memory.some(self._parameters.batch, generator=generator))
        for average, decay in zip(self._averages[1:], self._decays[1:], strict=True):
            _follow(average, self.network, decay)

    def clone(self) -> Clone | None:
        """A copy of the average that agrees best with the validation answers, and how often it recently predicted an
        answer (0 where none was asked about since it first learned); None before the first query."""
        if not self._averages:
            return None
        images, labels = self._validation
        scores = (
            [balanced_agreement(clone.predict(each, images), labels) for each in self._averages]
            if len(labels)
            else [0.0]
        )
        chosen = scores.index(max(scores))
        foreseen = self._foreseen[chosen].float().mean().item() if self._foreseen.shape[1] else 0.0
        return Clone(copy.deepcopy(self._averages[chosen]).cpu().eval(), foreseen)

    def _answered(self, images: torch.Tensor, answers: Answers) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += len(images)
        kept = answers.labels != REFUSED
        return images[kept], answers.labels[kept]

    def _learn(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        if len(labels) < LEAST:
            return
        logits = self.network.train()(images.to(self._device, memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels.to(self._device))
        self._learned = True
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()


def rate(done: int, steps: int) -> float:
    """The part of the highest learning rate after `done` of `steps` steps: rising over the first tenth, never above a
    cosine to 0."""
    warm_up = max(1, steps // 10)
    return min((done + 1) / warm_up, (1 + math.cos(math.pi * min(done / steps, 1))) / 2)


def balanced_agreement(predicted: torch.Tensor, labels: torch.Tensor) -> float:
    """How often predicted (N,) equals labels (N,), N >= 1: the mean over the labels' classes, rare ones counting as
    much as frequent ones."""
    _, classes = labels.unique(return_inverse=True)
    equal = torch.bincount(classes, weights=(predicted == labels).double())
    return (equal / torch.bincount(classes)).mean().item()


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * network; counters are taken over as they are."""
    for slow, fast in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through `network` and leave none in it."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
