"""One picture's file to the pixels that a classifier takes: the one decoder of training, calibration and serving.

    bytes -> what decides pixels (pictures/essence.py) -> Pillow: upright, 8 bits, opaque -> pictures/fitting.py

Nothing is guessed, and what is converted is converted by one rule:

    orientation   as EXIF data say, as every viewer shows it
    alpha         opaque everywhere: as if there were none; else laid on the geometry's background, or refused
    16 bits       the upper 8 of them
    floats        0 to 1 are 0 to 255, rounded; a value outside is refused
    CMYK, palettes, bilevel, YCbCr   Pillow's conversion; profiles and gammas are ignored
    frames        one; several are refused

A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as its format allows at little cost, while what is left has at
least GAP times the sides that the picture is resized to: only where the resize is antialiased, so that every pixel
counts in it anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from math import ceil

import numpy as np
import PIL.TiffImagePlugin
import PIL.WebPImagePlugin  # noqa: F401  # registers what Image.preinit does not
from numpy.typing import NDArray
from PIL import Image

from pictures.errors import Broken, OtherSize, PictureError, TooLarge, Unsupported
from pictures.essence import essence
from pictures.fitting import fitted, resized_to
from pictures.formats import JPEG, Body
from pictures.geometry import Geometry
from pictures.quiet import quiet

Image.preinit()  # or the first picture waits while Pillow imports its formats
# What brings the picture of an EXIF orientation upright. 1 is upright; 5 to 8 exchange width and height.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = (5, 6, 7, 8)
SCALES = (8, 4, 2)
GAP = 2
# a progressive JPEG's pixels are gone over once a scan: so often, at the most pixels that are decoded
SCANS = 12
# pixels of a decoded picture that is kept for other geometries
KEPT = 2**21
SCANNED = 2**24
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
_KNOWN = ("1", "L", "P", "LA", "PA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "F", *_SIXTEEN)


class Picture:
    """A file that is held, and decoded when pixels are asked for: again only where another scale is wanted.

    size: height and width, upright; None where the file states more than Pillow opens. Raises Unsupported and Broken
    for what the file's header shows.
    """

    def __init__(self, data: Body) -> None:
        with _reading():
            self._file = essence(data)
            if self._file.several:
                raise Unsupported("expected a single picture, got several frames")
            try:
                self._unread: Image.Image | None = self._opened()
            except Image.DecompressionBombError:
                self._unread, self.size = None, None
                return
        width, height = self._unread.size
        self.size = (width, height) if self._file.orientation in LYING else (height, width)
        if self._unread.mode not in _KNOWN:
            raise Unsupported("expected a gray, palette, RGB or CMYK picture, got another colour space")
        self._kept: tuple[tuple[int, int | None], Image.Image] | None = None

    def __repr__(self) -> str:
        return f"Picture({self._file.format}, {self.size})"

    @property
    def pixels(self) -> int:
        """How many the file states; more than any limit where Pillow does not open it."""
        return 2**62 if self.size is None else self.size[0] * self.size[1]

    def work(self, wanted: Geometry) -> int:
        """What `fitted` costs, in pixels of 8 bits that are gone over once: the file's, where a JPEG of more than SCANS
        scans and samples of more bits count that much more; or those that they are resized to, where these are more."""
        assert self.size is not None  # `check` refuses the others
        height, width = resized_to(self.size, wanted)
        often = max(ceil(self._file.scans / SCANS), 2 if self._file.deep else 1)
        return max(often * self.pixels, height * width)

    def check(self, wanted: Geometry) -> None:
        """What the header alone refuses. Raises PictureError."""
        if wanted.fit == "exact":
            if self.size != (wanted.height, wanted.width):
                got = "far more" if self.size is None else f"{self.size[1]} x {self.size[0]}"
                raise OtherSize(f"expected {wanted.width} x {wanted.height} pixels, got {got}")
        elif self.pixels > wanted.most_pixels:
            got = "far more" if self.size is None else f"{self.pixels / 1e6:.1f}"
            raise TooLarge(f"expected a picture of at most {wanted.megapixels:g} megapixels, got {got}")
        if self._file.scans * self.pixels > max(SCANNED, SCANS * wanted.most_pixels):
            raise Unsupported(
                "expected a JPEG file of few scans for its size, got more; save it again, not progressive"
            )
        self._check_resized(wanted)

    def fitted(self, wanted: Geometry) -> NDArray[np.uint8]:
        """The pixels (C,H,W). Raises PictureError."""
        self.check(wanted)
        key = (self._scale(wanted), wanted.background)
        if self._kept is not None and self._kept[0] == key:
            return fitted(self._kept[1], wanted)
        with _reading():
            image = self._upright(*key)
        if image.width * image.height <= KEPT:
            self._kept = key, image
        return fitted(image, wanted)

    def _check_resized(self, wanted: Geometry) -> None:
        """A long strip whose shorter side is resized is far larger then."""
        assert self.size is not None
        height, width = resized_to(self.size, wanted)
        if height * width > max(wanted.most_pixels, wanted.height * wanted.width):
            raise TooLarge(
                f"expected a picture that is resized to at most {wanted.megapixels:g} megapixels, got one "
                f"{max(self.size) / min(self.size):.0f} times as long as it is wide"
            )

    def _scale(self, wanted: Geometry) -> int:
        """By what a JPEG is made smaller while it is decoded."""
        if self._file.format != JPEG or wanted.fit == "exact" or wanted.library != "pillow":
            return 1
        if wanted.interpolation == "nearest" or self.size is None:
            return 1
        needed = [GAP * side for side in resized_to(self.size, wanted)]
        for scale in SCALES:
            if all(ceil(side / scale) >= least for side, least in zip(self.size, needed, strict=True)):
                return scale
        return 1

    def _opened(self) -> Image.Image:
        return Image.open(BytesIO(self._file.data), formats=[self._file.format])

    def _upright(self, scale: int, background: int | None) -> Image.Image:
        """The picture, "L" or "RGB"."""
        image, self._unread = self._unread or self._opened(), None
        with image:
            if scale > 1:
                image.draft(image.mode, (image.width // scale, image.height // scale))
            flat = _opaque(image, background)
        turn = TURNS.get(self._file.orientation)
        return flat if turn is None else flat.transpose(turn)


def _opaque(image: Image.Image, background: int | None) -> Image.Image:
    """A picture, "L" or "RGB" of 8 bits. Raises Unsupported."""
    if image.mode in _SIXTEEN:
        levels = np.asarray(image)
        if (levels == image.info.get("transparency", -1)).any():
            raise _transparent()
        return Image.fromarray((levels >> 8).astype(np.uint8))
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):  # a NaN is neither
            raise Unsupported("expected floating-point pixels from 0 to 1, got others")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        if seen.getchannel("A").getextrema() != (255, 255):
            if background is None:
                raise _transparent()
            seen = Image.alpha_composite(Image.new("RGBA", seen.size, (background,) * 3 + (255,)), seen)
        return seen.convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _transparent() -> Unsupported:
    return Unsupported("expected a picture without transparent parts; put it on a background first")


@contextmanager
def _reading() -> Iterator[None]:
    """Pillow's errors, as ours."""
    try:
        with quiet():
            yield
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        # Pillow raises any error of its parsers, OSError, SyntaxError or struct.error: each time a broken file
        raise Broken("expected an intact picture; this one cannot be decoded") from error
