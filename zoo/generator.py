"""The data-free thieves' generator: noise in, images out.

Truong et al., "Data-Free Model Extraction", CVPR 2021 (DFME), who have it from Fang et al., "Data-Free Adversarial
Distillation", 2019. They hand tanh's [-1, 1] to a victim that expects normalised pixels; here an image lies in [0, 1]
as everywhere in this project. Fresh from its initialisation it makes what such a thief asks first.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from zoo.images import Size, convert, sides

LATENT = 256
# of images drawn for other purposes than a thief's: larger ones are enlarged
LARGEST = 64
# of one forward pass in training mode, of the thieves
BATCH = 256


# of an image at twice its size, where each pixel stands for two: the even and the odd pixel of a pair see two pixels
# of the small image, and these rows add up the three weights of a 3x3 convolution that fall on each of them
FOLDS = (((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


class UpsampledConv2d(nn.Conv2d):
    """A 3x3 convolution of the image at twice its size, nearest neighbours, which is never made: (N,C,S,S) to
    (N,out,2S,2S).

    What takes 36 multiplications for each small pixel takes 16, of weights that are summed beforehand.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count, _, height, width = images.shape
        folds = self.weight.new_tensor(FOLDS)
        weight = torch.einsum("arh,bsw,oihw->aboirs", folds, folds, self.weight).flatten(0, 2)
        bias = None if self.bias is None else self.bias.repeat(4)
        made = F.conv2d(images, weight.contiguous(memory_format=torch.channels_last), bias, padding=1)
        # rows, columns, then even or odd row, even or odd column
        corners = made.permute(0, 2, 3, 1).unflatten(3, (2, 2, self.out_channels))
        rows = [torch.stack([corners[:, a : a + height, b : b + width, a, b] for b in (0, 1)], dim=3) for a in (0, 1)]
        return torch.stack(rows, dim=2).reshape(count, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


class Generator(nn.Module):
    """Latent vectors (N,latent), standard normal, to images (N,channels,size,size) float32 in [0,1].

    size: a multiple of 4. In training mode batch normalisation makes an image depend on the others of its batch.
    affine: whether the last normalisation learns a contrast and a brightness; MAZE's does (Kariyappa et al., CVPR
    2021), whose generator is otherwise this one with 100 latents.
    """

    def __init__(
        self, *, channels: int, size: int, filters: int = 64, latent: int = LATENT, affine: bool = False
    ) -> None:
        super().__init__()
        self.latent = latent
        if size < 4 or size % 4:
            raise ValueError(f"size: expected a multiple of 4, got {size}")
        self.before_tanh = nn.Sequential(
            nn.Linear(latent, 2 * filters * (size // 4) ** 2),
            nn.Unflatten(1, (2 * filters, size // 4, size // 4)),
            nn.BatchNorm2d(2 * filters),
            UpsampledConv2d(2 * filters, 2 * filters),
            nn.BatchNorm2d(2 * filters),
            nn.LeakyReLU(0.2),
            UpsampledConv2d(2 * filters, filters),
            nn.BatchNorm2d(filters),
            nn.LeakyReLU(0.2),
            nn.Conv2d(filters, channels, 3, padding=1),
            nn.BatchNorm2d(channels, affine=affine),
        )

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = (self.before_tanh(latents).tanh() + 1) / 2
        return images


@torch.no_grad()
def untrained(count: int, *, channels: int, size: Size, seed: int) -> torch.Tensor:
    """Images (count,channels,height,width) float32 in [0,1] of a fresh generator that `seed` initialises and feeds.

    Any size: a generator's next larger one is cropped, and what is larger than LARGEST enlarged. torch's global
    generator is left as it was.
    """
    height, width = sides(size)
    if max(height, width) > LARGEST:
        return convert(untrained(count, channels=channels, size=LARGEST, seed=seed), size=size, channels=None)
    side = max(height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(channels=channels, size=-(-side // 4) * 4)
        images = torch.cat([generator(latents) for latents in torch.randn(count, LATENT).split(BATCH)])
    return images[:, :, :height, :width].contiguous()
