"""Every registered attack, held to the same promises."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from attacks.clone import Cloning
from attacks.oracle import Answers, Ledger
from attacks.registry import ATTACKS, attack
from attacks.service import Service
from attacks.thief import steal

SERVICE = Service(channels=1, size=28, classes=10)
CLONING = Cloning("lenet5", epochs=1)
# an attack's parameters at their smallest; a new attack adds its line
SMALL = {"knockoff": {"surrogate": "flower", "budget": 50, "rows": 16}}


def test_every_attack_has_small_parameters_here() -> None:
    assert SMALL.keys() == ATTACKS.keys(), "add the attack's smallest parameters to SMALL in this file"


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_proposes_images_and_keeps_to_its_budget(name: str) -> None:
    parameters = attack(name).parameters(**SMALL[name])
    assert dataclasses.asdict(parameters).items() >= SMALL[name].items()
    thief = attack(name).prepare(parameters, SERVICE, cloning=CLONING, seed=0)

    def oracle(images: torch.Tensor) -> Answers:
        assert images.dtype == torch.float32
        assert images.shape[1:] == (1, 28, 28)
        assert 0 < len(images) <= parameters.rows
        assert 0 <= images.min() <= images.max() <= 1
        told = images.flatten(1)[:, :10].softmax(dim=1)
        return Answers(told.argmax(dim=1), told)

    ledger = Ledger(oracle, parameters.budget)
    assert list(steal(thief, ledger, rows=parameters.rows))
    assert thief.transfer_set().charged == ledger.queries <= parameters.budget


def test_an_unknown_attack_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown attack 'crayon'; expected one of knockoff"):
        attack("crayon")
