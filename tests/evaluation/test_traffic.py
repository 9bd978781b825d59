"""Benign shifts, on images small enough to work out by hand; and what all of them must keep."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from evaluation import traffic
from evaluation.traffic import SHIFTS
from zoo import datasets


@cache
def some_digits() -> torch.Tensor:
    return datasets.load("digits", "test").pixels[:8]


def dot(row: int, column: int) -> torch.Tensor:
    image = torch.zeros(1, 7, 7)
    image[0, row, column] = 1
    return image


@pytest.mark.parametrize("name", SHIFTS)
def test_every_shift_changes_images_a_little_and_always_alike(name: str) -> None:
    shift = SHIFTS[name]
    given = some_digits().clone()
    once = shift(some_digits())
    assert torch.equal(given, some_digits())
    assert torch.equal(once, shift(some_digits()))
    assert (once.shape, once.dtype) == (some_digits().shape, torch.float32)
    assert 0 <= once.min() <= once.max() <= 1
    assert 0.01 < (once - some_digits()).abs().mean() < 0.25
    # of every image by itself, but for its place among those that take turns
    assert name == "Gaussian noise 0.1" or torch.equal(once[4:], shift(some_digits()[4:]))


def test_images_move_right_left_down_and_up_in_turn() -> None:
    moved = traffic.moved(dot(3, 3).expand(5, -1, -1, -1), 2)
    places = [tuple((image[0] == 1).nonzero()[0].tolist()) for image in moved]
    assert places == [(3, 5), (3, 1), (5, 3), (1, 3), (3, 5)]
    assert moved.sum().item() == 5
    assert traffic.moved(dot(3, 6)[None], 2).sum() == 0  # what leaves does not come back


def test_images_turn_about_their_middle_by_turns() -> None:
    turned = traffic.rotated(dot(3, 5).expand(2, -1, -1, -1), 90)
    places = {tuple(image[0].flatten().argmax().unsqueeze(0).tolist()) for image in turned}
    assert places == {(1 * 7 + 3,), (5 * 7 + 3,)}
    assert torch.allclose(traffic.rotated(some_digits(), 0), some_digits(), atol=1e-5)
    middle = traffic.rotated(dot(3, 3)[None], 30)
    assert middle[0, 0, 3, 3] == pytest.approx(1, abs=1e-5)


def test_a_blurred_dot_is_the_gaussian() -> None:
    blurred = traffic.blurred(dot(3, 3)[None], 1.0)[0, 0]
    line = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / 2)
    assert torch.allclose(blurred, torch.outer(line, line) / line.sum() ** 2, atol=1e-6)
    colours = torch.stack([dot(3, 3)[0], torch.zeros(7, 7), torch.ones(7, 7)])[None]
    own = traffic.blurred(colours, 1.0)[0]
    assert torch.allclose(own[0], blurred)
    assert own[1].abs().max() == 0
    assert torch.allclose(own[2], torch.ones(7, 7))


def test_brightness_contrast_and_noise() -> None:
    image = torch.tensor([0.0, 0.25, 0.5, 0.95]).view(1, 1, 2, 2)  # its mean is 0.425
    assert traffic.brightened(image, 0.2).flatten().tolist() == pytest.approx([0.2, 0.45, 0.7, 1.0])
    assert traffic.brightened(image, -0.3).flatten().tolist() == pytest.approx([0.0, 0.0, 0.2, 0.65])
    assert traffic.contrasted(image, 0.5).flatten().tolist() == pytest.approx([0.2125, 0.3375, 0.4625, 0.6875])
    assert traffic.contrasted(image, 2.0).flatten().tolist() == pytest.approx([0.0, 0.075, 0.575, 1.0])
    grey = torch.full((1, 1, 100, 100), 0.5)
    assert (traffic.noisy(grey, 0.1) - 0.5).std().item() == pytest.approx(0.1, rel=0.05)
