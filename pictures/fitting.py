"""A picture of any size to pixels of one size: resize, crop, stretch, letterbox, as a geometry says.

Libraries that resize by one name do not resize alike. Pillow widens its filters when it shrinks a picture, and so does
torchvision on pictures; OpenCV and tf.image look at the nearest source pixels alone, so a small copy has aliases that a
network trained on them expects. Labels of 5 to 9 % of pictures change with the library, accuracy hardly, so what the
owner used is part of the model. Pillow's resize is Pillow's; OpenCV's is a few weights a pixel, along rows and columns
(pictures/resampling.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictures.geometry import Geometry
from pictures.resampling import resampled

Bytes = NDArray[np.uint8]
PILLOW = {
    name: Image.Resampling[name.upper()] for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
}


def fitted(picture: Image.Image, wanted: Geometry) -> Bytes:
    """The picture, an "L" or "RGB" image, as (C,H,W) uint8 of the wanted shape."""
    coloured = picture.convert("L" if wanted.channels == 1 else "RGB")
    if wanted.fit != "exact" and (coloured.size != (wanted.width, wanted.height) or wanted.resize):
        coloured = (_letterboxed if wanted.fit == "letterbox" else _cropped)(coloured, wanted)
    pixels = np.asarray(coloured)
    return pixels[np.newaxis].copy() if wanted.channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resized_to(size: tuple[int, int], wanted: Geometry) -> tuple[int, int]:
    """Height and width that a picture of height and width `size` is resized to, before anything is cut off or added."""
    height, width = size
    if wanted.fit == "letterbox":
        factor = min(wanted.width / width, wanted.height / height)
        return max(1, round(height * factor)), max(1, round(width * factor))
    if wanted.fit == "stretch" and wanted.resize:
        factor = wanted.resize / min(wanted.height, wanted.width)
        return round(wanted.height * factor), round(wanted.width * factor)
    if wanted.fit != "crop":
        return wanted.height, wanted.width
    if wanted.resize:  # as torchvision's Resize rounds
        factor = wanted.resize / min(width, height)
        return max(1, int(height * factor + 1e-9)), max(1, int(width * factor + 1e-9))
    factor = max(wanted.width / width, wanted.height / height)
    return max(wanted.height, round(height * factor)), max(wanted.width, round(width * factor))


def _cropped(picture: Image.Image, wanted: Geometry) -> Image.Image:
    """The centre of the resized picture: as torchvision's CenterCrop rounds."""
    height, width = resized_to((picture.height, picture.width), wanted)
    left, top = round((width - wanted.width) / 2), round((height - wanted.height) / 2)
    if wanted.library == "pillow" or picture.size == (width, height):
        whole = _resized(picture, wanted)
        return whole.crop((left, top, left + wanted.width, top + wanted.height))
    rows, columns = slice(max(top, 0), top + wanted.height), slice(max(left, 0), left + wanted.width)
    inner = resampled(np.asarray(picture), (height, width), wanted.interpolation, rows, columns)
    left, top = min(left, 0), min(top, 0)  # below 0 where less is left than is cut out
    return Image.fromarray(inner).crop((left, top, left + wanted.width, top + wanted.height))


def _letterboxed(picture: Image.Image, wanted: Geometry) -> Image.Image:
    inner = _resized(picture, wanted)
    whole = Image.new(picture.mode, (wanted.width, wanted.height), (wanted.fill,) * len(picture.getbands()))
    whole.paste(inner, ((wanted.width - inner.width) // 2, (wanted.height - inner.height) // 2))
    return whole


def _resized(picture: Image.Image, wanted: Geometry) -> Image.Image:
    height, width = resized_to((picture.height, picture.width), wanted)
    if picture.size == (width, height):
        return picture
    if wanted.library == "pillow":
        return picture.resize((width, height), PILLOW[wanted.interpolation])
    return Image.fromarray(resampled(np.asarray(picture), (height, width), wanted.interpolation))
