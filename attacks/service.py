"""What any client of a service can know of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo.images import Size, sides


@dataclass(frozen=True)
class Service:
    """The geometry of the images it takes (channels, and the side of square ones or height and width) and the number of
    its classes."""

    channels: int
    size: Size
    classes: int

    @property
    def side(self) -> int:
        """Of square images. Raises ValueError where they are not, for attacks that draw no others."""
        height, width = sides(self.size)
        if height != width:
            raise ValueError(
                f"expected a service for square images, this attack draws no others, got {height} x {width}"
            )
        return height

    @property
    def pixels(self) -> int:
        """Numbers in an image."""
        return self.channels * math.prod(sides(self.size))
