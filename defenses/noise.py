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
under a key of 128 bits: here the first half of a digest, which no client can distinguish from chance. Its 64-bit words
become normal by Box and Muller's formula, two numbers a word, for all rows of a block at once: with u the first half
of the 32-bit halves of m words and v the second,

    sqrt(-2 ln((floor(u / 2^9) + 1/2) / 2^23)) (cos, sin)(2 pi v / 2^32)       m cosines, then m sines; v with a sign

23 bits and a half are what float32 holds exactly; the largest number is 5.77, which one in 10^8 exceeds.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
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
# numbers that are drawn together
BLOCK = 2**15


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

    def normal(self, seeds: Sequence[bytes], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """(len(seeds), *shape) float32, standard normal: the first numbers of each seed's stream."""
        size = math.prod(shape)
        drawn = np.empty((len(seeds), size), np.float32)
        # blocks that stay in a core's cache between one operation and the next
        rows = max(1, BLOCK // size)
        for first in range(0, len(seeds), rows):
            _box_muller(self._words(seeds[first : first + rows], -(-size // 2)), drawn[first : first + rows])
        return drawn.reshape(len(seeds), *shape)

    def _words(self, seeds: Sequence[bytes], count: int) -> NDArray[np.uint64]:
        """The first `count` words of each seed's stream, (len(seeds), count)."""
        words = np.empty((len(seeds), count), np.uint64)
        for row, seed in zip(words, seeds, strict=True):
            self.at(seed)
            row[:] = self._philox.random_raw(count)
        return words


def _box_muller(words: NDArray[np.uint64], drawn: NDArray[np.float32]) -> None:
    """Random words (rows, m) to standard normal numbers (rows, 2m or one less)."""
    rows, half = words.shape
    halves = words.astype("<u8", copy=False).view("<u4").reshape(rows, 2, half)
    radius = (halves[:, 0] >> np.uint32(9)).astype(np.float32)
    radius += np.float32(0.5)  # the logarithm of 0 is none
    radius *= np.float32(2.0**-23)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = halves[:, 1].view("<i4").astype(np.float32)
    angle *= np.float32(math.pi / 2**31)
    np.multiply(radius, np.cos(angle), out=drawn[:, :half])
    rest = drawn.shape[1] - half
    np.multiply(radius[:, :rest], np.sin(angle)[:, :rest], out=drawn[:, half:])


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
        drawn = self.entropy(SEED_BYTES * len(images))
        seeds = [drawn[first : first + SEED_BYTES] for first in range(0, len(drawn), SEED_BYTES)]
        return self._streams.normal(seeds, self.shape)


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
        mixed, *more = [self._part(secret, *part) for part in parts if part[0]]
        for other in more:
            mixed += other
        return mixed

    def _part(self, secret: bytes, share: float, name: bytes, codes: Bytes) -> NDArray[np.float32]:
        """sqrt(share) PRG(HMAC(secret, name | code)) of each row."""
        seeds = [hmac.digest(secret, name + code.tobytes(), "sha256")[:SEED_BYTES] for code in codes]
        drawn = self._streams.normal(seeds, self._shape)
        drawn *= np.float32(math.sqrt(share))
        return drawn

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
        tops, lefts, sizes = _blocks(self.grid, height, width)
        # 32 bits hold the sum of 4096 x 4096 pixels, the largest image (pictures/geometry.py)
        sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.uint32), tops, axis=2), lefts, axis=3)
        # floor((mean + cut) / step), without a division that rounds
        codes: Bytes = ((sums + cuts * sizes) // (self.step * sizes)).astype(np.uint8).reshape(rows, -1)
        return codes


@lru_cache(maxsize=8)
def _blocks(grid: int, height: int, width: int) -> tuple[Integers, Integers, Integers]:
    """Where blocks begin, (grid,) along each side, and how many pixels they have, (grid, grid)."""
    tops, lefts = (np.arange(grid) * side // grid for side in (height, width))
    sizes = np.diff(tops, append=height)[:, np.newaxis] * np.diff(lefts, append=width)
    return tops, lefts, sizes


def _in_8_bits(images: Images) -> Bytes:
    """The nearest grey level of each pixel."""
    scaled = images * np.float32(LEVELS)
    levels: Bytes = np.rint(scaled, out=scaled).astype(np.uint8)
    return levels
