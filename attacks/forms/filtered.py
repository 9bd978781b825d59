"""The thief that learns a gate: a small network predicts from past refusals which images will pass.

    minimise over f   mean of log(1 + exp(-s f(x))) over accepted images (s = 1) and refused ones (s = -1), both alike

The refusal bit is all that f is taught. The first images go out as the wrapped thief proposes them; from then on it is
asked for more candidates than a request holds, and those that f believes in most are sent. Only these are charged.
Towards the wrapped thief a candidate that was not sent was refused. A thief with finitely many images, or that counts
them, therefore ends sooner.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from attacks.clone import Cloning, here
from attacks.oracle import REFUSED, Answers
from attacks.script import Script, ScriptedThief
from attacks.seeded import from_seed
from attacks.service import Service
from attacks.thief import Thief

PROBES = 500
CANDIDATES = 4
# images sent between two looks at candidates
BLOCK = 256
# of the network, after the probes and each time that so many more images were judged
EVERY = 500
STEPS = 100
BATCH = 64
LR = 2e-3
# fewer of one kind teach nothing
LEAST = 8


class Guess(nn.Module):
    """Images float32 (N, C, S, S) in [0, 1] to logits (N,) that they pass: what three small convolutions find, on
    average over the image and at its most."""

    def __init__(self, channels: int, filters: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, filters, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(filters, 2 * filters, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(4 * filters, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.layers(2 * images - 1)
        logits: torch.Tensor = self.head(torch.cat([found.mean(dim=(2, 3)), found.amax(dim=(2, 3))], dim=1))
        return logits[:, 0]


class FilteredThief(ScriptedThief):
    """Of `thief`'s images those that are likely to pass the service's gate.

    probes: images that go out unfiltered. candidates: how many are looked at for each one that is sent, at least 1.
    steps: of the network after the probes, and after every EVERY images that follow. `seed` owns its weights and
    batches.
    """

    def __init__(
        self,
        thief: Thief,
        *,
        service: Service,
        cloning: Cloning,
        seed: int,
        probes: int = PROBES,
        candidates: int = CANDIDATES,
        steps: int = STEPS,
    ) -> None:
        for name, value in (("probes", probes), ("candidates", candidates), ("steps", steps)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        judge = Judge(service, steps=steps, seed=seed)
        super().__init__(
            _chosen(thief, judge, probes=probes, candidates=candidates), clone=thief.clone, own=thief.own()
        )


def _chosen(thief: Thief, judge: Judge, *, probes: int, candidates: int) -> Script:
    judged, following = 0, probes
    while True:
        factor = candidates if judge.knows else 1
        proposed = thief.propose(min(BLOCK, following - judged) * factor)
        if proposed is None:
            return
        chosen = torch.arange(len(proposed))
        if judge.knows:
            chosen = judge.logits(proposed).argsort(descending=True, stable=True)[: math.ceil(len(proposed) / factor)]
        answers = yield proposed[chosen]
        judge.add(proposed[chosen], ~answers.refused)
        judged += len(chosen)
        if judged >= following:
            following += EVERY
            judge.learn()
        thief.observe(proposed, _spread(answers, chosen, len(proposed)))


class Judge:
    """The network, and all that it has seen pass or fail. knows: whether it has seen enough of both to learn."""

    def __init__(self, service: Service, *, steps: int, seed: int) -> None:
        self.knows = False
        self._steps = steps
        self._device = here()
        self._draws = torch.Generator().manual_seed(seed)
        with from_seed(seed, self._device):
            self._network = Guess(service.channels).to(self._device)
        self._optimiser = torch.optim.AdamW(self._network.parameters(), LR)
        self._images: list[torch.Tensor] = []
        self._passed: list[torch.Tensor] = []

    def add(self, images: torch.Tensor, passed: torch.Tensor) -> None:
        """Remember images (N, C, S, S), and which of them passed, bool (N,)."""
        self._images.append(images)
        self._passed.append(passed)

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (N,): the higher, the likelier the image is to pass."""
        logits: torch.Tensor = self._network(images.to(self._device)).cpu()
        return logits

    def learn(self) -> None:
        """Steps over all that was judged, as many accepted as refused images in each."""
        images, passed = torch.cat(self._images), torch.cat(self._passed)
        kinds = [passed.nonzero()[:, 0], (~passed).nonzero()[:, 0]]
        if min(map(len, kinds)) < LEAST:
            return
        self.knows = True
        signs = torch.tensor([1.0, 0.0]).repeat_interleave(BATCH // 2).to(self._device)
        with from_seed(int(torch.randint(2**62, (), generator=self._draws)), self._device):
            for _ in range(self._steps):
                rows = torch.cat(
                    [kind[torch.randint(len(kind), (BATCH // 2,), generator=self._draws)] for kind in kinds]
                )
                loss = F.binary_cross_entropy_with_logits(self._network(images[rows].to(self._device)), signs)
                self._optimiser.zero_grad(set_to_none=True)
                loss.backward()
                self._optimiser.step()


def _spread(answers: Answers, chosen: torch.Tensor, rows: int) -> Answers:
    """The answers in the places `chosen`, int64 (n,), of `rows` rows; the others are refused, and nothing was paid for
    them."""
    labels = torch.full((rows,), REFUSED)
    labels[chosen] = answers.labels
    probabilities, work = None, None
    if answers.probabilities is not None:
        probabilities = torch.full((rows, answers.probabilities.shape[1]), torch.nan)
        probabilities[chosen] = answers.probabilities
    if answers.work is not None:
        work = torch.zeros(rows, dtype=torch.float64)
        work[chosen] = answers.work
    return Answers(labels, probabilities, work)
