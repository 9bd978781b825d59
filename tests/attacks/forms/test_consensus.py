"""The consensus thief: near-duplicates, and only what they agree on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attacks.clone import Cloning
from attacks.forms.consensus import ConsensusThief, agreed_answers
from attacks.knockoff import KnockoffThief
from attacks.oracle import REFUSED, Answers, Ledger
from attacks.service import Service
from attacks.thief import Thief, steal
from tests.attacks import victims
from zoo.augment import Affine


def consensus(thief: Thief, **changes: Any) -> ConsensusThief:
    service = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)
    return ConsensusThief(thief, service=service, cloning=Cloning("conv3", epochs=1), seed=2, **changes)


def liar(images: torch.Tensor) -> Answers:
    """The victim, which gives the label after the right one by the image's brightness: a third of all."""
    response = victims.probabilities(images)
    lies = (images.mean(dim=(1, 2, 3)) * 1e4).long() % 3 == 0
    response = torch.where(lies[:, None], response.roll(1, dims=1), response)
    return Answers(response.argmax(dim=1), response)


def wrong(thief: Thief) -> float:
    transfer = thief.transfer_set()
    return (transfer.labels != victims.oracle(transfer.images).labels).float().mean().item()


def test_lies_are_left_out_and_charged() -> None:
    surrogate = victims.images(400, seed=0)
    plain = KnockoffThief(surrogate, seed=1)
    list(steal(plain, Ledger(liar, 400), rows=64))
    thief, ledger = consensus(KnockoffThief(surrogate, seed=1)), Ledger(liar, 2000)
    list(steal(thief, ledger, rows=64))
    transfer = thief.transfer_set()
    assert transfer.charged == ledger.queries == 2000
    assert 20 < len(transfer) < 200
    assert ((transfer.places + 1) % 5 == 0).all()
    assert wrong(plain) > 0.25
    assert wrong(thief) < 0.1


def test_an_honest_victim_is_believed() -> None:
    thief = consensus(KnockoffThief(victims.images(100, seed=0), seed=1))
    list(steal(thief, Ledger(victims.oracle, 500), rows=64))
    assert len(thief.transfer_set()) > 80
    assert wrong(thief) < 0.05


def test_copies_differ_a_little() -> None:
    thief = consensus(KnockoffThief(victims.images(20, seed=0), seed=1), copies=4)
    asked = thief.propose(40)
    assert asked is not None
    copies = asked.view(10, 4, -1)
    assert 0 <= asked.min() <= asked.max() <= 1
    change = (copies[:, 0] - copies[:, 1]).abs().mean().item()
    assert 0 < change < 0.05


def test_the_answer_of_agreeing_copies_by_hand() -> None:
    nan = torch.nan
    answers = Answers(
        torch.tensor([0, 0, 0, 1, 1, 0, 1, 1, REFUSED, REFUSED, REFUSED, REFUSED]),
        torch.tensor(
            [[0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]  # all say 0
            + [[0.1, 0.9], [0.3, 0.7], [0.8, 0.2]]  # two of three say 1
            + [[0.2, 0.8], [0.4, 0.6], [nan, nan]]  # two say 1, one was refused
            + [[nan, nan]] * 3
        ),
    )
    strict = agreed_answers(answers, 3, least=1.0)
    assert strict.labels.tolist() == [0, REFUSED, REFUSED, REFUSED]
    assert strict.probabilities is not None
    assert torch.allclose(strict.probabilities[0], torch.tensor([0.7, 0.3]))
    assert strict.probabilities[1:].isnan().all()
    loose = agreed_answers(answers, 3, least=2 / 3)
    assert loose.labels.tolist() == [0, 1, 1, REFUSED]
    assert loose.probabilities is not None
    assert torch.allclose(loose.probabilities[1:3], torch.tensor([[0.4, 0.6], [0.3, 0.7]]))


def test_labels_alone_can_agree_too() -> None:
    answers = Answers(torch.tensor([2, 2, 2, 1, 2, 2, REFUSED, REFUSED, REFUSED]))
    assert agreed_answers(answers, 3, least=1.0).labels.tolist() == [2, REFUSED, REFUSED]
    assert agreed_answers(answers, 3, least=0.6).labels.tolist() == [2, 2, REFUSED]
    assert agreed_answers(answers, 3, least=1.0).probabilities is None


def test_still_copies_always_agree() -> None:
    surrogate = victims.images(20, seed=0)
    thief = consensus(KnockoffThief(surrogate, seed=1), strength=Affine())
    list(steal(thief, Ledger(victims.oracle, 100), rows=64))
    assert len(thief.transfer_set()) == 20


@pytest.mark.parametrize("least", [0.0, 1.1])
def test_a_share_out_of_range_is_a_mistake(least: float) -> None:
    with pytest.raises(ValueError, match="least: expected a share"):
        consensus(KnockoffThief(victims.images(6, seed=0), seed=1), least=least)
