"""What any client of a service can know of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """The geometry of the images it takes (channels x size x size) and the number of its classes."""

    channels: int
    size: int
    classes: int
