"""DFME, data-free model extraction (Truong, Maini, Walls, Papernot, CVPR 2021).

The thief owns no image. A generator G and a clone S play against each other over the victim V's answers:

    min over S, max over G, of  E_z  1/K sum_k | S_k(G(z)) - l_k(G(z)) |,    l = log p - mean_k log p_k

where l are the victim's logits, recovered but for a constant from the probabilities p that it serves. G climbs a
zeroth-order estimate of the gradient (attacks.zeroth_order). A cycle is one step of G, which costs m + 1 queries an
image, and five steps of S on fresh images.

The defaults are for some 300,000 queries, a hundredth of the paper's, where what counts is the number of steps:
batches of 64 (256), a generator that learns ten times as fast (1e-4), a clone that learns by AdamW (SGD at 0.1, too
hot for networks without batch normalisation), and rates that fall late (at 10, 30 and 50 % of the budget).

The released code hands tanh's [-1, 1] to a victim that expects normalised pixels, and several harnesses hand p to it in
place of log p, from which the clone learns far less: that is kept as targets = "p", for comparison. Where the service
returns labels only, p is the label's unit vector, and l takes two values, set by `floor`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from attacks.clone import CloneRecipe, Cloning, centred_log
from attacks.oracle import distributions
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.zeroth_order import KEEP, Apprentice, Forger, Probes, at_least, players, positive
from zoo.generator import LATENT

OPTIMISERS = ("adamw", "sgd")
TARGETS = ("log-p", "p")


@dataclass(frozen=True)
class DFME:
    """[attacks.dfme].

    budget: images the thief may be charged for. rows: images in one request.
    batch: images of one step. clone_steps: of the clone, for each step of the generator.
    epsilon, directions: of the forward differences.
    filters: the generator's width; the paper's is 64. lr_generator: of its Adam.
    optimiser, lr_clone, weight_decay: of the clone, "adamw" or "sgd".
    planned: queries that the learning rates are laid out for, where the thief means to go on; 0: the budget.
    milestones, decay: both learning rates are multiplied by `decay` at these shares of the budget.
    targets: what the clone's logits are to match, "log-p" or "p", each less its row's mean. floor: the least p whose
        log is taken.
    """

    budget: int = 300_000
    rows: int = 64
    batch: int = 64
    clone_steps: int = 5
    epsilon: float = 1e-3
    directions: int = 1
    filters: int = 32
    lr_generator: float = 1e-3
    optimiser: str = "adamw"
    lr_clone: float = 1e-3
    weight_decay: float = 5e-4
    planned: int = 0
    milestones: tuple[float, ...] = (0.5, 0.8)
    decay: float = 0.3
    targets: str = "log-p"
    floor: float = 1e-7

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "rows", "clone_steps", "directions", "filters")
        at_least(self, 2, "batch")
        at_least(self, 0, "weight_decay", "planned")
        positive(self, "epsilon", "lr_generator", "lr_clone", "floor", "decay")
        if not all(0 <= share <= 1 for share in self.milestones):
            raise ValueError(f"milestones: expected shares of the budget in [0, 1], got {self.milestones}")
        for name, known in (("optimiser", OPTIMISERS), ("targets", TARGETS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected {' or '.join(map(repr, known))}, got {getattr(self, name)!r}")

    def rate(self, asked: int) -> float:
        """The share of their highest at which the learning rates are after `asked` queries."""
        return float(self.decay ** sum(asked >= share * (self.planned or self.budget) for share in self.milestones))

    def wanted(self, response: torch.Tensor) -> torch.Tensor:
        """What the clone's logits are to match where the victim's response is `response`, (N, K) rows that sum to 1."""
        if self.targets == "log-p":
            return centred_log(response, self.floor)
        return response - response.mean(dim=1, keepdim=True)


def loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The mean absolute error of each image's logits: (N, K), (N, K) -> (N,)."""
    return (logits - wanted).abs().mean(dim=1)


def script(config: DFME, classes: int, forger: Forger, apprentice: Apprentice, draws: torch.Generator) -> Script:
    """Cycles until `config.budget` images were asked about."""
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
        wanted = config.wanted(distributions(answers, classes).to(images.device))
        forger.climb(before, probes.gradient(loss(guesses, wanted)), rate=rate)

        for _ in range(config.clone_steps):
            images = forger.images(config.batch)
            answers = yield images.cpu()
            asked += len(images)
            apprentice.study(images, config.wanted(distributions(answers, classes).to(images.device)), loss, rate=rate)


def prepare(
    parameters: DFME,
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
        affine=False,
        seed=seed,
    )
    return ScriptedThief(script(config, service.classes, forger, apprentice, draws), clone=apprentice.clone, keep=KEEP)
