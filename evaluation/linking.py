"""Which accounts ask near-copies of each other's images.

Codes. What near-copies have in common is the secret perceptual code of defenses/noise.py. Two accounts a, b with the
last W queries of each are linked where both

    share(a, b) = |{queries of a whose code stands among b's, for another image}| / W        and        share(b, a)

reach a threshold. W divides also where an account has asked fewer, so that a young one is not linked by a hit or two;
both must reach it, so that an account that asks one image for ever is in nobody's company. An image that is byte for
byte the same in both says nothing: strangers ask popular images too, and a thief gains nothing by asking one twice.
A server would need the codes of W queries of each account, and of each code the accounts that asked it: bounded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from defenses.noise import PerceptualCode

Integers = NDArray[np.int64]
# queries of an account that are looked at
WINDOW = 200
# of a window with fewer queries
NONE = -1


class Windows(NamedTuple):
    """The last queries of accounts (A, W), NONE where there are fewer. codes, images: numbers, equal for equal ones;
    equal images have equal codes."""

    codes: Integers
    images: Integers


def coded(pixels: NDArray[np.uint8], code: PerceptualCode, secret: bytes) -> Integers:
    """A number for each image (N,C,H,W), equal where their codes are: (N,)."""
    return distinct(code.of(pixels, code.cuts(pixels.shape[1], secret)))


def distinct(rows: NDArray[np.uint8]) -> Integers:
    """A number for each row (N, ...), equal for equal ones: (N,)."""
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1))
    found = np.unique(flat.view(f"V{flat.shape[1]}").ravel(), return_inverse=True)[1]
    return found.astype(np.int64).ravel()


def hits(windows: Windows, first: int) -> Integers:
    """W share(a, b) above, of each account among each: (A, A). Right where a or b is one of the first accounts, and
    too small elsewhere: strangers need not be compared with each other to see who is in a campaign's company. Of an
    account and itself it says nothing."""
    near = np.isin(windows.codes, np.unique(windows.codes[:first]))
    codes, images = np.where(near, windows.codes, NONE), np.where(near, windows.images, NONE)
    shared, copies = _shared(codes), _shared(images)
    different = _different(codes, images, shared)
    found = _count(codes, shared) @ (different > 0).T.astype(np.float32)
    # where b asked one image of a code, it is no hit for that image
    of = np.searchsorted(shared, _codes_of(copies, codes, images))
    asked = _count(images, copies)
    found -= asked @ ((asked > 0) & (different[:, of] == 1)).T.astype(np.float32)
    return found.astype(np.int64)


def mutual(windows: Windows, first: int) -> Integers:
    """The smaller of both, (A, A); 0 of an account and itself."""
    found = hits(windows, first)
    found = np.minimum(found, found.T)
    np.fill_diagonal(found, 0)
    return found


def _shared(values: Integers) -> Integers:
    """Those that stand in the windows of two accounts or more, rising."""
    accounts = len(values)
    # one number a pair of value and account: pairs are sorted many times faster so
    pairs = values * accounts + np.arange(accounts)[:, None]
    found, times = np.unique(np.unique(pairs[values != NONE]) // accounts, return_counts=True)
    shared: Integers = found[times > 1]
    return shared


def _places(values: Integers, of: Integers) -> tuple[Integers, Integers, NDArray[np.intp]]:
    """The values (A, W) that are among `of`: accounts, places in `of`, and which of all they are."""
    flat = values.ravel()
    places = np.searchsorted(of, flat)
    (found,) = np.nonzero((of[places.clip(max=len(of) - 1)] == flat) if len(of) else np.zeros(flat.shape, bool))
    return found // values.shape[1], places[found], found


def _count(values: Integers, of: Integers) -> NDArray[np.float32]:
    """How often each account has each value: (A, len(of))."""
    accounts, places, _ = _places(values, of)
    count = np.bincount(accounts * len(of) + places, minlength=len(values) * len(of))
    return count.reshape(len(values), len(of)).astype(np.float32)


def _different(codes: Integers, images: Integers, of: Integers) -> NDArray[np.float32]:
    """How many images of each code each account has: (A, len(of))."""
    accounts, places, found = _places(codes, of)
    cells, many = accounts * len(of) + places, int(images.max(initial=0)) + 1
    once = np.unique(cells * many + images.ravel()[found]) // many
    count = np.bincount(once, minlength=len(codes) * len(of))
    return count.reshape(len(codes), len(of)).astype(np.float32)


def _codes_of(wanted: Integers, codes: Integers, images: Integers) -> Integers:
    """The code of each image."""
    known, first = np.unique(images, return_index=True)
    return codes.ravel()[first[np.searchsorted(known, wanted)]]
