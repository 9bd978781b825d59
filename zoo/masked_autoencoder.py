r"""The masked autoencoder: a transformer sees some patches of an image, another predicts all (He et al., CVPR 2022).

SAME (Xie et al., AAAI 2024) looks at how badly it reconstructs a query. An image is split into L = (S / patch)^2
patches; a mask hides some. The encoder f sees what is left, the decoder g gets f's tokens, a learned token in the place
of each hidden patch, and where every patch lies, and predicts all pixels:

    x^ = g(f(b * x))

At work the masks are fixed (`groups`). With none, nothing is hidden: one pass, a plain autoencoder. With r groups the
patches are dealt into r parts; each part is hidden once, and x^ is put together from what was predicted of patches
while they were hidden. So every pixel is predicted from others alone, and which ones cannot be known without the parts.
Encoder and decoder are timm's blocks, "ViT-Tiny" (width 192, 12 blocks, 3 heads) the paper's encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from zoo.models import Normalise

NAME = "masked-autoencoder"


class MaskedAutoencoder(nn.Module):
    """Images (N,C,S,S) float32 in [0,1] to their reconstructions, the same shape, in the same pixels (not clipped).

    patch: side of a patch, a divisor of `size`. width, depth, heads: of the encoder, and decoder_* of the decoder.
    groups: L integers, the part of each patch, row by row; parts are numbered from 0 and as large as each other up to
    one patch. None: nothing is hidden at work. mean, std: of the pixels, one value a channel. Weights come from torch's
    global generator.
    """

    parts: torch.Tensor

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        patch: int = 4,
        width: int = 64,
        depth: int = 3,
        heads: int = 2,
        decoder_width: int = 64,
        decoder_depth: int = 1,
        decoder_heads: int = 2,
        groups: Sequence[int] | None = None,
    ) -> None:
        from timm.models.vision_transformer import Block  # here, because it takes seconds and no other network needs it

        super().__init__()
        if size % patch:
            raise ValueError(f"patch: expected a divisor of the image's side {size}, got {patch}")
        for name, wide, many in (("heads", width, heads), ("decoder_heads", decoder_width, decoder_heads)):
            if wide % many:
                raise ValueError(f"{name}: expected a divisor of the width {wide}, got {many}")
        self.patch, self.side, self.channels = patch, size // patch, channels
        self.patches = self.side**2
        if groups is not None and len(groups) != self.patches:
            raise ValueError(f"groups: expected {self.patches} parts, one a patch, got {len(groups)}")
        pixels = channels * patch**2
        self.normalise = Normalise(mean, std)
        self.embed = nn.Linear(pixels, width)
        self.places = nn.Parameter(torch.randn(1, self.patches, width) * 0.02)
        self.encoder = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)), nn.LayerNorm(width))
        self.bridge = nn.Linear(width, decoder_width)
        self.hidden = nn.Parameter(torch.randn(1, 1, decoder_width) * 0.02)
        self.decoder_places = nn.Parameter(torch.randn(1, self.patches, decoder_width) * 0.02)
        self.decoder = nn.Sequential(
            *(Block(decoder_width, decoder_heads, qkv_bias=True) for _ in range(decoder_depth)),
            nn.LayerNorm(decoder_width),
            nn.Linear(decoder_width, pixels),
        )
        self.register_buffer("parts", torch.tensor([0] if groups is None else list(groups)), persistent=False)
        self.passes = 0 if groups is None else max(groups) + 1

    def forward(self, images: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        """The reconstruction at work: deterministic, row by row. In training from the patches `seen` alone, (N,V)
        int64, separate for each image."""
        tokens = self._cut(self.normalise(images))
        if seen is not None or not self.passes:
            return self._pixels(self._predict(tokens, seen))
        predicted = torch.zeros_like(tokens)
        for part in range(self.passes):
            others = torch.nonzero(self.parts != part).flatten().expand(images.shape[0], -1)
            predicted = torch.where((self.parts == part)[None, :, None], self._predict(tokens, others), predicted)
        return self._pixels(predicted)

    def _predict(self, tokens: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """Pixels of all patches (N,L,P), from the normalised pixels of those that are seen."""
        if seen is None:
            known = self.bridge(self.encoder(self.embed(tokens) + self.places))
            return self.decoder(known + self.decoder_places)  # type: ignore[no-any-return]
        rows = seen.shape[0]
        places = self.places.expand(rows, -1, -1)
        picked = _pick(tokens, seen)
        known = self.bridge(self.encoder(self.embed(picked) + _pick(places, seen)))
        width = known.shape[-1]
        # autocast computes `known` in half precision, and leaves parameters as they are
        hidden = self.hidden.to(known.dtype).expand(rows, self.patches, width)
        whole = hidden.scatter(1, seen[:, :, None].expand(-1, -1, width), known)
        return self.decoder(whole + self.decoder_places)  # type: ignore[no-any-return]

    def _cut(self, images: torch.Tensor) -> torch.Tensor:
        """(N,C,S,S) to patches (N,L,C*patch*patch), row by row."""
        shape = (images.shape[0], self.channels, self.side, self.patch, self.side, self.patch)
        return images.reshape(shape).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def _pixels(self, tokens: torch.Tensor) -> torch.Tensor:
        """Normalised patches (N,L,P) to pixels (N,C,S,S)."""
        shape = (tokens.shape[0], self.side, self.side, self.channels, self.patch, self.patch)
        images = tokens.reshape(shape).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return images * self.normalise.std + self.normalise.mean


def _pick(tokens: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Rows of tokens (N,L,W) by index (N,V): (N,V,W)."""
    return tokens.gather(1, seen[:, :, None].expand(-1, -1, tokens.shape[-1]))
