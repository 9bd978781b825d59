"""Knockoff Nets with the adaptive policy (Orekondy et al., CVPR 2019, sec. 4.1.2): a bandit over a surrogate's classes.

The thief owns a labelled surrogate set from another domain. Each draw picks one of its classes, z ~ pi = softmax(H)
over the classes that have images left, asks about a few images of it that were not asked about before, and rewards the
choice by what the answers y were worth:

    certainty   y_(1) - y_(2), the two largest probabilities: images the victim knows
    diversity   sum_k max(0, y_k - ybar_k), ybar the mean answer of the window: answers unlike the latest ones
    loss        CE(y, clone's output), before the clone learns from y: what the clone has yet to learn

Each is averaged over the draw's images and rescaled to [0, 1] by its extremes over the window; r is their mean. Then,
with n_z the number of draws of z so far and rbar the mean r of the window before this draw,

    H_z += (r - rbar) (1 - pi_z) / n_z        H_o -= (r - rbar) pi_o / n_z    for every other class o

and the clone takes one step on the new answers among as many earlier ones as fill its batch. That clone serves the
rewards alone: the one that counts is trained from scratch on everything, afterwards.

If the service returns labels only, y is one-hot: certainty is then uninformative and left out. The paper draws one
image at a time; a step on a single image is noise, and breaks batch normalisation. Its hierarchy of classes is for
surrogates of hundreds of them.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from attacks import clone
from attacks.clone import CloneRecipe, Cloning
from attacks.oracle import distributions
from attacks.script import Script, ScriptedThief
from attacks.seeded import seeded
from attacks.service import Service
from attacks.thief import check
from zoo import datasets

STEP = CloneRecipe("adamw", lr=1e-3, weight_decay=5e-4)


@dataclass(frozen=True)
class KnockoffAdaptive:
    """[attacks.knockoff-adaptive].

    surrogate: labelled data set of the thief, as zoo.datasets.load spells it; its training split unless it pins
        another.
    budget: images the thief may be charged for; the attack ends earlier if the surrogate set is exhausted.
    rows: images in one request.
    per_action: images of one draw.
    window: draws that the mean answer, the mean reward and the extremes of rewards look back on.
    """

    surrogate: str
    budget: int
    rows: int = 64
    per_action: int = 32
    window: int = 25

    def __post_init__(self) -> None:
        check(self)
        if not 8 <= self.per_action <= 64:
            raise ValueError(f"per_action: expected 8 to 64 images, got {self.per_action}")
        if self.window < 2:
            raise ValueError(f"window: expected at least 2 draws, got {self.window}")


class Policy:
    """pi = softmax(H) over the classes still open, and its update. `generator` owns the draws."""

    def __init__(self, classes: int, *, window: int, generator: torch.Generator) -> None:
        self.preferences = torch.zeros(classes, dtype=torch.float64)
        self.open = torch.ones(classes, dtype=torch.bool)
        self._draws = torch.zeros(classes, dtype=torch.int64)
        self._rewards: deque[float] = deque(maxlen=window)
        self._generator = generator

    def probabilities(self) -> torch.Tensor:
        """pi, float64 (Z,); 0 for closed classes."""
        return self.preferences.masked_fill(~self.open, -torch.inf).softmax(dim=0)

    def draw(self) -> int:
        """A class; at least one must be open."""
        return int(torch.multinomial(self.probabilities(), 1, generator=self._generator))

    def reward(self, action: int, value: float) -> None:
        """Learn that drawing `action`, at the present probabilities, was worth `value`; the first reward, which has
        no mean to be compared with, moves nothing."""
        self._draws[action] += 1
        gain = value - (sum(self._rewards) / len(self._rewards) if self._rewards else value)
        chosen = torch.zeros_like(self.preferences)
        chosen[action] = 1
        self.preferences += gain / int(self._draws[action]) * (chosen - self.probabilities())
        self._rewards.append(value)


class Rewards:
    """The three rewards of a draw as one number in [0, 1], against the `window` latest draws."""

    def __init__(self, *, window: int) -> None:
        self._means: deque[torch.Tensor] = deque(maxlen=window)
        self._seen: dict[str, deque[float]] = {}
        self._window = window

    def __call__(self, answers: torch.Tensor, loss: float, *, soft: bool) -> float:
        """answers: float32 (N, K), rows that sum to 1, N >= 1, one-hot where not `soft`; loss: the clone's mean cross
        entropy against them."""
        values = {"diversity": self._diversity(answers), "loss": loss}
        if soft:
            values["certainty"] = certainty(answers)
        self._means.append(answers.mean(dim=0))
        return sum(self._rescaled(name, value) for name, value in values.items()) / len(values)

    def _diversity(self, answers: torch.Tensor) -> float:
        # of the first draw there is nothing to be unlike
        usual = torch.stack(tuple(self._means)).mean(dim=0) if self._means else answers.mean(dim=0)
        return diversity(answers, usual)

    def _rescaled(self, name: str, value: float) -> float:
        seen = self._seen.setdefault(name, deque(maxlen=self._window))
        seen.append(value)
        low, high = min(seen), max(seen)
        return (value - low) / (high - low) if high > low else 0.5


def certainty(answers: torch.Tensor) -> float:
    """Mean of the largest minus the second largest probability of the rows, float32 (N, K), K >= 2; in [0, 1]."""
    first, second = answers.topk(2, dim=1).values.unbind(dim=1)
    return float((first - second).mean())


def diversity(answers: torch.Tensor, usual: torch.Tensor) -> float:
    """Mean over the rows, float32 (N, K), of sum_k max(0, y_k - usual_k), usual (K,); in [0, 1]."""
    return float((answers - usual).clamp(min=0).sum(dim=1).mean())


class Pupil:
    """The clone that the rewards look at, and all that was answered so far, from which it takes its steps.

    surrogate: float32 (N, C, H, W) in [0, 1], N >= 2. `generator` owns the weights and the earlier images of a step.
    """

    def __init__(
        self, surrogate: torch.Tensor, service: Service, cloning: Cloning, *, generator: torch.Generator
    ) -> None:
        self._surrogate = surrogate
        self._generator = generator
        self._batch = cloning.batch_size
        self._device = clone.here()
        self._order = torch.empty(len(surrogate), dtype=torch.int64)
        self._answers = torch.empty(len(surrogate), service.classes)
        self._known = 0
        with seeded(generator, self._device):
            network = clone.untrained(cloning, service, like=surrogate)
        self._network: nn.Module = network.to(memory_format=torch.channels_last).to(self._device)
        self._optimiser = STEP.start(self._network)

    @torch.inference_mode()
    def loss(self, rows: torch.Tensor, answers: torch.Tensor) -> float:
        """Mean cross entropy of the clone as it is against `answers`, float32 (n, K), to the surrogate's `rows`."""
        self._network.eval()
        logits = self._network(self._surrogate[rows].to(self._device))
        return float(F.cross_entropy(logits, answers.to(self._device)))

    def learn(self, rows: torch.Tensor, answers: torch.Tensor) -> None:
        """Remember `answers`, float32 (n, K), to the surrogate's `rows`, int64 (n,), none of which was answered before;
        take one step on them and on random earlier ones."""
        room = self._batch - len(rows) if self._known else 0
        earlier = self._order[torch.randint(max(self._known, 1), (max(room, 0),), generator=self._generator)]
        self._order[self._known : self._known + len(rows)] = rows
        self._answers[rows] = answers
        self._known += len(rows)
        batch = torch.cat([rows, earlier])
        if len(batch) < 2:  # which batch normalisation cannot learn from
            return
        images, targets = self._surrogate[batch].to(self._device), self._answers[batch].to(self._device)
        with seeded(self._generator, self._device):
            self._network.train()
            loss = F.cross_entropy(self._network(images), targets)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self._optimiser.step()


def adapting(
    surrogate: torch.Tensor,
    labels: torch.Tensor,
    parameters: KnockoffAdaptive,
    service: Service,
    *,
    cloning: Cloning,
    generator: torch.Generator,
) -> Script:
    """The attack on `surrogate`, float32 (N, C, H, W) in [0, 1], by its labels, int64 (N,); `generator`, the thief's,
    on the CPU, owns all randomness. A draw that is refused whole is charged and changes nothing."""
    order = torch.randperm(len(labels), generator=generator)
    unasked = [order[labels[order] == kind] for kind in labels.unique()]
    policy = Policy(len(unasked), window=parameters.window, generator=generator)
    rewards = Rewards(window=parameters.window)
    pupil = Pupil(surrogate, service, cloning, generator=generator)
    while policy.open.any():
        action = policy.draw()
        rows = unasked[action][: parameters.per_action]
        unasked[action] = unasked[action][parameters.per_action :]
        images = surrogate[rows]
        answers = yield images
        rows = rows[~answers.refused]
        if len(rows):
            responses = distributions(answers, service.classes)[~answers.refused]
            value = rewards(responses, pupil.loss(rows, responses), soft=answers.probabilities is not None)
            policy.reward(action, value)
            pupil.learn(rows, responses)
        policy.open[action] = len(unasked[action]) > 0


def prepare(
    parameters: KnockoffAdaptive,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> ScriptedThief:
    """The thief of a recipe, its surrogate set in the geometry of the service; `seed` owns all of its randomness,
    `root` holds data sets. The clone that its rewards look at is of `cloning`'s architecture and batch size.

    `own` is None: the surrogate set's labels are of another task. Raises ValueError for a surrogate without labels.
    """
    surrogate = datasets.load(parameters.surrogate, "train", root=root, size=service.size, channels=service.channels)
    if surrogate.labels is None:
        raise ValueError(f"surrogate: expected labelled images, got {parameters.surrogate!r} without labels")
    generator = torch.Generator().manual_seed(seed)
    return ScriptedThief(
        adapting(surrogate.pixels, surrogate.labels, parameters, service, cloning=cloning, generator=generator)
    )
