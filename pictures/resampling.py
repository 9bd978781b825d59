"""OpenCV's resize in NumPy: nearest, linear, cubic and area, on 8 bits.

OpenCV samples: output pixel i looks at the source at x = (i + 1/2) * scale - 1/2, scale = source / target, through the
taps of an interpolating kernel, however much the picture shrinks:

    linear   2 taps, weights 1 - t and t of the fraction t of x
    cubic    4 taps, Keys' kernel with a = -0.75
    area     every source pixel by the share of it that the output pixel covers; where a side grows, 2 taps, of the
             pixel at floor(i * scale) and the next by the share of the output pixel that lies in that
    nearest  the pixel at floor(i * scale)

Edges repeat. Results differ from OpenCV's, which computes in fixed point, by one level at most (tests/pictures).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

A = -0.75
ALL = slice(None)

Taps = tuple[NDArray[np.int64], NDArray[np.float32]]
"""For each output pixel the source pixels it looks at, and their weights, (target, taps) both."""


def resampled(
    pixels: NDArray[np.uint8], size: tuple[int, int], mode: str, rows: slice = ALL, columns: slice = ALL
) -> NDArray[np.uint8]:
    """Pixels (H,W) or (H,W,C) uint8 at another size (height, width). mode: one of those above. rows, columns: of the
    result, where not all of it is wanted: what is cut off a long strip would be most of the work."""
    height, width = size
    grows = height > pixels.shape[0] or width > pixels.shape[1]
    kernel = "area-growing" if mode == "area" and grows else mode
    down, across = taps(pixels.shape[0], height, kernel), taps(pixels.shape[1], width, kernel)
    down, across = (down[0][rows], down[1][rows]), (across[0][columns], across[1][columns])
    if kernel == "nearest":
        return np.ascontiguousarray(pixels[down[0][:, 0]][:, across[0][:, 0]])
    once = _along(pixels.astype(np.float32), down)
    twice = _along(once.swapaxes(0, 1), across).swapaxes(0, 1)
    return np.ascontiguousarray(np.clip(np.rint(twice), 0, 255).astype(np.uint8))


def taps(source: int, target: int, mode: str) -> Taps:
    """Where each of `target` pixels of a side looks among `source` ones; "area-growing": "area" where a side grows."""
    scale = source / target
    if mode == "nearest":
        found = np.minimum(np.floor(np.arange(target) * scale).astype(np.int64), source - 1)
        return found[:, None], np.ones((target, 1), np.float32)
    if mode == "area":
        return _area(source, target, scale)
    x = (np.arange(target) + 0.5) * scale - 0.5
    first = np.floor(x).astype(np.int64)
    t = x - first
    if mode == "area-growing":
        first = np.floor(np.arange(target) * scale).astype(np.int64)
        t = np.arange(1, target + 1) - (first + 1) / scale
        t = np.where(t <= 0, 0, t - np.floor(t))
    if mode in ("linear", "area-growing"):
        places, weights = first[:, None] + np.arange(2), np.stack([1 - t, t], axis=1)
    else:
        places, distances = first[:, None] + np.arange(-1, 3), np.abs(t[:, None] - np.arange(-1, 3))
        weights = np.where(distances <= 1, _near(distances), _far(distances))
    return np.clip(places, 0, source - 1), weights.astype(np.float32)


def _area(source: int, target: int, scale: float) -> Taps:
    begin = np.arange(target) * scale
    most = int(np.ceil(scale)) + 1
    places = np.floor(begin + 1e-9).astype(np.int64)[:, None] + np.arange(most)
    covered = np.minimum(places + 1, (begin + scale)[:, None]) - np.maximum(places, begin[:, None])
    weights = np.clip(covered, 0, None) / scale
    return np.minimum(places, source - 1), weights.astype(np.float32)


def _near(d: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((A + 2) * d - (A + 3)) * d**2 + 1


def _far(d: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((A * d - 5 * A) * d + 8 * A) * d - 4 * A


def _along(values: NDArray[np.float32], looked: Taps) -> NDArray[np.float32]:
    """The first axis resampled, tap by tap: no matrix as large as the picture."""
    places, weights = looked
    shape = (-1, *[1] * (values.ndim - 1))
    total = values[places[:, 0]] * weights[:, 0].reshape(shape)
    for tap in range(1, places.shape[1]):
        total += values[places[:, tap]] * weights[:, tap].reshape(shape)
    return total
