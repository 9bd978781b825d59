"""[model.input]: how a classifier's owner makes of a picture what the classifier takes.

Preprocessing is part of a model. What of it is geometry (resize, crop, letterbox) happens to pictures, in training, in
calibration and wherever a client or a server has a picture (pictures/fitting.py). What of it is arithmetic (colour
order, scale, mean, std, layout, type) is put into the graph when a model is adopted (export/adopt/). Between the two
lie images (N,C,H,W) in [0,1], RGB or gray: all that gates, hashes and limits ever see.

    value the network sees = (pixel in [0,1] * scale - mean) / std
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FITS = ("crop", "stretch", "letterbox")
COLOURS = ("RGB", "BGR")
LAYOUTS = ("NCHW", "NHWC", "NHW", "flat")
TYPES = ("float32", "float16", "float64", "uint8")
# modes by the library whose resize they are
INTERPOLATIONS = {
    "pillow": ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
    "opencv": ("nearest", "linear", "area", "cubic"),
}
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class ModelInput:
    """Geometry, then arithmetic.

    size: height and width that the network takes, or the side of a square. channels: 1 (gray) or 3 (RGB).
    fit: "crop" resizes the shorter side to `resize` pixels, to what just covers the size where that is 0, and cuts out
        the centre; "stretch" resizes to the size whatever the proportions; "letterbox" resizes the whole picture into
        the size, centred on `fill`, a gray level from 0 to 255.
    interpolation: a mode of `library`, "pillow" (as torchvision and timm have it on pictures; antialiased) or "opencv"
        (which is not, but for "area"; tf.image.resize's bilinear is opencv's "linear").
    colour: of the channels that the network takes. scale, mean, std: see above; one value, or one a channel.
    layout: of its input. type: of its values.
    """

    size: int | tuple[int, int]
    channels: int = 3
    fit: str = "crop"
    resize: int = 0
    fill: int = 0
    interpolation: str = "bilinear"
    library: str = "pillow"
    colour: str = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "NCHW"
    type: str = "float32"

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise ValueError("; ".join(faults))

    def _faults(self) -> Iterator[str]:
        for side in (self.height, self.width):
            if not 1 <= side <= LARGEST_SIDE:
                yield f"size: expected sides from 1 to {LARGEST_SIDE}, got {side}"
        if self.channels not in (1, 3):
            yield f"channels: expected 1 or 3, got {self.channels}"
        yield from _choice("fit", self.fit, FITS)
        yield from _choice("library", self.library, tuple(INTERPOLATIONS))
        if self.library in INTERPOLATIONS:
            yield from _choice(f"interpolation of {self.library}", self.interpolation, INTERPOLATIONS[self.library])
        yield from _choice("colour", self.colour, COLOURS)
        yield from _choice("layout", self.layout, LAYOUTS)
        yield from _choice("type", self.type, TYPES)
        if self.fit == "crop" and self.resize and self.resize < min(self.height, self.width):
            yield f"resize: expected at least the shorter side that is cut out, got {self.resize}"
        if self.fit != "crop" and self.resize:
            yield f"resize: expected 0, a picture that fits by {self.fit!r} has no shorter side, got {self.resize}"
        if not 0 <= self.fill <= 255:
            yield f"fill: expected a gray level from 0 to 255, got {self.fill}"
        if not self.scale > 0:
            yield f"scale: expected a number above 0, got {self.scale}"
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                yield f"{name}: expected one value, or one for each of {self.channels} channels, got {list(values)}"
        if not all(value > 0 for value in self.std):
            yield f"std: expected values above 0, got {list(self.std)}"
        if self.type == "uint8" and (self.scale != 255 or any(self.mean) or any(each != 1 for each in self.std)):
            yield "type: expected scale 255 without mean and std, a uint8 input takes bytes, got others"
        if self.layout == "NHW" and self.channels != 1:
            yield f"layout: expected one with channels, images have {self.channels}, got {self.layout!r}"

    @property
    def height(self) -> int:
        """In pixels."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.size if isinstance(self.size, int) else self.size[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def geometry(self) -> dict[str, object]:
        """What of it decides pixels, by name."""
        names = ("size", "channels", "fit", "resize", "fill", "interpolation", "library")
        return {name: getattr(self, name) for name in names}

    def slopes(self) -> list[float]:
        """What a pixel in [0,1] is multiplied with, a value a channel in the network's order."""
        return [self.scale / std for std in self._each(self.std)]

    def offsets(self) -> list[float]:
        """What is then added."""
        return [-mean / std for mean, std in zip(self._each(self.mean), self._each(self.std), strict=True)]

    def _each(self, values: Sequence[float]) -> list[float]:
        return list(values) * (self.channels if len(values) == 1 else 1)


def _choice(name: str, value: str, known: Sequence[str]) -> Iterator[str]:
    if value not in known:
        yield f"{name}: expected one of {', '.join(known)}, got {value!r}"
