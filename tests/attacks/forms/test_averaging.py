"""The averaging thief: what it asks, what it makes of the answers, and what it is charged."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from attacks.clone import Cloning
from attacks.forms.averaging import AveragingThief, mean_answers
from attacks.forms.consensus import agreed_answers
from attacks.knockoff import KnockoffThief
from attacks.oracle import REFUSED, Answers, Ledger
from attacks.service import Service
from attacks.thief import Thief, steal
from tests.attacks import victims
from zoo.augment import Affine

STILL = Affine()


def averaging(thief: Thief, **changes: Any) -> AveragingThief:
    service = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)
    return AveragingThief(thief, service=service, cloning=Cloning("conv3", epochs=1), seed=2, **changes)


def test_every_copy_is_charged_and_the_originals_are_kept() -> None:
    surrogate = victims.images(30, seed=0)
    ledger = Ledger(victims.oracle, 100)
    thief = averaging(KnockoffThief(surrogate, seed=1), copies=5)
    assert list(steal(thief, ledger, rows=32)) == [30, 60, 90, 100]
    transfer = thief.transfer_set()
    assert transfer.charged == ledger.queries == 100
    assert len(transfer) == 20
    known = {image.numpy().tobytes() for image in surrogate}
    assert all(image.numpy().tobytes() in known for image in transfer.images)
    assert transfer.places.tolist() == list(range(4, 100, 5))
    assert len(transfer.first(49)) == 9


def test_a_rest_that_cannot_pay_all_copies_is_not_spent() -> None:
    ledger = Ledger(victims.oracle, 13)
    thief = averaging(KnockoffThief(victims.images(30, seed=0), seed=1), copies=5)
    assert list(steal(thief, ledger, rows=64)) == [10]


def test_the_mean_is_over_the_copies_of_one_image() -> None:
    seen = []

    def oracle(images: torch.Tensor) -> Answers:
        seen.append(images)
        return victims.oracle(images)

    thief = averaging(KnockoffThief(victims.images(6, seed=0), seed=1), copies=3)
    list(steal(thief, Ledger(oracle, 18), rows=9))
    responses = victims.probabilities(torch.cat(seen)).view(6, 3, -1)
    transfer = thief.transfer_set()
    assert transfer.probabilities is not None
    assert torch.allclose(transfer.probabilities, responses.mean(dim=1))
    assert torch.equal(transfer.labels, responses.mean(dim=1).argmax(dim=1))
    assert not torch.equal(responses[:, 0], responses[:, 1])


def test_copies_that_are_not_transformed_change_nothing() -> None:
    surrogate = victims.images(20, seed=0)
    thief = averaging(KnockoffThief(surrogate, seed=1), copies=4, strength=STILL)
    list(steal(thief, Ledger(victims.oracle, 80), rows=8))
    transfer = thief.transfer_set()
    assert transfer.probabilities is not None
    assert torch.allclose(transfer.probabilities, victims.probabilities(transfer.images), atol=1e-5)


def test_refused_copies_are_left_out() -> None:
    nan = torch.nan
    answers = Answers(
        torch.tensor([0, REFUSED, 1, REFUSED, REFUSED, REFUSED]),
        torch.tensor([[0.8, 0.2], [nan, nan], [0.4, 0.6], [nan, nan], [nan, nan], [nan, nan]]),
    )
    mean = mean_answers(answers, 3)
    assert mean.labels.tolist() == [0, REFUSED]
    assert mean.probabilities is not None
    assert torch.allclose(mean.probabilities[0], torch.tensor([0.6, 0.4]))
    assert mean.probabilities[1].isnan().all()


def test_labels_alone_are_put_to_the_vote() -> None:
    answers = Answers(torch.tensor([2, 1, 2, 3, REFUSED, 3, 1, 0, REFUSED, REFUSED, REFUSED, REFUSED]))
    assert mean_answers(answers, 3).labels.tolist() == [2, 3, 0, REFUSED]
    assert mean_answers(answers, 3).probabilities is None


def test_what_copies_cost_is_what_their_image_cost() -> None:
    surrogate = victims.images(6, seed=0)

    def oracle(images: torch.Tensor) -> Answers:
        return dataclasses.replace(victims.oracle(images), work=torch.arange(len(images)).double())

    thief, ledger = averaging(KnockoffThief(surrogate, seed=1), copies=3), Ledger(oracle, 18)
    list(steal(thief, ledger, rows=9))
    transfer = thief.transfer_set()
    assert transfer.work is not None
    assert transfer.work.tolist() == [0 + 1 + 2, 3 + 4 + 5, 6 + 7 + 8] * 2
    assert transfer.paid == ledger.work
    assert transfer.first(9).paid == 36
    labels = Answers(torch.tensor([2, 1, 2, 3, 3, 3]), work=torch.arange(6).double())
    for merged in (mean_answers(labels, 3), agreed_answers(labels, 3, least=1.0)):
        assert merged.work is not None
        assert merged.work.tolist() == [3, 12]


def test_no_copies_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="copies: expected at least 1, got 0"):
        averaging(KnockoffThief(victims.images(6, seed=0), seed=1), copies=0)
