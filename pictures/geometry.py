"""What a picture of any size becomes before a classifier sees it: one shape, and how it gets there.

It is part of a policy, so that an archive makes of a client's photograph what training made of the owner's. "exact"
takes pictures of one size alone, as networks do that were trained on a set of such pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FITS = ("exact", "crop", "stretch", "letterbox")
# those that may be followed by cutting out the centre
RESIZED = ("crop", "stretch")
# modes by the library whose resize they are
INTERPOLATIONS = {
    "pillow": ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
    "opencv": ("nearest", "linear", "area", "cubic"),
}
LARGEST_SIDE = 4096
MOST_MEGAPIXELS = 100


@dataclass(frozen=True)
class Fitting:
    """The way from a picture to pixels of one size.

    fit: "exact" refuses pictures of another size; "crop" resizes the shorter side to `resize` pixels, to what just
        covers the size where that is 0, and cuts out the centre; "stretch" resizes to the size whatever the
        proportions, or where `resize` is not 0 to so many pixels on the shorter side of that shape, and cuts out the
        centre; "letterbox" resizes the whole picture into the size, centred on `fill`, a gray level from 0 to 255.
    interpolation: a mode of `library`, "pillow" (as torchvision and timm have it on pictures; antialiased) or "opencv"
        (which is not, but for "area"; tf.image.resize's bilinear is opencv's "linear").
    background: the gray level that a picture with transparent parts is laid on; None: such a picture is refused.
    megapixels: the most that a picture may have, before anything of it is decoded.
    """

    fit: str = "exact"
    resize: int = 0
    fill: int = 0
    interpolation: str = "bilinear"
    library: str = "pillow"
    background: int | None = None
    megapixels: float = 25.0


@dataclass(frozen=True)
class _Shape:
    channels: int
    height: int
    width: int


# bases from right to left: the shape's fields come first
@dataclass(frozen=True)
class Geometry(Fitting, _Shape):
    """The pixels wanted of a picture, and the way to them.

    channels: 1 (gray) or 3 (RGB). height, width: in pixels.
    """

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise ValueError("; ".join(faults))

    def _faults(self) -> Iterator[str]:
        if type(self.channels) is not int or self.channels not in (1, 3):
            yield f"channels: expected 1 or 3, got {self.channels!r}"
        sides = {"height": self.height, "width": self.width}
        for name, side in sides.items():
            yield from _whole(name, side, 1, LARGEST_SIDE)
        yield from choice("fit", self.fit, FITS)
        yield from choice("library", self.library, tuple(INTERPOLATIONS))
        if self.library in INTERPOLATIONS:
            yield from choice(f"interpolation of {self.library}", self.interpolation, INTERPOLATIONS[self.library])
        if type(self.resize) is not int:
            yield f"resize: expected a whole number of pixels, got {self.resize!r}"
        elif self.fit in RESIZED and self.resize and self.resize < min(sides.values()):
            yield f"resize: expected at least the shorter side that is cut out, got {self.resize}"
        elif self.fit not in RESIZED and self.resize:
            yield f"resize: expected 0, a picture that fits by {self.fit!r} has no shorter side, got {self.resize}"
        yield from _whole("fill", self.fill, 0, 255)
        if self.background is not None:
            yield from _whole("background", self.background, 0, 255)
        if type(self.megapixels) not in (int, float) or not 0 < self.megapixels <= MOST_MEGAPIXELS:
            yield f"megapixels: expected above 0 and at most {MOST_MEGAPIXELS}, got {self.megapixels!r}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def most_pixels(self) -> int:
        """Of a picture that is decoded."""
        return self.height * self.width if self.fit == "exact" else int(self.megapixels * 1_000_000)


def choice(name: str, value: object, known: Sequence[str]) -> Iterator[str]:
    """What is wrong with a value that is to be one of the known."""
    if value not in known:
        yield f"{name}: expected one of {', '.join(known)}, got {value!r}"


def _whole(name: str, value: object, least: int, most: int) -> Iterator[str]:
    if type(value) is not int or not least <= value <= most:
        yield f"{name}: expected an integer from {least} to {most}, got {value!r}"
