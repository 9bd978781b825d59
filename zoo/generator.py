"""The data-free thieves' generator: noise in, images out.

Truong et al., "Data-Free Model Extraction", CVPR 2021 (DFME), who have it from Fang et al., "Data-Free Adversarial
Distillation", 2019. They hand tanh's [-1, 1] to a victim that expects normalised pixels; here an image lies in [0, 1]
as everywhere in this project. Fresh from its initialisation it makes what such a thief asks first.
"""

from __future__ import annotations

import torch
from torch import nn

LATENT = 256
# of one forward pass in training mode, the thieves' own
BATCH = 256


class Generator(nn.Module):
    """Latent vectors (N,256), standard normal, to images (N,channels,size,size) float32 in [0,1].

    size: a multiple of 4. In training mode batch normalisation makes an image depend on the others of its batch.
    """

    def __init__(self, *, channels: int, size: int, filters: int = 64) -> None:
        super().__init__()
        if size < 4 or size % 4:
            raise ValueError(f"size: expected a multiple of 4, got {size}")
        self.before_tanh = nn.Sequential(
            nn.Linear(LATENT, 2 * filters * (size // 4) ** 2),
            nn.Unflatten(1, (2 * filters, size // 4, size // 4)),
            nn.BatchNorm2d(2 * filters),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * filters, 2 * filters, 3, padding=1),
            nn.BatchNorm2d(2 * filters),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * filters, filters, 3, padding=1),
            nn.BatchNorm2d(filters),
            nn.LeakyReLU(0.2),
            nn.Conv2d(filters, channels, 3, padding=1),
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = (self.before_tanh(latents).tanh() + 1) / 2
        return images


@torch.no_grad()
def untrained(count: int, *, channels: int, size: int, seed: int) -> torch.Tensor:
    """Images (count,channels,size,size) float32 in [0,1] of a fresh generator that `seed` initialises and feeds.

    Any size: a generator's next larger one is cropped. torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(channels=channels, size=-(-size // 4) * 4)
        images = torch.cat([generator(latents) for latents in torch.randn(count, LATENT).split(BATCH)])
    return images[:, :, :size, :size].contiguous()
