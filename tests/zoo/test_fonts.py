"""Characters from fonts: where their ink is, their labels, and what is said without the fonts."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from zoo import datasets
from zoo.datasets import DatasetError
from zoo.fonts import FONTS, characters


def test_characters_stand_where_a_task_s_digits_do() -> None:
    pixels, labels = characters("17", "test")
    assert pixels.shape == (1000, 1, 28, 28)
    assert labels.tolist() == [0, 1] * 500
    mass = pixels.sum(dim=(1, 2, 3))
    axis = torch.arange(28) + 0.5
    for dim in (1, 2):
        middle = (pixels[:, 0].sum(dim=3 - dim) * axis).sum(dim=1) / mass
        assert (middle - 14).abs().max() < 6
        assert (middle.mean() - 14).abs() < 0.5
    # a one has less ink than a seven
    assert mass[labels == 0].mean() < mass[labels == 1].mean()


def test_no_font_is_in_both_splits() -> None:
    assert set(FONTS["train"]).isdisjoint(FONTS["test"])


def test_letters_are_as_many_as_their_names() -> None:
    images = datasets.load("font-letters", "test")
    assert images.labels is not None
    assert images.labels.unique().tolist() == list(range(len(images.classes))) == list(range(52))


def test_without_matplotlib_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatasetError, match="expected matplotlib, which brings the fonts; pip install matplotlib"):
        characters("0", "test")
