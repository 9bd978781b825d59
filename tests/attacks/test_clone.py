"""Clone training: it learns, it repeats, it chooses without a test set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from attacks import clone, metrics
from attacks.clone import UNMIXING, USUAL, Cloning
from attacks.service import Service
from attacks.transfer import TransferSet
from tests.attacks import victims
from tests.reached import Reached

CLONING = Cloning("conv3", epochs=12, options={"width": 1}, batch_size=32)


def trained(transfer: TransferSet, **changes: Any) -> clone.Clone:
    arguments: dict[str, Any] = {"classes": victims.CLASSES, "labels": "soft", "recipe": "adamw", "seed": 0}
    return clone.train(transfer, changes.pop("cloning", CLONING), **{**arguments, **changes})


def accuracy(made: clone.Clone) -> float:
    unseen = victims.images(300, seed=99)
    return metrics.accuracy(clone.predict(made.network, unseen), victims.oracle(unseen).labels)


READINGS = [
    (recipe, labels)
    for recipe in (*USUAL, "prior-adjusted")
    for labels in clone.LABELS
    if clone.recipe_reads(recipe, labels)
]


@pytest.mark.parametrize(("recipe", "labels"), READINGS)
def test_every_recipe_learns_from_both_readings(recipe: str, labels: str, reached: Reached, seed: int) -> None:
    made = trained(victims.transfer_set(400, seed=seed), recipe=recipe, labels=labels, seed=seed)
    reached("accuracy", accuracy(made), above=0.8)
    reached("held out", made.held_out, above=0.7)
    assert not made.network.training


# what reads more than labels, which below tell the member and nothing else
@pytest.mark.parametrize("recipe", [recipe for recipe in UNMIXING if clone.recipe_reads(recipe, "soft")])
def test_members_that_name_themselves_are_unmixed(recipe: str, reached: Reached, seed: int) -> None:
    # two members, one of which always answers class 0 and the other class 3; the rest of an answer is the victim's
    asked = victims.images(600, seed=seed)
    signatures = 3 * torch.randint(2, (len(asked),), generator=torch.Generator().manual_seed(seed))
    response = (victims.probabilities(asked).log() / 4 + 12 * F.one_hot(signatures, victims.CLASSES)).softmax(dim=1)
    assert response.argmax(dim=1).equal(signatures)
    mixed = TransferSet(asked, signatures, response, torch.arange(len(asked)), len(asked))
    # a clone that believes these labels knows two classes of four
    reached("accuracy", accuracy(trained(mixed, recipe=recipe, seed=seed)), above=0.52)


def test_a_recipe_of_logits_reads_soft_labels_alone() -> None:
    assert ("adamw-log-p", "soft") in READINGS
    assert ("adamw-log-p", "hard") not in READINGS
    assert ("adamw", "hard") in READINGS
    assert not clone.recipe_reads("prior-adjusted", "soft")
    with pytest.raises(ValueError, match="log-p: expected soft labels, got hard ones"):
        trained(victims.transfer_set(50), recipe="adamw-log-p", labels="hard")


def test_a_clone_of_logits_has_the_victims_logits(reached: Reached, seed: int) -> None:
    made = trained(victims.transfer_set(400, seed=seed), recipe="adamw-log-p", seed=seed)
    unseen = victims.images(300, seed=99)
    truth = clone.centred_log(victims.probabilities(unseen))
    with torch.inference_mode():
        logits = made.network.cpu()(unseen)
    reached("error", (logits - truth).abs().mean() / truth.abs().mean(), below=0.3)


def test_a_start_lends_its_weights(tmp_path: Path, reached: Reached, seed: int) -> None:
    transfer = victims.transfer_set(200, seed=seed)
    learnt = trained(transfer, seed=seed)
    torch.save(learnt.network.cpu().state_dict(), tmp_path / "learnt.pt")
    started = dataclasses.replace(CLONING, start=str(tmp_path / "learnt.pt"))
    with torch.random.fork_rng(devices=[]):
        network = clone.untrained(started, Service(1, victims.SIZE, victims.CLASSES))
    assert parameters(clone.Clone(network, 0)).equal(parameters(learnt))
    short = dataclasses.replace(started, epochs=1)
    lent, alone = (
        parameters(trained(transfer.first(40), cloning=dataclasses.replace(short, start=start), seed=seed))
        for start in (short.start, "")
    )
    away = (lent - parameters(learnt)).norm() / (alone - parameters(learnt)).norm()
    reached("share of the way from other weights", away, below=0.5)


def test_a_label_only_answer_trains_a_hard_clone_alone() -> None:
    soft = victims.transfer_set(100)
    labels_only = dataclasses.replace(soft, probabilities=None)
    with pytest.raises(ValueError, match="returned labels only; train with labels='hard'"):
        trained(labels_only, labels="soft")
    assert parameters(trained(labels_only, labels="hard")).equal(parameters(trained(soft, labels="hard")))


def test_equal_seeds_give_equal_clones_whatever_the_global_state() -> None:
    transfer = victims.transfer_set(100)
    torch.manual_seed(1)
    first = parameters(trained(transfer, recipe="adamw-augmented"))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = parameters(trained(transfer, recipe="adamw-augmented"))
    assert first.equal(again)
    assert torch.get_rng_state().equal(before), "training moved the global generator"
    assert not first.equal(parameters(trained(transfer, recipe="adamw-augmented", seed=1)))


def test_each_budget_starts_from_a_fresh_student() -> None:
    transfer = victims.transfer_set(200)
    alone = parameters(trained(transfer.first(100)))
    trained(transfer)
    assert alone.equal(parameters(trained(transfer.first(100))))


def test_held_out_rows_are_not_trained_on(reached: Reached, seed: int) -> None:
    # the held-out tenth has wrong labels: a clone that had seen them would agree with them, and be another clone
    transfer = victims.transfer_set(200, seed=seed)
    _, held_out = transfer.split(clone.HELD_OUT, generator=torch.Generator().manual_seed(seed))
    labels = transfer.labels.clone()
    labels[held_out.places] = (labels[held_out.places] + 1) % victims.CLASSES
    spoilt = dataclasses.replace(transfer, labels=labels)
    made = trained(spoilt, labels="hard", seed=seed)
    reached("held out", made.held_out, below=0.2)
    assert parameters(made).equal(parameters(trained(transfer, labels="hard", seed=seed)))


def test_progress_is_told_after_each_epoch(reached: Reached, seed: int) -> None:
    losses: list[tuple[int, float]] = []
    trained(
        victims.transfer_set(100, seed=seed),
        seed=seed,
        cloning=dataclasses.replace(CLONING, epochs=6),
        progress=lambda epoch, loss: losses.append((epoch, loss)),
    )
    assert [epoch for epoch, _ in losses] == [1, 2, 3, 4, 5, 6]
    reached("the last epoch's loss against the first's", losses[-1][1] / losses[0][1], below=1.0)


def test_the_best_recipe_is_the_one_that_agrees_with_held_out_answers() -> None:
    assert clone.best({"sgd": [0.5, 0.9], "adamw": [0.8, 0.8], "worse": [0.1, 0.2]}) == "adamw"
    assert clone.best({"sgd": [0.5], "adamw": [0.5]}) == "sgd"
    with pytest.raises(ValueError, match="at least one recipe"):
        clone.best({})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": "both"}, "labels: expected 'soft' or 'hard', got 'both'"),
        ({"recipe": "lion"}, "unknown clone recipe 'lion'; expected one of sgd, adamw, adamw-augmented, adamw-log-p"),
    ],
)
def test_wrong_arguments(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(victims.transfer_set(50), **changes)


def test_too_few_answers_are_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least 20 answered rows, got 19"):
        trained(victims.transfer_set(19))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "conv4"}, "unknown architecture 'conv4'; known: conv3, .*timm:NAME"),
        ({"epochs": 0}, "expected epochs >= 1"),
        ({"recipes": ()}, "expected at least one"),
        ({"recipes": ("lion",)}, "unknown clone recipe 'lion'"),
        ({"fractions": (0.5,)}, r"1.0 among them, got \(0.5,\)"),
        ({"fractions": (0.0, 1.0)}, "expected shares above 0"),
    ],
)
def test_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cloning(**{"architecture": "conv3", "epochs": 1, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimiser": "lion"}, "optimiser: expected one of sgd, adamw, got 'lion'"),
        ({"loss": "q"}, "loss: expected one of p, log-p, .* got 'q'"),
    ],
)
def test_what_a_recipe_may_say(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clone.CloneRecipe(**{"optimiser": "sgd", "lr": 0.1, "weight_decay": 0.0, **fields})


def parameters(made: clone.Clone) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in made.network.parameters()])
