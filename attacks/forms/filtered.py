"""The thief who learns a gate: a small network of his own tells from past refusals which images will pass.

    minimise over f   mean of log(1 + exp(-s f(x))) over accepted images (s = 1) and refused ones (s = -1), both alike

The refusal bit is all that f is taught. The first images go out as the wrapped thief proposes them; from then on it is
asked for more candidates than a request holds, and those that f believes in most are sent. Only these are charged.
Towards the wrapped thief a candidate that was not sent was refused. A set of images that ends is spent sooner so.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from attacks.clone import Clone, Cloning, here
from attacks.oracle import REFUSED, Answers
from attacks.seeded import from_seed
from attacks.service import Service
from attacks.thief import Thief
from attacks.transfer import Collector, TransferSet

PROBES = 500
CANDIDATES = 4
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


class FilteredThief:
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
        self._thief = thief
        self._candidates = candidates
        self._steps = steps
        self._next = probes  # images judged, when the network learns again
        self._device = here()
        self._draws = torch.Generator().manual_seed(seed)
        with from_seed(seed, self._device):
            self._network = Guess(service.channels).to(self._device)
        self._optimiser = torch.optim.AdamW(self._network.parameters(), LR)
        self._knows = False
        self._judged: list[torch.Tensor] = []
        self._passed: list[torch.Tensor] = []
        self._sent = Collector()
        self._proposed: tuple[torch.Tensor, torch.Tensor] | None = None

    def propose(self, rows: int) -> torch.Tensor | None:
        """As many of the wrapped thief's next images as are sent, likely ones; None when its attack is over."""
        factor = self._candidates if self._knows else 1
        images = self._thief.propose(rows * factor)
        if images is None:
            return None
        chosen = torch.arange(len(images))
        if self._knows:
            chosen = self._logits(images).argsort(descending=True, stable=True)[: math.ceil(len(images) / factor)]
        self._proposed = images, chosen
        return images[chosen]

    def observe(self, images: torch.Tensor, answers: Answers) -> None:
        """Learn from who was refused, now and then, and tell the wrapped thief, of candidates too that were not
        sent."""
        assert self._proposed is not None, "observe follows propose"
        self._sent.add(images, answers)
        self._judged.append(images)
        self._passed.append(~answers.refused)
        if sum(map(len, self._judged)) >= self._next:
            self._next += EVERY
            self._learn()
        proposed, chosen = self._proposed
        self._thief.observe(proposed, _spread(answers, chosen, len(proposed)))

    def transfer_set(self) -> TransferSet:
        """The images that were sent, whatever the wrapped thief makes of them."""
        return self._sent.transfer_set()

    def clone(self) -> Clone | None:
        """The wrapped thief's."""
        return self._thief.clone()

    def own(self) -> TransferSet | None:
        """The wrapped thief's."""
        return self._thief.own()

    @torch.no_grad()
    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._network(images.to(self._device)).cpu()
        return logits

    def _learn(self) -> None:
        """Steps over all that was judged, as many accepted as refused images in each."""
        images, passed = torch.cat(self._judged), torch.cat(self._passed)
        kinds = [passed.nonzero()[:, 0], (~passed).nonzero()[:, 0]]
        if min(map(len, kinds)) < LEAST:
            return
        self._knows = True
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
