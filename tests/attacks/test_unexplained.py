"""Unexplained answers: a keyed function of the coarse layout is foretold and left out, the task's labels are not."""

from __future__ import annotations

import torch

from attacks.unexplained import coarse, ridge, unexplained
from training.decoys import Decoy


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_decoys_are_foretold_and_what_has_nothing_to_do_with_the_layout_is_not() -> None:
    shown = images(2000)
    misled = Decoy(b"k" * 32, grid=4, channels=1, classes=4)(shown)
    drawn = torch.randint(4, (2000,), generator=torch.Generator().manual_seed(1))
    assert unexplained(shown, misled).float().mean() < 0.25
    assert unexplained(shown, drawn).float().mean() > 0.65
    # a tenth that was not misled is most of what is left
    task = torch.arange(2000) % 10 == 0
    left = unexplained(shown, torch.where(task, (misled + 1) % 4, misled))
    assert left[task].float().mean() > 2 * left[~task].float().mean()


def test_no_row_is_foretold_by_itself() -> None:
    shown = images(40)
    drawn = torch.randint(4, (40,), generator=torch.Generator().manual_seed(1))
    assert unexplained(shown, drawn).float().mean() > 0.5, "40 rows of 70 numbers fit anything that they were shown"


def test_the_ridge_regression_is_the_closed_form() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert torch.allclose(ridge(features, torch.eye(2)), torch.tensor([[1 / 1.002, 0.0], [0.0, 2 / 4.002]]))


def test_a_coarse_look_has_length_one_and_a_constant() -> None:
    looks = coarse(images(3), 4)
    assert looks.shape == (3, 17)
    assert torch.allclose(looks[:, :-1].norm(dim=1), torch.ones(3))
    assert looks[:, -1].tolist() == [1.0, 1.0, 1.0]
