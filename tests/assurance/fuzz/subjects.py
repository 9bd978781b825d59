"""Models to make cases of: gray and coloured, of one size and of any, without a server."""

from __future__ import annotations

import numpy as np

from assurance.fuzz.case import Subject
from handlers import wire
from pictures.geometry import Geometry

# every pixel a multiple of 1/255, as in a file; synthetic, because to read a data set takes seconds at import
_pixels = np.random.default_rng(0).integers(0, 256, (16, 1, 28, 28)) / np.float32(255)
GRAY = Subject("digits-edm", wire.Accepts(Geometry(1, 28, 28), 32), 200_000, _pixels.astype(np.float32))
# photographs of any size, as the smoke recipe's policy of that name takes them
FITTED = Subject(
    "digits-fitted",
    wire.Accepts(Geometry(1, 28, 28, fit="crop", resize=30, background=0, megapixels=13), 32),
    200_000,
    _pixels.astype(np.float32),
)
RGB = Subject("colours-edm", wire.Accepts(Geometry(3, 28, 28), 4), 200_000, GRAY.images.repeat(3, 1))
