"""[model.input]: how a classifier's owner makes of a picture what the classifier takes.

Preprocessing is part of a model. What of it is geometry (resize, crop, letterbox) happens to pictures, in training, in
calibration and in the server, by one decoder (pictures/picture.py). What of it is arithmetic (colour order, scale,
mean, std, layout, type) is put into the graph when a model is adopted (export/adopt/). Between the two lie images
(N,C,H,W) in [0,1], RGB or gray: all that gates, hashes and limits ever see.

    value the network sees = (pixel in [0,1] * scale - mean) / std
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from pictures.geometry import FITS, INTERPOLATIONS, Fitting, Geometry, choice

__all__ = ["COLOURS", "FITS", "INTERPOLATIONS", "LAYOUTS", "TYPES", "ModelInput"]

COLOURS = ("RGB", "BGR")
LAYOUTS = ("NCHW", "NHWC", "NHW", "flat")
TYPES = ("float32", "float16", "float64", "uint8")


@dataclass(frozen=True)
class _Size:
    size: int | tuple[int, int]
    channels: int = 3


# bases from right to left: the size's fields come first
@dataclass(frozen=True)
class ModelInput(Fitting, _Size):
    """Geometry, then arithmetic.

    size: height and width that the network takes, or the side of a square. channels: of the images, 1 or 3.
    colour: of the channels that the network takes. scale, mean, std: see above; one value, or one a channel.
    layout: of its input. type: of its values.
    """

    fit: str = "crop"
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
        try:
            self.geometry  # noqa: B018  # its own checks
        except ValueError as error:
            yield str(error)
        yield from choice("colour", self.colour, COLOURS)
        yield from choice("layout", self.layout, LAYOUTS)
        yield from choice("type", self.type, TYPES)
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
    def geometry(self) -> Geometry:
        """What of it decides pixels."""
        return Geometry(**{field.name: getattr(self, field.name) for field in fields(Geometry)})

    def slopes(self) -> list[float]:
        """What a pixel in [0,1] is multiplied with, a value a channel in the network's order."""
        return [self.scale / std for std in self._each(self.std)]

    def offsets(self) -> list[float]:
        """What is then added."""
        return [-mean / std for mean, std in zip(self._each(self.mean), self._each(self.std), strict=True)]

    def _each(self, values: Sequence[float]) -> list[float]:
        return list(values) * (self.channels if len(values) == 1 else 1)
