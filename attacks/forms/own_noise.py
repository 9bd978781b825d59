"""The own-noise thief: learns a perturbation generator together with a clone, and sends perturbed images.

MeCo, Wang et al., NeurIPS 2023, sec. 5.4 and table 4, describes this thief: it adds "data-dependent random perturbation
to the query inputs to learn an additional random perturbation generator". In full, as it is read here:

    x' = clip(x + bound * tanh(g(x, z)), 0, 1),   z standard normal, one plane an image, redrawn for each query
    min over clone C and generator g of   loss(C(x'), answer to x')

The service is a black box: the generator's gradient comes through the clone alone, the answers are constants. Clone
and generator take a few steps on each answered batch, with the z that it was asked with. Wraps any thief: what it
remembers is the perturbed image with its answer, from which clones are trained; a thief that learns between queries
takes those answers for answers to its own images, which is what costs the paper's adaptive DFME its accuracy.
"""

from __future__ import annotations

import torch
from torch import nn

from attacks.clone import CloneRecipe, Cloning, here, untrained
from attacks.forms.wrapping import Wrapping
from attacks.oracle import Answers, distributions
from attacks.seeded import from_seed
from attacks.service import Service
from attacks.thief import Thief

BOUND = 0.1
STEPS = 3
# the clone that gives the generator its gradient, and the generator
LEARNING = CloneRecipe("adamw", lr=1e-3, weight_decay=5e-4)


class NoiseGenerator(nn.Module):
    """A residual perturbation: images (N, channels, S, S) and noise (N, 1, S, S) to (N, channels, S, S) in
    [-bound, bound]. Two residual blocks, without batch statistics: a request may hold a single image."""

    def __init__(self, *, channels: int, bound: float, filters: int = 16) -> None:
        super().__init__()
        self.bound = bound
        self.stem = nn.Conv2d(channels + 1, filters, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(filters, filters, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(filters, filters, 3, padding=1),
            )
            for _ in range(2)
        )
        self.head = nn.Conv2d(filters, channels, 3, padding=1)

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        hidden = self.stem(torch.cat([2 * images - 1, noise], dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        perturbation: torch.Tensor = self.bound * self.head(hidden).tanh()
        return perturbation


class OwnNoiseThief(Wrapping):
    """`thief`'s images, each asked about under a perturbation of at most `bound` that is learnt from the answers.

    cloning: architecture of the clone that learns together with the generator. steps: of both after each request.
    `seed` owns initial weights, noise and all draws of the clone in training.
    """

    def __init__(
        self,
        thief: Thief,
        *,
        service: Service,
        cloning: Cloning,
        seed: int,
        bound: float = BOUND,
        steps: int = STEPS,
    ) -> None:
        if not 0 < bound <= 1:
            raise ValueError(f"bound: expected a share of the pixels' range above 0 and up to 1, got {bound}")
        if steps < 0:
            raise ValueError(f"steps: expected at least 0, got {steps}")
        super().__init__(thief)
        self._steps = steps
        self._device = here()
        self._draws = torch.Generator().manual_seed(seed)
        with from_seed(seed, self._device):
            self._network = untrained(cloning, service).to(self._device)
            self._generator = NoiseGenerator(channels=service.channels, bound=bound).to(self._device)
        self._optimisers = [LEARNING.start(self._network), LEARNING.start(self._generator)]
        self._asked: tuple[torch.Tensor, torch.Tensor] | None = None

    def propose(self, rows: int) -> torch.Tensor | None:
        """The wrapped thief's next images, perturbed; None when its attack is over."""
        originals = self._thief.propose(rows)
        if originals is None:
            return None
        noise = torch.randn(originals[:, :1].shape, generator=self._draws)
        self._asked = originals, noise
        with torch.no_grad():
            return self._perturbed(originals.to(self._device), noise.to(self._device)).cpu()

    def observe(self, images: torch.Tensor, answers: Answers) -> None:
        """Learn from the answered rows, and hand the perturbed images to the wrapped thief."""
        assert self._asked is not None, "observe follows propose"
        originals, noise = (each[~answers.refused].to(self._device) for each in self._asked)
        # batch normalisation needs two rows to learn from
        if len(originals) > 1:
            self._learn(originals, noise, targets(answers).to(self._device))
        self._thief.observe(images, answers)

    def _perturbed(self, originals: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        perturbation: torch.Tensor = self._generator(originals, noise)
        return (originals + perturbation).clamp(0, 1)

    def _learn(self, originals: torch.Tensor, noise: torch.Tensor, aims: torch.Tensor) -> None:
        self._network.train()
        distance, rows = LEARNING.distance(aims), torch.arange(len(aims), device=aims.device)
        with from_seed(int(torch.randint(2**62, (), generator=self._draws)), self._device):
            for _ in range(self._steps):
                loss = distance(self._network(self._perturbed(originals, noise)), rows)
                for optimiser in self._optimisers:
                    optimiser.zero_grad(set_to_none=True)
                loss.backward()
                for optimiser in self._optimisers:
                    optimiser.step()


def targets(answers: Answers) -> torch.Tensor:
    """What the answered rows teach: probabilities float32 (n, K) that sum to 1, or labels int64 (n,)."""
    answered = ~answers.refused
    if answers.probabilities is None:
        return answers.labels[answered]
    return distributions(answers, answers.probabilities.shape[1])[answered]
