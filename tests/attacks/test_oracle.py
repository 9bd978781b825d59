"""The ledger: every image is charged, and nothing is sent that would exceed the budget."""

from __future__ import annotations

import pytest
import torch

from attacks.oracle import REFUSED, Answers, BudgetSpent, Ledger, distributions, joined


class Counting:
    """An oracle that remembers what reached it and refuses black images."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: torch.Tensor) -> Answers:
        self.seen += len(images)
        black = images.flatten(1).sum(dim=1) == 0
        return Answers(torch.where(black, REFUSED, 1))


def test_every_image_is_charged_and_refusals_are_counted() -> None:
    ledger = Ledger(Counting(), budget=10)
    images = torch.ones(4, 1, 2, 2)
    images[1] = 0
    ledger(images)
    ledger(images)
    assert (ledger.queries, ledger.refused, ledger.left) == (8, 2, 2)


def test_nothing_is_sent_that_would_exceed_the_budget() -> None:
    oracle = Counting()
    ledger = Ledger(oracle, budget=5)
    ledger(torch.ones(3, 1, 2, 2))
    with pytest.raises(BudgetSpent, match="3 images asked for, 2 of 5 left"):
        ledger(torch.ones(3, 1, 2, 2))
    assert oracle.seen == 3
    ledger(torch.ones(2, 1, 2, 2))
    assert (ledger.left, oracle.seen) == (0, 5)


def test_images_that_reached_a_failing_service_are_charged() -> None:
    def failing(images: torch.Tensor) -> Answers:
        raise ConnectionError("gone")

    ledger = Ledger(failing, budget=5)
    with pytest.raises(ConnectionError, match="gone"):
        ledger(torch.ones(3, 1, 2, 2))
    assert ledger.queries == 3


def test_an_oracle_that_loses_rows_is_an_error() -> None:
    ledger = Ledger(lambda images: Answers(torch.zeros(1, dtype=torch.int64)), budget=5)
    with pytest.raises(ValueError, match="1 answers for 2 images"):
        ledger(torch.ones(2, 1, 2, 2))


def test_a_budget_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least 1 image, got 0"):
        Ledger(Counting(), budget=0)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        (torch.zeros(2), None, r"labels: expected int64 \(N,\), got float32 \(2,\)"),
        (torch.zeros(2, 1, dtype=torch.int64), None, r"got int64 \(2, 1\)"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.float64), r"got float64 \(2, 3\)"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(3, 3), "2 labels, 3 rows"),
    ],
)
def test_malformed_answers_are_errors(labels: torch.Tensor, probabilities: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Answers(labels, probabilities)


def test_what_was_paid_is_added_up() -> None:
    paid = iter([torch.tensor([0.0, 10.0]).double(), None, torch.tensor([2.5, 0.0]).double()])
    ledger = Ledger(lambda images: Answers(torch.zeros(2, dtype=torch.int64), work=next(paid)), budget=6)
    for _ in range(3):
        ledger(torch.ones(2, 1, 2, 2))
    assert ledger.work == 12.5


def test_answers_are_joined_with_what_was_paid_for_some_of_them() -> None:
    free = Answers(torch.tensor([1, 2]))
    paid = Answers(torch.tensor([3]), work=torch.tensor([7.0]).double())
    assert joined([free, free]).work is None
    responses = joined([free, paid])
    assert responses.labels.tolist() == [1, 2, 3]
    assert responses.work is not None
    assert responses.work.tolist() == [0, 0, 7]
    shown = Answers(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), torch.tensor([5.0]).double())
    both = joined([shown, Answers(torch.tensor([REFUSED]))])
    assert both.work is not None
    assert both.work.tolist() == [5, 0]


def test_labels_alone_are_joined_with_probabilities_as_what_they_are() -> None:
    shown = Answers(torch.tensor([0]), torch.tensor([[0.75, 0.25]]))
    both = joined([shown, Answers(torch.tensor([1, REFUSED]))])
    assert both.probabilities is not None
    assert both.probabilities.isnan().all(dim=1).tolist() == [False, True, True]
    rows = distributions(both, 2)
    assert rows[:2].tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert rows[2].isnan().all()


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (torch.zeros(2), r"work: expected float64 \(2,\), got float32 \(2,\)"),
        (torch.zeros(3).double(), r"work: expected float64 \(2,\), got float64 \(3,\)"),
    ],
)
def test_malformed_work_is_an_error(work: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Answers(torch.zeros(2, dtype=torch.int64), work=work)
