"""The reconstructing thief: sends its autoencoder's reconstructions of its images, not the images.

    x' = d(e(x)),   e and d trained to make mean |d(e(v(x))) - v(x)|^2 small over variations v of the images it trains
    on

A gate that scores how well its autoencoder reconstructs an image (SAME, Xie et al., AAAI 2024) is to find it easier to
reconstruct what another narrow autoencoder has made: what cannot be encoded in few numbers is gone. It is trained on
the images of the task that the wrapped thief owns; where it owns none, on its first images that were answered, which go
out as they are.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from attacks.clone import Cloning, here
from attacks.forms.wrapping import Wrapping
from attacks.oracle import Answers
from attacks.seeded import from_seed
from attacks.service import Service
from attacks.thief import Thief
from zoo.augment import Affine

CODE = 32
FIRST = 500
STEPS = 600
BATCH = 64
LR = 3e-3
VARIED = Affine(degrees=10, shift=0.05, scale=0.1, fill="border")
# fewer answered images than this are no sample of what passes
LEAST = 50


class Autoencoder(nn.Module):
    """Images float32 (N, C, S, S) in [0, 1] to the same, through `code` numbers."""

    def __init__(self, service: Service, code: int, width: int = 256) -> None:
        super().__init__()
        pixels = service.pixels
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, code))
        self.decoder = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, pixels), nn.Sigmoid())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.decoder(self.encoder(images)).view_as(images)
        return made


class ReconstructedThief(Wrapping):
    """`thief`'s images as reconstructed by an autoencoder.

    code: numbers that an image is said in. first: images that go out as they are where the thief owns none. steps: of
    the autoencoder's training. `seed` owns weights and batches.
    """

    def __init__(
        self,
        thief: Thief,
        *,
        service: Service,
        cloning: Cloning,
        seed: int,
        code: int = CODE,
        first: int = FIRST,
        steps: int = STEPS,
    ) -> None:
        for name, value in (("code", code), ("first", first)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        super().__init__(thief)
        self._first = first
        self._steps = steps
        self._device = here()
        self._draws = torch.Generator().manual_seed(seed)
        with from_seed(seed, self._device):
            self._autoencoder = Autoencoder(service, code).to(self._device)
        self._seen: list[torch.Tensor] = []
        self._answered: list[torch.Tensor] = []
        own = thief.own()
        self._ready = own is not None
        if own is not None:
            self._fit(own.images)

    def propose(self, rows: int) -> torch.Tensor | None:
        """The wrapped thief's next images, reconstructed as soon as there is something to learn that from."""
        images = self._thief.propose(rows)
        if images is None or not self._ready:
            return images
        with torch.no_grad():
            made: torch.Tensor = self._autoencoder(images.to(self._device)).cpu()
        return made

    def observe(self, images: torch.Tensor, answers: Answers) -> None:
        """Fit the autoencoder once enough was asked; hand images as asked, and their answers, to the wrapped thief."""
        if not self._ready:
            self._seen.append(images)
            self._answered.append(~answers.refused)
            if sum(map(len, self._seen)) >= self._first:
                seen, answered = torch.cat(self._seen), torch.cat(self._answered)
                self._fit(seen[answered] if answered.sum() >= LEAST else seen)
                self._ready = True
        self._thief.observe(images, answers)

    def _fit(self, images: torch.Tensor) -> None:
        optimiser = torch.optim.AdamW(self._autoencoder.parameters(), LR)
        for _ in range(self._steps):
            rows = torch.randint(len(images), (BATCH,), generator=self._draws)
            batch = VARIED(images[rows], generator=self._draws).to(self._device)
            loss = F.mse_loss(self._autoencoder(batch), batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
