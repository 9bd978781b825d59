"""The mark: a little probability, moved to a class that only the deployment's key knows; clones learn it.

    c(x) = (t, code(x)), the cell of image x: the served label t, and a secret code of `parts` values
    k    = the keyed class of the cell and the account, one of the K - 1 that are not t
    y'   = (1 - s) y + s e_k

s is `strength`, less where y' would bring class k within reach of the top class, which keeps its place (s then is half
of what would make the two equal); classes other than k keep their order. So labels stay, and l1 is at most 2 s.

The code is b = log2(parts) bits of a smooth picture of x, the means m of grid x grid blocks. Bit i is the stripe that a
keyed projection falls into: floor((w_i m / |w_i| + u_i) / width) mod 2, w_i and u_i drawn from the key. One sign would
say little beyond the label, for images of a class lie on one side of most hyperplanes (of 8 parts, MNIST's fill 2.4);
stripes about as wide as a block's means are spread split every class, and need no images to be balanced on. Cells are
the same for all accounts, classes are not: two accounts that compare their answers see that they differ.

The idea that a whole answer may carry a mark which its owner alone can read is of Szyller et al., DAWN, ACM MM 2021,
which turns labels; a mark that keeps them, in cells a clone can learn, is this product's (docs/ownership.md).

Everything drawn is HMAC-SHA256 of the deployment's key, expanded with SHAKE-256, so that anyone with the key, in any
language, in years, draws the same: it is evidence (assurance/ownership).

    secret          = HMAC(key, "torchwarden/mark/1")
    cells           = HMAC(secret, "cells")
    of an account A = HMAC(secret, "account/A")
    commitments     = SHA-256 of secret, and of an account's

The code is computed in whole numbers: the same cells on every machine and at every batch size.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defenses import ranges
from defenses.routing import KEY_BYTES

Images = NDArray[np.float32]
Integers = NDArray[np.int64]
Probabilities = NDArray[np.float32]

LEVELS = 255
# means of blocks are counted in such parts of a grey level
FINE = 256
# accounts whose classes are kept in memory: 5 kB each at most of the sizes in use, and no more than a new draw to lose
REMEMBERED = 1024


@dataclass(frozen=True)
class Mark:
    """The `mark` table of a policy.

    strength: s above, probability moved, above 0 and at most 0.1. parts: of each class, a power of two from 1 to 1024;
    cells are classes times parts. grid: blocks a side of the smooth picture, 1 to 64. width: of a stripe, in grey
    levels, 1 to 255; about what the mean of a block varies by from image to image. commitments: in hexadecimal, to the
    keys that may serve, those of periods to come among them; of none, any key may.
    """

    strength: float
    parts: int = 2
    grid: int = 4
    width: int = 64
    commitments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ranges.number("strength", self.strength, above=0, most=0.1)
        ranges.integer("parts", self.parts, 1, 1024)
        if self.parts & (self.parts - 1):
            raise ValueError(f"parts: expected a power of two, got {self.parts}")
        ranges.integer("grid", self.grid, 1, 64)
        ranges.integer("width", self.width, 1, LEVELS)
        for each in self.commitments:
            if not re.fullmatch("[0-9a-f]{64}", each):
                raise ValueError(f"commitments: expected each as 64 hexadecimal digits, got {each!r}")

    @property
    def bits(self) -> int:
        """Of the code."""
        return self.parts.bit_length() - 1


class Marker:
    """A mark at work, under one key. Pure: the same image, probabilities and account get the same answer.

    key: the deployment's, at least 32 bytes; what is drawn from it stays out of the repr. channels: of the images.
    classes: K, at least 3.
    """

    def __init__(self, mark: Mark, *, key: bytes, channels: int, classes: int) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError(f"a mark needs a key of at least {KEY_BYTES} bytes, got {len(key)}")
        self.mark = mark
        self._classes = classes
        self._secret = secret(key)
        committed = commitment(self._secret)
        if mark.commitments and committed not in mark.commitments:
            raise ValueError(
                f"commitments: expected a key with one of {', '.join(each[:12] for each in mark.commitments)}, got one "
                f"with {committed[:12]}: its marks would be no evidence. Serve with a key that was committed to, or "
                "commit to this one (python -m assurance.ownership.commitment) and archive again"
            )
        self.weights, self._offsets, self._widths = _stripes(mark, channels, self._secret)
        self.keyed = lru_cache(REMEMBERED)(self._keyed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mark})"

    @property
    def cells(self) -> int:
        """How many there are."""
        return self._classes * self.mark.parts

    def __call__(
        self, images: Images, probabilities: Probabilities, accounts: Sequence[str]
    ) -> tuple[Probabilities, NDArray[np.bool_]]:
        """(N,K) float32, the marked probabilities of N images (N,C,H,W), each for its account; and (N,) which of them
        carry the whole strength."""
        tops = probabilities.argmax(axis=1)
        cells = self.cell(images, tops)
        classes = self.of(cells, accounts)
        return moved(probabilities, tops, classes, self.mark.strength)

    def cell(self, images: Images, tops: Integers) -> Integers:
        """(N,) int64: the cell of each image, served the class in `tops`."""
        return tops * self.mark.parts + self.code(images)

    def code(self, images: Images) -> Integers:
        """(N,) int64, each below `parts`: the secret code of images (N,C,H,W) float32 in [0, 1]."""
        if not self.mark.bits:
            return np.zeros(len(images), np.int64)
        # whole numbers below 2^53, which are exact in floating point, and faster
        projected = means(images, self.mark.grid).astype(np.float64) @ self.weights.astype(np.float64)
        stripes = (projected.astype(np.int64) + self._offsets) // self._widths & 1
        code: Integers = stripes @ (1 << np.arange(self.mark.bits))
        return code

    def of(self, cells: Integers, accounts: Sequence[str]) -> Integers:
        """(N,) int64: the keyed class of each row's cell and account."""
        known = dict.fromkeys(accounts)
        if len(known) == 1:
            return self.keyed(accounts[0])[cells]
        tables = np.stack([self.keyed(account) for account in known])
        places = {account: place for place, account in enumerate(known)}
        return tables[[places[account] for account in accounts], cells]

    def _keyed(self, account: str) -> Integers:
        """(cells,) int64, read-only: the keyed class of each cell for `account`, drawn uniformly from those that are
        not the cell's own; 64 bits are drawn a class, so that none is likelier than another by 2^-50."""
        drawn = _draw(derived(self._secret, account), self.cells, "<u8") % np.uint64(self._classes - 1)
        others = drawn.astype(np.int64)
        own = np.arange(self.cells) // self.mark.parts
        classes: Integers = others + (others >= own)
        classes.setflags(write=False)
        return classes


def secret(key: bytes) -> bytes:
    """What a deployment's key gives for its marks, 32 bytes."""
    return hmac.digest(key, b"torchwarden/mark/1", "sha256")


def derived(secret_: bytes, account: str) -> bytes:
    """What `secret` gives for an account, 32 bytes."""
    return hmac.digest(secret_, b"account/" + account.encode(), "sha256")


def commitment(secret_: bytes) -> str:
    """What can be published of `secret` or `derived`, hexadecimal: it binds, and tells nothing of a cell or a class."""
    return hashlib.sha256(secret_).hexdigest()


def moved(
    probabilities: Probabilities, tops: Integers, classes: Integers, strength: float
) -> tuple[Probabilities, NDArray[np.bool_]]:
    """(1 - s) y + s e_k for rows y (N,K), with k of `classes` (N,) and s as the module says, and where s is `strength`;
    `tops` keep their place."""
    rows = np.arange(len(probabilities))
    top, keyed = (probabilities[rows, places].astype(np.float64) for places in (tops, classes))
    room = top - keyed
    share = np.minimum(strength, room / (1 + room) / 2)
    shown: Probabilities = (probabilities * (1 - share)[:, np.newaxis]).astype(np.float32)
    shown[rows, classes] += share.astype(np.float32)
    return shown, share == strength


def means(images: Images, grid: int) -> Integers:
    """(N, C * grid * grid) int64: the means of blocks, in parts of a grey level of images in 8 bits."""
    pixels = np.rint(images * np.float32(LEVELS)).astype(np.int64)
    rows, _, height, width = pixels.shape
    tops, lefts = (np.arange(grid) * side // grid for side in (height, width))
    sums = np.add.reduceat(np.add.reduceat(pixels, tops, axis=2), lefts, axis=3)
    sizes = np.diff(tops, append=height)[:, np.newaxis] * np.diff(lefts, append=width)
    means: Integers = (FINE * sums // sizes).reshape(rows, -1)
    return means


def _stripes(mark: Mark, channels: int, secret_: bytes) -> tuple[Integers, Integers, Integers]:
    """Weights (blocks, bits), offsets and widths (bits,) of the code's projections, whole numbers drawn from a key."""
    blocks = channels * mark.grid * mark.grid
    drawn = hmac.digest(secret_, b"cells", "sha256")
    weights = _draw(drawn, blocks * mark.bits, "<i2").reshape(blocks, mark.bits).astype(np.int64) >> 6
    norms = [math.isqrt(int(each)) for each in (weights**2).sum(axis=0)]
    widths = np.array([mark.width * FINE * norm for norm in norms], np.int64)
    offsets = _draw(hmac.digest(drawn, b"offsets", "sha256"), mark.bits, "<u8") % np.maximum(2 * widths, 1).astype(
        "<u8"
    )
    return weights, offsets.astype(np.int64), widths


def _draw(seed: bytes, count: int, kind: str) -> NDArray[np.int64]:
    """`count` numbers of numpy type `kind`, SHAKE-256 of a seed that nobody knows."""
    size = count * np.dtype(kind).itemsize
    return np.frombuffer(hashlib.shake_256(seed).digest(size), kind)
