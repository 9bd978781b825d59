"""MAZE, data-free model stealing by zeroth-order gradient estimation (Kariyappa, Prakash, Qureshi, CVPR 2021).

The thief owns no image. As in DFME a generator G and a clone C play against each other over the victim T's answers,
here with

    min over C, max over G, of  E_z KL(T(G(z)) || C(G(z)))

and the gradient that G climbs is a mean over m = 10 random directions (attacks.zeroth_order). A cycle is one step of G,
five steps of C on fresh images, the first of them those that G's step has paid for, and ten steps of C on images
answered earlier, so that it does not forget what G has left behind: B (m + 1 + 4) queries in all.

The defaults are for some 300,000 queries in place of the paper's millions: batches of 64 (128), and Adam for both
networks (SGD), since the generator takes a few hundred steps only.

The code released with DFME and with several defenses has a "--MAZE" switch without replay: that is not MAZE. Its own
code remembers every answer; here the memory is a fair sample of them all, of a stated size.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from attacks.clone import CloneRecipe, Cloning
from attacks.oracle import distributions
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.zeroth_order import KEEP, Apprentice, Forger, Probes, at_least, players, positive

OPTIMISERS = ("adamw", "sgd")
# of the generator, the authors' own
LATENT = 100


@dataclass(frozen=True)
class MAZE:
    """[attacks.maze].

    budget: images the thief may be charged for. rows: images in one request.
    batch: images of one step. clone_steps, replay_steps: of the clone, for each step of the generator, on fresh
    images and on remembered ones. replay_images: how many are remembered.
    planned: queries that the learning rates are laid out for, where the thief means to go on; 0: the budget.
    epsilon, directions: of the forward differences.
    filters: the generator's width; the paper's is 64. lr_generator: of its Adam.
    optimiser, lr_clone, weight_decay: of the clone, "adamw" or "sgd".
    """

    budget: int = 300_000
    rows: int = 64
    batch: int = 64
    clone_steps: int = 5
    replay_steps: int = 10
    replay_images: int = 20_000
    planned: int = 0
    epsilon: float = 1e-3
    directions: int = 10
    filters: int = 32
    lr_generator: float = 1e-3
    optimiser: str = "adamw"
    lr_clone: float = 1e-3
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "rows", "clone_steps", "replay_images", "directions", "filters")
        at_least(self, 2, "batch")
        at_least(self, 0, "replay_steps", "weight_decay", "planned")
        positive(self, "epsilon", "lr_generator", "lr_clone")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser: expected 'adamw' or 'sgd', got {self.optimiser!r}")

    def rate(self, asked: int) -> float:
        """The share of their highest at which the learning rates are after `asked` queries: a cosine down to 0."""
        return (1 + math.cos(math.pi * min(asked / (self.planned or self.budget), 1.0))) / 2


class Replay:
    """A fair sample of at most `size` of all answered images it was shown (Vitter's algorithm R, batch by batch).

    draws: owns which are kept and which are drawn.
    """

    def __init__(self, size: int, *, draws: torch.Generator) -> None:
        self._size = size
        self._draws = draws
        self._seen = 0
        self._images = torch.empty(0)
        self._responses = torch.empty(0)

    def __len__(self) -> int:
        return min(self._seen, self._size)

    def add(self, images: torch.Tensor, responses: torch.Tensor) -> None:
        """Remember answered images (N, C, H, W) with their responses (N, K); refused rows (NaN) are left out."""
        answered = ~responses.isnan().any(dim=1)
        images, responses = images[answered], responses[answered]
        if not len(images):
            return
        if not self._seen:  # all of the memory at once, so that it does not grow with the queries
            self._images = images.new_zeros(self._size, *images.shape[1:])
            self._responses = responses.new_zeros(self._size, *responses.shape[1:])
        # the n-th image ever seen goes to one of n places, of which only the first `size` exist
        numbers = torch.arange(self._seen, self._seen + len(images))
        drawn = (torch.rand(len(images), generator=self._draws, dtype=torch.float64) * (numbers + 1)).long()
        places = torch.where(numbers < self._size, numbers, drawn)
        latest = {place: row for row, place in enumerate(places.tolist()) if place < self._size}
        self._images[list(latest)] = images[list(latest.values())]
        self._responses[list(latest)] = responses[list(latest.values())]
        self._seen += len(images)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` of the remembered images, with replacement, and their responses."""
        rows = torch.randint(len(self), (count,), generator=self._draws).to(self._images.device)
        return self._images[rows], self._responses[rows]


def loss(logits: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """KL(responses || softmax(logits)) of each image: (N, K), (N, K) rows that sum to 1 -> (N,)."""
    return (torch.xlogy(responses, responses) - responses * F.log_softmax(logits, dim=1)).sum(dim=1)


def script(config: MAZE, classes: int, forger: Forger, apprentice: Apprentice, draws: torch.Generator) -> Script:
    """Cycles until `config.budget` images were asked about."""
    replay = Replay(config.replay_images, draws=draws)
    asked = 0
    while asked < config.budget:
        rate = config.rate(asked)

        before = forger.before_tanh(config.batch)
        probes = Probes.around(before, directions=config.directions, epsilon=config.epsilon, draws=draws)
        images = probes.images()
        answers = yield images.cpu()
        asked += len(images)
        guesses = apprentice.logits(images)
        apprentice.judge(guesses[: config.batch], answers.labels[: config.batch])
        wanted = distributions(answers, classes).to(images.device)
        forger.climb(before, probes.gradient(loss(guesses, wanted)), rate=rate)

        images, wanted = images[: config.batch], wanted[: config.batch]
        for step in range(config.clone_steps):
            if step:
                images = forger.images(config.batch)
                answers = yield images.cpu()
                asked += len(images)
                wanted = distributions(answers, classes).to(images.device)
            apprentice.study(images, wanted, loss, rate=rate)
            replay.add(images, wanted)

        for _ in range(config.replay_steps if len(replay) else 0):
            apprentice.study(*replay.draw(config.batch), loss, rate=rate)


def prepare(
    parameters: MAZE,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> ScriptedThief:
    """The thief of a recipe, after a clone of `cloning`'s architecture.

    root: not needed, since this thief has no data.
    """
    config = parameters
    forger, apprentice, draws = players(
        service,
        cloning,
        CloneRecipe(config.optimiser, config.lr_clone, config.weight_decay),
        lr_generator=config.lr_generator,
        filters=config.filters,
        latent=LATENT,
        affine=True,
        seed=seed,
    )
    return ScriptedThief(script(config, service.classes, forger, apprentice, draws), clone=apprentice.clone, keep=KEEP)
