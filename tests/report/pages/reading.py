"""How tests read a page."""

from __future__ import annotations

import re


def lines(text: str, *words: str) -> list[str]:
    """The lines that have all these words."""
    return [line for line in text.splitlines() if all(word in line for word in words)]


def answer(text: str) -> list[str]:
    """The numbered lines that a page opens with, before its figure, without their numbers."""
    return re.findall(r"^\d+\. (.*)$", text.split("![")[0].split("\n## ")[0], re.MULTILINE)


def check(text: str) -> None:
    """What holds of every page: an answer of at most ten lines that begins with what does not hold, at most one figure,
    tables whose lines have as many cells as their heads, and no gap of two empty lines."""
    found = answer(text)
    assert 1 <= len(found) <= 10
    lost = [line.startswith("**Does not hold**") for line in found]
    assert lost == sorted(lost, reverse=True)
    assert text.count("![") <= 1
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert "\n\n\n" not in text
