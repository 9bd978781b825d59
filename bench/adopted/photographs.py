"""Photographs without a download: crops of scikit-learn's two, as JPEG files of several sizes.

Four classes: which of the two it is, in a cold or a warm light. A crop is drawn, coloured and compressed once in
DRAWN; the files of a larger set differ in a JPEG comment alone, which makes each of them another content (zoo/stored.py
splits by that) that has to be read and decoded like any other.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.embedded import photograph

SUBJECTS = ("china.jpg", "flower.jpg")
LIGHTS = {"cold": (0.7, 0.85, 1.0), "warm": (1.0, 0.85, 0.6)}
CLASSES = tuple(f"{subject.removesuffix('.jpg')}-{light}" for subject in SUBJECTS for light in LIGHTS)
# width and height, as cameras, telephones and web pages have them
SIZES = ((500, 375), (375, 500), (640, 480), (320, 240), (400, 400))
DRAWN = 240
# of the photograph's 427 rows, the least side of a crop
LEAST = 120
QUALITY = 88
MARKER, COMMENT = b"\xff\xd8", b"\xff\xfe"


def write(folder: Path, count: int, *, seed: int) -> Path:
    """`count` files in a folder for each class, which come back as `folder`; the same for the same seed."""
    random = np.random.default_rng(seed)
    drawn = [_jpeg(row % len(CLASSES), random) for row in range(min(count, DRAWN))]
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for row in range(count):
        # DRAWN is a multiple of the classes' number, so a repeated crop is of its class again
        data = _commented(drawn[row % DRAWN], f"{seed} {row}")
        (folder / CLASSES[row % len(CLASSES)] / f"{row:06d}.jpg").write_bytes(data)
    return folder


def _jpeg(label: int, random: np.random.Generator) -> bytes:
    """A crop of the class, somewhere and of some size, in its light with a little noise."""
    subject, light = divmod(label, len(LIGHTS))
    picture = photograph(SUBJECTS[subject])
    height, width = picture.shape[:2]
    side = int(random.integers(LEAST, height))
    top, left = int(random.integers(height - side)), int(random.integers(width - side))
    crop = Image.fromarray(picture[top : top + side, left : left + side])
    pixels = np.asarray(crop.resize(SIZES[int(random.integers(len(SIZES)))], Image.Resampling.BICUBIC), np.float32)
    tinted = pixels * np.array(list(LIGHTS.values())[light]) * random.uniform(0.8, 1.1)
    noisy = tinted + random.normal(0, 4, pixels.shape)
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def _commented(jpeg: bytes, text: str) -> bytes:
    """The file with a comment after its first marker."""
    comment = text.encode()
    return MARKER + COMMENT + (2 + len(comment)).to_bytes(2, "big") + comment + jpeg.removeprefix(MARKER)
