"""What thieves share that climb a victim's loss without seeing its gradient: probes, the generator, its clone.

A generator G makes images on which the clone errs most; the victim is a black box, so the gradient of the loss L with
respect to an image is estimated from forward differences along random directions (Truong et al., CVPR 2021, eq. 8;
Kariyappa et al., CVPR 2021, eq. 7). With x the image before the final tanh, D its number of values and u_i uniform on
the unit sphere of R^D:

    g = 1/m sum_i D (L(pixels(x + e u_i)) - L(pixels(x))) / e u_i,    pixels(x) = (tanh(x) + 1) / 2

which back-propagation carries on from x into G. Every probe is an image shown to the victim, and is charged.

A service that rounds what it serves answers probes of a small e as it answers x. What is left of the difference then
is the clone's share of the loss, which the thief sees unrounded: G learns where the clone moves, no longer where
the victim does. A larger e (0.1 and more) gets past the rounding.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from attacks.clone import Clone, CloneRecipe, Cloning, here, untrained
from attacks.oracle import REFUSED
from attacks.seeded import from_seed
from attacks.service import Service
from zoo.generator import Generator

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(a clone's logits (N, K), targets (N, K)) -> the loss of each image (N,)."""

# answered images that such a thief can still show when it is done; its clone is what it came for
KEEP = 2_000
# freshly answered images over which the clone's prequential agreement is counted
RECENT = 2_000


def pixels(before_tanh: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1], as a service takes them, of what the generator makes before its tanh."""
    return (before_tanh.tanh() + 1) / 2


@dataclass(frozen=True)
class Probes:
    """N images before their tanh and m random directions for each.

    before: float32 (N, C, H, W), without gradient. units: float32 (m, N, C, H, W), each of norm 1. epsilon: the step.
    """

    before: torch.Tensor
    units: torch.Tensor
    epsilon: float

    @classmethod
    def around(cls, before: torch.Tensor, *, directions: int, epsilon: float, draws: torch.Generator) -> Probes:
        """Directions uniform on the unit sphere, drawn from `draws` (on the CPU)."""
        normal = torch.randn(directions, *before.shape, generator=draws).to(before.device)
        norms = normal.flatten(2).norm(dim=2)
        return cls(before.detach(), normal / norms[..., None, None, None], epsilon)

    def images(self) -> torch.Tensor:
        """What the victim is asked: float32 (N + m N, C, H, W) in [0, 1], the images first, then one direction after
        another."""
        steps = self.before + self.epsilon * self.units
        return pixels(torch.cat([self.before, steps.flatten(0, 1)]))

    def gradient(self, losses: torch.Tensor) -> torch.Tensor:
        """The estimated gradient of the mean loss with respect to `before`, of its shape.

        losses: float32 (N + m N,), one for each image, in the order of `images`; NaN where the victim refused. A
        refused direction is left out of its image's mean; an image of which nothing is left gets no gradient.
        """
        first, others = losses[: len(self.before)], losses[len(self.before) :].view(len(self.units), -1)
        slopes = (others - first) / self.epsilon
        known = ~slopes.isnan()
        weights = slopes.nan_to_num(0.0) / known.sum(dim=0).clamp(min=1)
        values = self.before[0].numel()
        total = torch.einsum("mn,mnchw->nchw", weights, self.units) * values
        return total / known.any(dim=0).sum().clamp(min=1)


class Forger:
    """The generator in training, which climbs; it is fed from `draws`, and its images are cropped to `size`.

    optimiser: Adam at `lr`. The papers climb with Adam (DFME) or SGD (MAZE); the estimates' size, which means little,
    does not matter to Adam.
    """

    def __init__(self, network: Generator, *, lr: float, size: int, draws: torch.Generator) -> None:
        self._network = network.train()
        self._lr = lr
        self._size = size
        self._draws = draws
        self._device = next(network.parameters()).device
        self._optimiser = torch.optim.Adam(network.parameters(), lr)

    def before_tanh(self, count: int) -> torch.Tensor:
        """(count, C, size, size) before the tanh, through which gradients reach the generator."""
        latents = torch.randn(count, self._network.latent, generator=self._draws).to(self._device)
        made: torch.Tensor = self._network.before_tanh(latents)
        return made[:, :, : self._size, : self._size]

    @torch.no_grad()
    def images(self, count: int) -> torch.Tensor:
        """Float32 (count, C, size, size) in [0, 1], on the thief's device."""
        return pixels(self.before_tanh(count))

    def climb(self, before: torch.Tensor, gradient: torch.Tensor, *, rate: float) -> None:
        """One step, at `rate` of the learning rate, that raises the loss whose `gradient` with respect to `before` is
        given; none where there is no gradient at all, so that momentum alone moves nothing."""
        if not gradient.any():
            return
        _slow(self._optimiser, self._lr * rate)
        self._optimiser.zero_grad(set_to_none=True)
        before.backward(-gradient)
        self._optimiser.step()


class Apprentice:
    """The clone in training: predicts, gets the response, and learns; remembers how often its latest predictions were
    right."""

    def __init__(self, network: nn.Module, recipe: CloneRecipe) -> None:
        self._network = network
        self._lr = recipe.lr
        self._optimiser = recipe.start(network)
        self._recent: deque[torch.Tensor] = deque()

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, K) in evaluation mode."""
        self._network.eval()
        logits: torch.Tensor = self._network(images)
        return logits

    def judge(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count how many freshly answered images it already had right: `logits` (N, K) are its guesses, made before
        it learnt from the answers, int64 `labels` (N,); refused rows do not count."""
        right = logits.argmax(dim=1).cpu() == labels
        self._recent.append(right[labels != REFUSED])
        while sum(map(len, self._recent)) - len(self._recent[0]) >= RECENT:
            self._recent.popleft()

    def study(self, images: torch.Tensor, targets: torch.Tensor, loss: Loss, *, rate: float) -> None:
        """One step, at `rate` of the learning rate, on the rows whose `targets` (N, K) are not NaN; none where fewer
        than two are left."""
        answered = ~targets.isnan().any(dim=1)
        if not answered.all():
            images, targets = images[answered], targets[answered]
        if len(images) < 2:  # batch normalisation cannot learn from one row
            return
        self._network.train()
        _slow(self._optimiser, self._lr * rate)
        self._optimiser.zero_grad(set_to_none=True)
        loss(self._network(images), targets).mean().backward()
        self._optimiser.step()

    def clone(self) -> Clone:
        """A copy of what it is now, and its agreement with the answers it had not learnt from; 0 before the first."""
        network = copy.deepcopy(self._network).cpu().eval()
        recent = torch.cat(list(self._recent)) if self._recent else torch.zeros(0)
        return Clone(network, recent.float().mean().item() if len(recent) else 0.0)


def players(
    service: Service,
    cloning: Cloning,
    recipe: CloneRecipe,
    *,
    lr_generator: float,
    filters: int,
    latent: int,
    affine: bool,
    seed: int,
) -> tuple[Forger, Apprentice, torch.Generator]:
    """A fresh generator and a fresh clone on the thief's device, and what they draw from; `seed` owns all three.

    filters, latent, affine: as of zoo.generator.Generator. torch's global generator is left as it was.
    """
    with from_seed(seed, here()):
        # a generator's sides are multiples of 4
        side = -(-service.side // 4) * 4
        generator = Generator(channels=service.channels, size=side, filters=filters, latent=latent, affine=affine)
        network = untrained(cloning, service)
    draws = torch.Generator().manual_seed(seed)
    generator = generator.to(memory_format=torch.channels_last).to(here())
    forger = Forger(generator, lr=lr_generator, size=service.side, draws=draws)
    return forger, Apprentice(network.to(memory_format=torch.channels_last).to(here()), recipe), draws


def at_least(parameters: object, least: float, *names: str) -> None:
    """Raises ValueError for the first of a dataclass' fields `names` that is below `least`."""
    for name in names:
        if not getattr(parameters, name) >= least:
            raise ValueError(f"{name}: expected at least {least}, got {getattr(parameters, name)}")


def positive(parameters: object, *names: str) -> None:
    """Raises ValueError for the first of a dataclass' fields `names` that is not above 0."""
    for name in names:
        if not getattr(parameters, name) > 0:
            raise ValueError(f"{name}: expected more than 0, got {getattr(parameters, name)}")


def _slow(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr
