"""A picture's file on a disk."""

from __future__ import annotations

from pathlib import Path

from pictures.errors import PictureError
from pictures.picture import Picture


def opened(file: Path) -> Picture:
    """The file's picture. Raises PictureError."""
    try:
        return Picture(file.read_bytes())
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from error
