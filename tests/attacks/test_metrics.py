"""Golden rows, each worked out by hand."""

from __future__ import annotations

import pytest
import torch

from attacks import metrics
from attacks.oracle import REFUSED

R = REFUSED


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("labels", "truth", "expected"),
    [
        (ints(1, 2, 3, 4), ints(1, 2, 3, 4), 1.0),
        (ints(1, 2, 3, 4), ints(1, 2, 0, 0), 0.5),
        (ints(1, R, R, 4), ints(1, 2, 3, 4), 0.5),
        (ints(R, R), ints(1, 2), 0.0),
    ],
)
def test_accuracy(labels: torch.Tensor, truth: torch.Tensor, expected: float) -> None:
    assert metrics.accuracy(labels, truth) == expected


@pytest.mark.parametrize(
    ("clone", "served", "expected"),
    [
        (ints(0, 1, 2, 3), ints(0, 1, 2, 0), 0.75),
        (ints(0, 1, 2, 3), ints(0, R, R, R), 0.25),
    ],
)
def test_agreement(clone: torch.Tensor, served: torch.Tensor, expected: float) -> None:
    assert metrics.agreement(clone, served) == expected


def test_normalised_accuracy_reproduces_the_papers_cell() -> None:
    # EDM table 3, MNIST, Knockoff, soft labels: 51.34 / 99.5
    assert metrics.normalised_accuracy(0.5134, 0.995) == pytest.approx(0.51598, abs=1e-5)
    with pytest.raises(ValueError, match="expected above 0, got 0"):
        metrics.normalised_accuracy(0.5, 0)


def test_label_flips_count_refused_rows() -> None:
    assert metrics.label_flips(ints(0, 1, R, 3), ints(0, 2, 2, 3)) == 0.5


def test_l1() -> None:
    clean = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    served = torch.tensor([[0.0, 1.0], [0.75, 0.25], [torch.nan, torch.nan]])
    # rows: |0-1| + |1-0| = 2 and .25 + .25 = .5; the refused row is left out
    assert metrics.l1(served, clean) == pytest.approx(1.25)


def test_ece_by_hand() -> None:
    # bin (9/15, 10/15]: confidences .62 (right) and .64 (wrong): |1 - 1.26| = .26
    # bin (13/15, 14/15]: .9 right: |1 - .9| = .1
    # bin (14/15, 1]: 1.0 wrong: |0 - 1| = 1
    # ece = (.26 + .1 + 1) / 4 = .34; the refused row is left out
    served = torch.tensor([[0.62, 0.38], [0.64, 0.36], [0.1, 0.9], [1.0, 0.0], [torch.nan, torch.nan]])
    assert metrics.ece(served, ints(0, 1, 1, 1, 0)) == pytest.approx(0.34, abs=1e-6)


def test_ece_of_a_perfect_forecast_is_zero() -> None:
    assert metrics.ece(torch.eye(3), ints(0, 1, 2)) == 0


def test_ece_bins_are_closed_on_the_right() -> None:
    # 3/15 = 0.2 belongs to the bin that ends there, with 0.19
    served = torch.tensor([[0.2] + [0.1] * 8, [0.19] + [0.1] * 8])
    # one right, one wrong in one bin: |1 - .39| / 2 = .305; in two bins it would be (.8 + .19) / 2 = .495
    assert metrics.ece(served, ints(0, 1)) == pytest.approx(0.305, abs=1e-6)


def test_nothing_answered_is_an_error() -> None:
    refused = torch.full((2, 3), torch.nan)
    with pytest.raises(ValueError, match="l1: expected at least one answered row"):
        metrics.l1(refused, refused)
    with pytest.raises(ValueError, match="ece: expected at least one answered row"):
        metrics.ece(refused, ints(0, 1))


def test_no_rows_is_an_error() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="at least one row"):
        metrics.accuracy(empty, empty)
