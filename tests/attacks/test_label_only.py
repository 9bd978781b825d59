"""Deaf to probabilities: labels as served, refusals as given."""

from __future__ import annotations

import torch

from attacks.label_only import labels_only
from attacks.oracle import REFUSED, Answers
from tests.attacks import victims


def test_the_labels_are_what_is_left() -> None:
    images = victims.images(10, seed=0)
    response = labels_only(victims.oracle)(images)
    assert response.probabilities is None
    assert torch.equal(response.labels, victims.oracle(images).labels)


def test_a_refused_row_stays_refused() -> None:
    def oracle(images: torch.Tensor) -> Answers:
        nan = torch.nan
        return Answers(torch.tensor([REFUSED, 1]), torch.tensor([[nan, nan], [0.1, 0.9]]))

    response = labels_only(oracle)(victims.images(2, seed=0))
    assert response.refused.tolist() == [True, False]
    assert response.probabilities is None
