"""Two hashes that anybody can compute, for comparison with the secret one: DCT pHash and SHA-1.

Kariyappa et al., ICLR 2021, appendix A.2, compare EDM's hash with both: a perceptual one (Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010) and one that any change of the image changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional as F

SIDE = 32
LOW = 8

# images (n,C,S,S) float32 in [0,1] and a number of members -> (n,) int64 members
PublicHash = Callable[[torch.Tensor, int], torch.Tensor]


def dct(images: torch.Tensor, members: int) -> torch.Tensor:
    """The 64 low frequencies of the gray image at 32 x 32, each above their median or not, as a number mod N."""
    small = F.interpolate(images.mean(1, keepdim=True), size=(SIDE, SIDE), mode="bilinear", antialias=True)
    gray = small.squeeze(1).numpy()
    angles = np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(LOW)[:, None]
    low = (np.cos(angles) @ gray @ np.cos(angles).T).reshape(len(gray), LOW * LOW)
    bits = low > np.median(low, axis=1, keepdims=True)
    return _modulo([np.packbits(row).tobytes() for row in bits], members)


def sha1(images: torch.Tensor, members: int) -> torch.Tensor:
    """SHA-1 of the image's bytes, as a number mod N."""
    pixels = (images * 255).round().byte().numpy()
    return _modulo([hashlib.sha1(image.tobytes(), usedforsecurity=False).digest() for image in pixels], members)


def _modulo(digests: list[bytes], members: int) -> torch.Tensor:
    return torch.tensor([int.from_bytes(digest, "big") % members for digest in digests])


PUBLIC_HASHES: Mapping[str, PublicHash] = {"dct": dct, "sha1": sha1}
