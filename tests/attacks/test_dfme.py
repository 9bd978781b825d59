"""DFME on a victim that every clone can learn, and on services that refuse, round or tell labels only."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from attacks import dfme, metrics
from attacks.clone import Cloning, predict
from attacks.dfme import DFME
from attacks.oracle import REFUSED, Answers, Ledger, Oracle
from attacks.script import ScriptedThief
from attacks.service import Service
from attacks.thief import steal
from tests.attacks import victims
from tests.reached import Reached

SERVICE = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)
CLONING = Cloning("conv3", epochs=1, options={"width": 1})
SMALL = DFME(budget=6000, rows=100, batch=32, filters=4, lr_generator=1e-3, lr_clone=3e-3)
# of labels alone p is a unit vector; its logits are no larger than a clone learns in so few steps
LABELS = dataclasses.replace(SMALL, floor=0.1)
EXAM = victims.images(400, seed=99)


def attack(oracle: Oracle, config: DFME, *, seed: int = 0) -> tuple[ScriptedThief, Ledger]:
    thief = dfme.prepare(config, SERVICE, cloning=CLONING, seed=seed)
    ledger = Ledger(oracle, config.budget)
    for _ in steal(thief, ledger, rows=config.rows):
        pass
    return thief, ledger


def agreement(thief: ScriptedThief) -> float:
    clone = thief.clone()
    assert clone is not None
    return metrics.agreement(predict(clone.network, EXAM), victims.oracle(EXAM).labels)


def weights(thief: ScriptedThief) -> torch.Tensor:
    clone = thief.clone()
    assert clone is not None
    return torch.cat([each.flatten() for each in clone.network.parameters()])


def test_it_copies_the_victim_without_an_image_of_its_own(reached: Reached, seed: int) -> None:
    thief, ledger = attack(victims.oracle, SMALL, seed=seed)
    assert ledger.queries == SMALL.budget
    assert thief.own() is None
    clone = thief.clone()
    assert clone is not None
    assert not clone.network.training
    reached("held out", clone.held_out, above=0.45)
    reached("agreement", agreement(thief), above=0.7)
    assert len(thief.transfer_set()) < dfme.KEEP + SMALL.rows  # however large the budget


def test_it_copies_a_victim_that_tells_labels_only(reached: Reached, seed: int) -> None:
    # one thief's luck is a tenth of all images
    thieves = [attack(victims.label_oracle, LABELS, seed=2 * seed + number)[0] for number in range(2)]
    reached("mean agreement of two", sum(map(agreement, thieves)) / 2, above=0.38)


def test_equal_seeds_ask_the_same() -> None:
    config = dataclasses.replace(SMALL, budget=500)
    first, again, other = (attack(victims.oracle, config, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.transfer_set().images, again.transfer_set().images)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(first.transfer_set().images, other.transfer_set().images)


@pytest.mark.parametrize("directions", [1, 3])
def test_a_cycle_is_charged_for_every_probe(directions: int) -> None:
    config = dataclasses.replace(SMALL, directions=directions)
    forger, apprentice, draws = dfme.players(
        SERVICE,
        CLONING,
        dfme.CloneRecipe("sgd", 0.01, 0.0),
        lr_generator=1e-3,
        filters=4,
        latent=8,
        affine=False,
        seed=0,
    )
    script = dfme.script(config, victims.CLASSES, forger, apprentice, draws)
    images = next(script)
    asked = [len(images)]
    for _ in range(5):
        images = script.send(victims.oracle(images))
        asked.append(len(images))
    assert asked == [(directions + 1) * 32, 32, 32, 32, 32, 32]  # 7 B with one direction
    step = next_probe = script.send(victims.oracle(images))
    assert len(next_probe) == (directions + 1) * 32
    # a probe lies a step of epsilon from its image before the tanh, and less than half of that in pixels
    assert 0 < (step[32:64] - step[:32]).flatten(1).norm(dim=1).max() <= config.epsilon / 2 * 1.01


def test_refused_rows_teach_nothing(reached: Reached, seed: int) -> None:
    def refusing(images: torch.Tensor) -> Answers:
        answers = victims.oracle(images)
        assert answers.probabilities is not None
        refused = torch.arange(len(images)) % 3 == 0
        return Answers(
            torch.where(refused, REFUSED, answers.labels),
            torch.where(refused[:, None], torch.nan, answers.probabilities),
        )

    thief, ledger = attack(refusing, SMALL, seed=seed)
    assert ledger.queries == SMALL.budget
    assert ledger.refused > 0.3 * SMALL.budget
    assert weights(thief).isfinite().all()
    reached("agreement", agreement(thief), above=0.65)  # a guess is right in 1 of 4


def test_a_service_that_refuses_everything_leaves_the_thief_as_it_was() -> None:
    def closed(images: torch.Tensor) -> Answers:
        return Answers(torch.full((len(images),), REFUSED))

    thief, _ = attack(closed, dataclasses.replace(SMALL, budget=700))
    fresh = dfme.prepare(SMALL, SERVICE, cloning=CLONING, seed=0)
    assert torch.equal(weights(thief), weights(fresh))
    clone = thief.clone()
    assert clone is not None
    assert clone.held_out == 0.0


def test_rounded_answers_are_finite_targets_and_tell_what_labels_do() -> None:
    def rounded(images: torch.Tensor) -> Answers:
        served = victims.probabilities(images).round()  # often (1, 0, 0, 0), now and then nothing at all
        return Answers(victims.probabilities(images).argmax(dim=1), served)

    config = dataclasses.replace(SMALL, budget=500)
    thief, deaf = (attack(oracle, config)[0] for oracle in (rounded, victims.label_oracle))
    assert weights(thief).isfinite().all()
    assert torch.equal(weights(thief), weights(deaf))


def test_targets_by_hand() -> None:
    row = torch.tensor([[0.9, 0.1, 0.0, 0.0]])
    logs = [math.log(0.9), math.log(0.1), math.log(1e-4), math.log(1e-4)]
    mean = sum(logs) / 4
    assert DFME(floor=1e-4).wanted(row)[0].tolist() == pytest.approx([each - mean for each in logs], abs=1e-5)
    assert DFME(targets="p").wanted(row)[0].tolist() == pytest.approx([0.65, -0.15, -0.25, -0.25])
    assert dfme.loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])).tolist() == [1.5]


def test_learning_rates_fall_with_the_queries() -> None:
    config = DFME(budget=1000, milestones=(0.1, 0.5), decay=0.3)
    assert [config.rate(asked) for asked in (0, 99, 100, 499, 500, 2000)] == pytest.approx([1, 1, 0.3, 0.3, 0.09, 0.09])
    longer = DFME(budget=100, planned=1000, milestones=(0.1, 0.5), decay=0.3)
    assert [longer.rate(asked) for asked in (99, 100)] == pytest.approx([1, 0.3])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "budget: expected at least 1, got 0"),
        ({"batch": 1}, "batch: expected at least 2, got 1"),
        ({"epsilon": 0.0}, "epsilon: expected more than 0, got 0.0"),
        ({"milestones": (1.5,)}, "milestones: expected shares of the budget"),
        ({"targets": "logits"}, "targets: expected 'log-p' or 'p', got 'logits'"),
        ({"optimiser": "adam"}, "optimiser: expected 'adamw' or 'sgd', got 'adam'"),
    ],
)
def test_parameters_are_checked(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DFME(**wrong)  # type: ignore[arg-type]
