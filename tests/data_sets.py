"""Data sets that many tests read: once a process, and not before a test asks."""

from __future__ import annotations

from functools import cache

from zoo import datasets


@cache
def digits_test() -> datasets.Images:
    """The test split of the digits. Nobody may write into it."""
    return datasets.load("digits", "test")
