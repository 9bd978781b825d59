"""Characters drawn from the fonts that matplotlib brings: images like those of a digits task, but not handwritten.

Each character is drawn large, its ink put into a box of 5/7 of the side around its centre of mass, as MNIST's digits
are (LeCun et al., 1998), varied (zoo/writing.py), and averaged down. No font is in both splits.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

from zoo.images import DatasetError
from zoo.writing import Writing

SIZE = 28
COUNTS = {"train": 6000, "test": 1000}
FONTS = {
    "train": (
        *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
        *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
        *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
        *("cmr10", "cmss10", "cmb10", "DejaVuSansMono"),
    ),
    "test": ("cmtt10", "cmti10", "DejaVuSansMono-Bold"),
}
FINE = 2  # drawn and varied at so many times SIZE
BOX = 20 * FINE
VARIED = Writing(0.6)
CHUNK = 1000


def characters(wanted: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """White on black: float32 (N,1,28,28) in [0,1], and int64 labels, the place of each character in `wanted`.

    Every character in every font, in turn, each time with new variation. Always the same images in the same order, as
    far as one version of Pillow draws alike. Raises DatasetError where matplotlib is not installed.
    """
    glyphs = torch.stack([_glyph(font, character) for font in _files(split) for character in wanted])
    rows = torch.arange(COUNTS[split]) % len(glyphs)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.cat([F.avg_pool2d(VARIED(glyphs[part], generator=generator), FINE) for part in rows.split(CHUNK)])
    return pixels.clamp(0, 1), rows % len(wanted)


def _files(split: str) -> list[Path]:
    # found, not imported: only its files are needed
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise DatasetError("characters from fonts: expected matplotlib, which brings the fonts; pip install matplotlib")
    return [Path(found.origin).parent / f"mpl-data/fonts/ttf/{name}.ttf" for name in FONTS[split]]


def _glyph(font: Path, character: str) -> torch.Tensor:
    """float32 (1, SIZE * FINE, SIZE * FINE): the character, its longer side BOX, its centre of mass in the middle."""
    side = SIZE * FINE
    drawn = Image.new("L", (4 * side, 4 * side))
    ImageDraw.Draw(drawn).text((side, side), character, fill=255, font=ImageFont.truetype(str(font), 2 * side))
    ink = drawn.crop(drawn.getbbox())
    zoom = BOX / max(ink.size)
    width, height = (max(1, round(zoom * length)) for length in ink.size)
    pixels = np.asarray(ink.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
    top, left = (
        round(side / 2 - float((pixels.sum(axis) * (np.arange(length) + 0.5)).sum() / pixels.sum()))
        for axis, length in ((1, height), (0, width))
    )
    top, left = min(max(top, 0), side - height), min(max(left, 0), side - width)
    canvas = np.zeros((1, side, side), np.float32)
    canvas[0, top : top + height, left : left + width] = pixels
    return torch.from_numpy(canvas)
