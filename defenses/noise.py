"""The noise eps of an input perturbation: one generator a row, fresh for each query or keyed by the image.

MeCo, Wang et al., NeurIPS 2023, answers T(x + h(x, eps)) with eps ~ N(0, I) redrawn each time (`fresh`): a client that
asks the same K times averages most of it away. `keyed` noise is a function of a secret and the image, so a repeated
query returns nothing new:

    eps(x) = sqrt(a) PRG(HMAC(k, "perceptual" | code(x))) + sqrt(1 - a) PRG(HMAC(k, "bytes" | x in 8 bits))

The exact bytes stop identical repeats, but a copy one grey level away gets a new draw. The perceptual code stops copies
too, but neighbours then share their noise, and with it the gradient that a zeroth-order thief is after: `a` trades the
two. k = HMAC(key, "torchwarden/perturb/noise/" period number): after each period every image gets a new draw, without a
new model. Every rotation is one fresh draw for a thief that averages over them, so periods should be long.

Keyed noise is drawn for the image in 8 bits, and that is the image the network is shown: what the code does not
distinguish, the answer does not either.

Each row has a separate noise stream, so no answer depends on the other rows. Streams are numpy's Philox, a counter
under a key of 128 bits: here the first half of a digest, which no client can distinguish from chance.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from defenses import ranges
from defenses.routing import KEY_BYTES

Images = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
Entropy = Callable[[int], bytes]

SEED_BYTES = 16
LEVELS = 255


class Noise(Protocol):
    """What a pipeline asks for its noise."""

    def canonical(self, images: Images, /) -> Images:
        """The images (N,C,H,W) that the network is shown: those that the noise was drawn for."""

    def __call__(self, images: Images, /) -> NDArray[np.float32]:
        """(N, *shape) float32, each row standard normal; `images` are canonical."""


class _Streams:
    """One generator, put at the start of one seed's stream after the other: a new one for each would first draw
    entropy of the system that it does not need."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        self._random = np.random.Generator(self._philox)
        self._start = self._philox.state

    def at(self, seed: bytes) -> np.random.Generator:
        """The generator at the start of the stream of `seed`, SEED_BYTES long, until it is asked for another."""
        self._start["state"]["key"] = np.frombuffer(seed, np.uint64)
        self._philox.state = self._start
        return self._random

    def fill(self, row: NDArray[np.float32], seed: bytes) -> None:
        """The first numbers of the stream of `seed`, standard normal, to `row`."""
        self.at(seed).standard_normal(out=row, dtype=np.float32)


@dataclass(frozen=True)
class Fresh:
    """A new draw for every row of every request. shape: of a row's noise. entropy: count -> so many random bytes, from
    a source that cannot be foreseen; one seed a row."""

    shape: tuple[int, ...]
    entropy: Entropy
    _streams: _Streams = field(default_factory=_Streams, init=False, repr=False, compare=False)

    def canonical(self, images: Images, /) -> Images:
        return images

    def __call__(self, images: Images, /) -> NDArray[np.float32]:
        drawn = np.empty((len(images), *self.shape), np.float32)
        seeds = self.entropy(SEED_BYTES * len(images))
        for row, noise in enumerate(drawn):
            self._streams.fill(noise, seeds[SEED_BYTES * row : SEED_BYTES * (row + 1)])
        return drawn


class Keyed:
    """The same draw for the same image, as long as a period of the key lasts.

    key: the deployment's, at least 32 bytes. share: a above. code: the perceptual one. period: seconds, 0 for a key
    that never changes. clock: seconds since the epoch, the same on every machine that serves.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        key: bytes,
        share: float,
        code: PerceptualCode,
        period: float,
        clock: Callable[[], float],
    ) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError(f"keyed noise needs a key of at least {KEY_BYTES} bytes, got {len(key)}")
        self._shape = shape
        self._key = key
        self._share = share
        self._code = code
        self._period = period
        self._clock = clock
        self._streams = _Streams()
        self._drawn: tuple[int, bytes, Integers] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self._shape})"

    def canonical(self, images: Images, /) -> Images:
        return (_in_8_bits(images) / np.float32(LEVELS)).astype(np.float32, copy=False)

    def __call__(self, images: Images, /) -> NDArray[np.float32]:
        pixels = _in_8_bits(images)
        secret, cuts = self._of_period(channels=images.shape[1])
        parts = [(self._share, b"perceptual", self._code.of(pixels, cuts)), (1 - self._share, b"bytes", pixels)]
        first, *more = [part for part in parts if part[0]]
        drawn = np.empty((len(images), *self._shape), np.float32)
        self._fill(drawn, secret, *first)
        for part in more:
            other = np.empty_like(drawn)
            self._fill(other, secret, *part)
            drawn += other
        return drawn

    def _fill(self, drawn: NDArray[np.float32], secret: bytes, share: float, name: bytes, codes: Bytes) -> None:
        """sqrt(share) PRG(HMAC(secret, name | code)) to each row."""
        for row, code in zip(drawn, codes, strict=True):
            self._streams.fill(row, hmac.digest(secret, name + code.tobytes(), "sha256")[:SEED_BYTES])
        drawn *= np.float32(math.sqrt(share))

    def _of_period(self, channels: int) -> tuple[bytes, Integers]:
        """The secret of this period of the key and the code's cuts, drawn when a period begins."""
        number = int(self._clock() // self._period) if self._period else 0
        if self._drawn is None or self._drawn[0] != number:
            secret = hmac.digest(self._key, b"torchwarden/perturb/noise/%d" % number, "sha256")
            self._drawn = (number, secret, self._code.cuts(channels, secret))
        return self._drawn[1:]


@dataclass(frozen=True)
class PerceptualCode:
    """What near-copies of an image have in common: the means of grid x grid blocks, quantised in steps of grey levels.

    Where the cuts lie is drawn for each block from a secret, so that clients cannot know which images are near one.
    Whole numbers only: the same code on every machine. grid: from 1 to the image's side. step: grey levels, 1 to 255.
    """

    grid: int = 4
    step: int = 128

    def __post_init__(self) -> None:
        ranges.integer("grid", self.grid, 1, 64)
        ranges.integer("step", self.step, 1, LEVELS)

    def cuts(self, channels: int, secret: bytes) -> Integers:
        """Where the cuts of each block lie, (channels, grid, grid) int64 from 0 to step - 1."""
        random = _Streams().at(hmac.digest(secret, b"cuts", "sha256")[:SEED_BYTES])
        return random.integers(0, self.step, (channels, self.grid, self.grid))

    def of(self, pixels: Bytes, cuts: Integers) -> Bytes:
        """(N,C,H,W) uint8 to (N, C * grid * grid) uint8. cuts: of C channels."""
        rows, _, height, width = pixels.shape
        tops, lefts = (np.arange(self.grid) * side // self.grid for side in (height, width))
        sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.int64), tops, axis=2), lefts, axis=3)
        sizes = np.diff(tops, append=height)[:, np.newaxis] * np.diff(lefts, append=width)
        # floor((mean + cut) / step), without a division that rounds
        codes: Bytes = ((sums + cuts * sizes) // (self.step * sizes)).astype(np.uint8).reshape(rows, -1)
        return codes


def _in_8_bits(images: Images) -> Bytes:
    """The nearest grey level of each pixel."""
    scaled = images * np.float32(LEVELS)
    levels: Bytes = np.rint(scaled, out=scaled).astype(np.uint8)
    return levels
