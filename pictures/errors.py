"""Why a file gives no pixels. The words never repeat what the file holds: they are shown to clients as they are."""

# ruff: noqa: N818 - the names read as events

from __future__ import annotations


class PictureError(ValueError):
    """A file that gives no pixels."""


class Broken(PictureError):
    """No intact file of a format that is read."""


class Unsupported(PictureError):
    """An intact picture whose pixels would have to be guessed, or that costs more to read than pictures do."""


class TooLarge(PictureError):
    """More pixels than are decoded."""


class OtherSize(PictureError):
    """Another size than the one size that is taken."""
