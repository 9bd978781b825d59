"""Glyphs: a classification task made from a secret, for a perceptual hash that only the key's owner can train.

EDM (Kariyappa et al., ICLR 2021, sec. 4.2.1) hashes a query by a network's answer on a task unknown to the thief. A
public data set is a poor secret. Here the task follows from a key: each class is a glyph of a few random strokes,
drawn by a stream keyed with the secret, and its images are that glyph seen, inked and lit at random.

The secret enters HMAC-SHA256 alone. Images and networks trained on them hold nothing it can be computed from.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from zoo.images import Images

SECRET_BYTES = 16

# A glyph: strokes, each a quadratic Bezier curve or a bent line through three points, split into segments
STROKES = 3
SEGMENTS = 8
CANDIDATES = 6  # drawn for each class wanted, to choose classes that differ

# The distance of each point of the plane to a glyph, kept as a picture of [-REACH, REACH] squared. A glyph fills
# [-1, 1] squared; the corner of an image that shows more takes the distance at the border, too far for any ink.
FIELD = 96
REACH = 1.6

# Least and greatest of what each image draws for itself; ZOOM: half the image's side, in units of half the glyph's
ZOOM = (0.95, 1.3)
DEGREES = (-20.0, 20.0)
SHEAR = (-0.15, 0.15)
SHIFT = (-0.15, 0.15)
THICKNESS = (0.06, 0.16)
CONTRAST = (0.35, 1.0)
NOISE = (0.0, 0.1)

Floats = npt.NDArray[np.float64]


def glyphs(secret: bytes, *, classes: int, per_class: int, size: int, channels: int, draw: int) -> Images:
    """`per_class` images of each of `classes` glyphs that follow from the secret.

    secret: at least 16 bytes; the same secret gives the same classes, another one others.
    size: side S of the images, at least 16. channels: 1 or 3.
    draw: which sample of the classes, at least 0; the same number gives the same pixels, another one fresh images.
    Gives float32 pixels (classes * per_class, channels, S, S) in [0,1], with labels 0, 1, ..., K-1, 0, 1, ...
    Raises ValueError.
    """
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"secret: expected at least {SECRET_BYTES} bytes, got {len(secret)}")
    for name, value, least in (
        ("classes", classes, 2),
        ("per_class", per_class, 1),
        ("size", size, 16),
        ("draw", draw, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if channels not in (1, 3):
        raise ValueError(f"channels: expected 1 or 3, got {channels}")
    fields = _distinct(_distances(_segments(secret, CANDIDATES * classes)), classes)
    rng = np.random.default_rng(int.from_bytes(_key(secret, f"draw {draw}"), "big"))
    pixels = torch.stack([_images(field, per_class, size, channels, rng) for field in fields], dim=1)
    labels = torch.arange(classes).repeat(per_class)
    names = tuple(f"glyph-{number}" for number in range(classes))
    return Images("glyphs", pixels.flatten(0, 1), labels, names)


def _key(secret: bytes, purpose: str) -> bytes:
    return hmac.digest(secret, f"torchwarden/glyphs/{purpose}".encode(), "sha256")


def _uniform(secret: bytes, purpose: str, shape: tuple[int, ...]) -> Floats:
    """Numbers in [0,1) from SHAKE-256 under a key of the secret: unpredictable, and the same on every machine."""
    stream = hashlib.shake_256(_key(secret, purpose)).digest(8 * int(np.prod(shape)))
    return (np.frombuffer(stream, "<u8") >> 11).astype(np.float64).reshape(shape) * 2.0**-53


def _segments(secret: bytes, count: int) -> Floats:
    """The segments' ends (count, STROKES * SEGMENTS, 2 ends, 2) of `count` glyphs, each filling [-1, 1] squared."""
    points = _uniform(secret, "points", (count, STROKES, 3, 2)) * 2 - 1
    curved = _uniform(secret, "curved", (count, STROKES, 1, 1)) < 0.5
    first, middle, last = (points[:, :, None, number] for number in range(3))
    t = np.linspace(0, 1, SEGMENTS + 1)[:, None]
    curve = (1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last
    line = np.where(t < 0.5, first + 2 * t * (middle - first), middle + (2 * t - 1) * (last - middle))
    path = np.where(curved, curve, line)
    low, high = path.min((1, 2), keepdims=True), path.max((1, 2), keepdims=True)
    path = (path - (low + high) / 2) * (2 / (high - low))
    return np.stack([path[:, :, :-1], path[:, :, 1:]], axis=3).reshape(count, STROKES * SEGMENTS, 2, 2)


def _distances(segments: Floats) -> torch.Tensor:
    """Distance of each point of [-REACH, REACH] squared to the nearest segment: float32 (count, FIELD, FIELD)."""
    axis = np.linspace(-REACH, REACH, FIELD)
    x, y = (each.ravel() for each in np.meshgrid(axis, axis))
    nearest = np.full((len(segments), FIELD * FIELD), np.inf)
    for number in range(segments.shape[1]):
        (x0, y0), (x1, y1) = segments[:, number].transpose(1, 2, 0)[..., None]
        along_x, along_y, from_x, from_y = x1 - x0, y1 - y0, x - x0, y - y0
        share = (from_x * along_x + from_y * along_y) / (along_x**2 + along_y**2)
        share.clip(0, 1, out=share)
        np.minimum(nearest, (from_x - share * along_x) ** 2 + (from_y - share * along_y) ** 2, out=nearest)
    return torch.from_numpy(np.sqrt(nearest).reshape(-1, FIELD, FIELD)).float()


def _distinct(fields: torch.Tensor, count: int) -> torch.Tensor:
    """`count` of the candidates, each new one the farthest from those chosen before (Gonzalez, 1985)."""
    flat = torch.exp(-4 * fields).flatten(1)
    chosen = [0]
    apart = torch.full((len(flat),), torch.inf)
    while len(chosen) < count:
        apart = torch.minimum(apart, (flat - flat[chosen[-1]]).norm(dim=1))
        chosen.append(int(apart.argmax()))
    return fields[chosen]


def _images(field: torch.Tensor, count: int, size: int, channels: int, rng: np.random.Generator) -> torch.Tensor:
    """`count` images (count, channels, size, size) of the glyph whose distance field (FIELD, FIELD) is given."""

    def uniform(limits: tuple[float, float], *more: int) -> torch.Tensor:
        drawn = rng.random((count, *more), dtype=np.float32) * (limits[1] - limits[0]) + limits[0]
        return torch.from_numpy(drawn)

    angle, zoom = torch.deg2rad(uniform(DEGREES)), uniform(ZOOM)
    cosine, sine, shear = zoom * angle.cos(), zoom * angle.sin(), uniform(SHEAR)
    rows = [cosine, shear * cosine - sine, uniform(SHIFT), sine, shear * sine + cosine, uniform(SHIFT)]
    view = torch.stack(rows, dim=1).view(count, 2, 3)
    grid = F.affine_grid(view, [count, 1, size, size], align_corners=False) / REACH
    # one tall picture instead of `count` copies of the field
    distance = F.grid_sample(
        field[None, None],
        grid.view(1, count * size, size, 2),
        padding_mode="border",
        align_corners=True,
    ).view(count, 1, size, size)
    pixel = 2 * zoom.view(-1, 1, 1, 1) / size
    ink = ((uniform(THICKNESS, 1, 1, 1) - distance) / pixel + 0.5).clamp(0, 1)

    contrast = uniform(CONTRAST, 1, 1, 1) * uniform((0.5, 1.0), channels, 1, 1)
    dark = uniform((0, 1), channels, 1, 1) * (1 - contrast)
    inverted = uniform((0, 1), 1, 1, 1) < 0.5
    noise = torch.from_numpy(rng.standard_normal((count, channels, size, size), dtype=np.float32))
    lit = dark + contrast * torch.where(inverted, 1 - ink, ink)
    return (lit + uniform(NOISE, 1, 1, 1) * noise).clamp(0, 1)
