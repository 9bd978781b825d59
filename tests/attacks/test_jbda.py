"""JBDA: signs by hand, the count of its rounds, what it learns from, and that a clone of what it asks is a good one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks import clone, jacobian, jbda, metrics, owned
from attacks.clone import Cloning
from attacks.jbda import JBDA
from attacks.oracle import REFUSED, Answers, Ledger, Oracle
from attacks.script import ScriptedThief
from attacks.service import Service
from attacks.thief import steal
from attacks.transfer import TransferSet
from tests.attacks import victims
from tests.reached import Reached

CLONING = Cloning("conv3", epochs=4, options={"width": 1}, batch_size=32)
SERVICE = Service(1, victims.SIZE, victims.CLASSES)
# logits of two pixels and three classes: z = (2a, 2b, a + b) times a scale
WEIGHTS = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])


def linear(scale: float = 1.0) -> nn.Module:
    layer = nn.Linear(2, 3, bias=False)
    layer.weight = nn.Parameter(scale * WEIGHTS)
    return nn.Sequential(nn.Flatten(), layer).eval()


def two_pixels(*values: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 2)


def augmenting(parameters: JBDA, *, seeds: int = 6, seed: int = 0) -> ScriptedThief:
    generator = torch.Generator().manual_seed(seed)
    images = victims.images(seeds, seed=3)
    return ScriptedThief(
        jacobian.augmenting(images, parameters, parameters.move, SERVICE, cloning=CLONING, generator=generator)
    )


def stolen(
    oracle: Oracle = victims.oracle, *, budget: int = 10_000, seeds: int = 6, seed: int = 0, **changes: Any
) -> TransferSet:
    fields: dict[str, Any] = {"rounds": 3, "epochs": 2, "step": 0.1, **changes}
    thief = augmenting(JBDA("digits", budget, **fields), seeds=seeds, seed=seed)
    for _ in steal(thief, Ledger(oracle, budget), rows=16):
        pass
    return thief.transfer_set()


def test_away_follows_the_cross_entropy_and_into_the_logit() -> None:
    # away from class 2, z = a + b, at (0.5, 0.2): of the others class 0 is ahead, so a rises. p = softmax(1, 0.4, 0.7),
    # and the gradient is sum_k p_k w_k - w_2 = (2 p_0 + p_2 - 1, 2 p_1 + p_2 - 1) = (p_0 - p_1, p_1 - p_0) = (+, -)
    images, labels = two_pixels((0.5, 0.2)), torch.tensor([2])
    away = JBDA("digits", 1, step=0.1).move(linear(), images, labels, 0)
    torch.testing.assert_close(away, two_pixels((0.6, 0.1)))
    # into class 2 by its logit: both rise
    into = JBDA("digits", 1, step=0.1, sign="into").move(linear(), images, labels, 0)
    torch.testing.assert_close(into, two_pixels((0.6, 0.3)))


def test_copies_are_clipped_to_pixels() -> None:
    images, labels = two_pixels((0.95, 0.05)), torch.tensor([2])
    torch.testing.assert_close(JBDA("digits", 1, step=0.1).move(linear(), images, labels, 0), two_pixels((1.0, 0.0)))


def test_the_sign_alternates_every_tau_rounds() -> None:
    images, labels = two_pixels((0.5, 0.2)), torch.tensor([2])
    parameters = JBDA("digits", 1, step=0.1, alternate=2)
    moved = [parameters.move(linear(), images, labels, number)[0, 0, 0, 0].item() for number in range(6)]
    assert moved == pytest.approx([0.6, 0.6, 0.4, 0.4, 0.6, 0.6])


@pytest.mark.parametrize("label", [0, 1, 2])
def test_the_sign_is_that_of_the_cross_entropy(label: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    images = torch.rand(50, 1, 4, 4, requires_grad=True)
    labels = torch.full((50,), label)
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(images), labels, reduction="sum"), images)
    assert torch.equal(jacobian.climb(network, images.detach(), labels, jacobian.doubt), gradient.sign())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_certain_clone_has_a_sign_all_the_same() -> None:
    # z = 1000 * (2, 0.4, 1.2): the cross entropy of class 0 is 0 in float32, and so is its gradient
    images, labels = two_pixels((1.0, 0.2)), torch.tensor([0])
    naive = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(linear(1000)(naive), labels), naive)
    assert torch.equal(gradient.sign(), torch.zeros_like(gradient))
    # away from class 0 towards its runner-up, class 2: w_2 - w_0 = (-1, 1)
    assert torch.equal(jacobian.climb(linear(1000), images, labels, jacobian.doubt), two_pixels((-1, 1)))


def test_every_round_doubles_the_set_the_last_one_too() -> None:
    transfer = stolen()
    assert transfer.charged == len(transfer) == 6 * 2**3
    seeds = victims.images(6, seed=3)
    assert torch.equal(transfer.images[:6], seeds)
    distinct = {image.numpy().tobytes() for image in transfer.images}
    assert len(distinct) == len(transfer)
    assert 0 <= transfer.images.min() <= transfer.images.max() <= 1


def test_copies_are_one_step_from_an_image_known_before() -> None:
    transfer = stolen()
    for known in (6, 12, 24):
        copies = transfer.images[known : 2 * known].flatten(1)
        nearest = torch.cdist(copies, transfer.images[:known].flatten(1), p=float("inf")).min(dim=1).values
        assert torch.all(nearest <= 0.1 + 1e-6)
        assert torch.all(nearest > 0)


def test_labels_are_the_victims() -> None:
    transfer = stolen()
    assert torch.equal(transfer.labels, victims.oracle(transfer.images).labels)


def test_rounds_go_on_until_the_budget_is_spent_and_stop_within_one() -> None:
    assert stolen(budget=120, rounds=0).charged == 120
    assert stolen(budget=20).charged == 20


def test_the_reservoir_keeps_rounds_from_growing() -> None:
    # 6 -> 12 -> 24, then 5 a round
    assert stolen(rounds=5, reservoir=5, reservoir_from=2).charged == 24 + 3 * 5


def test_the_seed_and_the_answers_decide_what_is_asked() -> None:
    torch.manual_seed(1)
    first = stolen()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, other, hard = stolen(), stolen(seed=1), stolen(victims.label_oracle)
    assert torch.get_rng_state().equal(before), "the attack moved the global generator"
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.images, hard.images), "soft answers taught the clone nothing that labels do not"
    assert hard.probabilities is None


def test_restarting_and_going_on_ask_other_images() -> None:
    on, fresh = stolen(restart=False), stolen(restart=True)
    # the first round has one clone either way
    assert torch.equal(on.images[:12], fresh.images[:12])
    assert not torch.equal(on.images[24:], fresh.images[24:])


def test_refused_rows_have_no_copies() -> None:
    def half(images: torch.Tensor) -> Answers:
        response = victims.oracle(images)
        assert response.probabilities is not None
        refused = torch.arange(len(images)) % 2 == 1
        return Answers(
            response.labels.masked_fill(refused, REFUSED),
            response.probabilities.masked_fill(refused[:, None], torch.nan),
        )

    # of n new images every other is answered: 6 (3), 3 (2), 5 (3), 8
    transfer = stolen(half)
    assert transfer.charged == 6 + 3 + 5 + 8
    assert transfer.images.isfinite().all()


def test_a_service_that_refuses_everything_ends_the_attack() -> None:
    transfer = stolen(lambda images: Answers(torch.full((len(images),), REFUSED)))
    assert (transfer.charged, len(transfer)) == (6, 0)


def test_an_image_is_not_asked_about_twice() -> None:
    # a clone that cannot be moved: nothing to ask after the seeds
    def still(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, number: int) -> torch.Tensor:
        return images

    generator = torch.Generator().manual_seed(0)
    seeds = victims.images(6, seed=3)
    twice = torch.cat([seeds, seeds[:2]])
    script = jacobian.augmenting(twice, JBDA("digits", 100), still, SERVICE, cloning=CLONING, generator=generator)
    assert list(steal(ScriptedThief(script), Ledger(victims.oracle, 100), rows=100)) == [6]


def test_a_clone_of_what_was_asked_is_better_than_one_of_the_seeds(reached: Reached, seed: int) -> None:
    transfer = stolen(seeds=24, rounds=4, epochs=4, step=0.2, seed=seed)
    unseen = victims.images(300, seed=99)

    def accuracy(known: TransferSet) -> float:
        """Mean of three clones: of so few rows, one's depends on its first weights more than on them."""
        cloning = Cloning("conv3", epochs=12, options={"width": 1}, batch_size=32)
        clones = [
            clone.train(known, cloning, classes=victims.CLASSES, labels="soft", recipe="adamw", seed=3 * seed + number)
            for number in range(3)
        ]
        truth = victims.oracle(unseen).labels
        return sum(metrics.accuracy(clone.predict(made.network, unseen), truth) for made in clones) / 3

    whole = accuracy(transfer)
    reached("accuracy", whole, above=0.8)
    reached("more than of the seeds", whole - accuracy(transfer.first(24)), above=0.1)


def test_the_thief_of_a_recipe_owns_its_seeds() -> None:
    service = Service(channels=1, size=28, classes=10)
    parameters = JBDA("digits", 300, seeds=25, rounds=1, epochs=1)
    thief = jbda.prepare(parameters, service, cloning=Cloning("lenet5", epochs=1), seed=4)
    own = thief.own()
    assert own is not None
    counts = torch.bincount(own.labels, minlength=10)
    assert (counts.min().item(), counts.max().item(), len(own), own.charged) == (2, 3, 25, 0)
    asked = thief.propose(64)
    assert asked is not None
    assert torch.equal(asked, own.images)
    assert thief.clone() is None


def test_balanced_draws_are_random_exhaust_a_class_and_know_their_limit() -> None:
    labels = torch.tensor([0] * 50 + [1] * 50 + [2] * 3)
    first, other = (owned.balanced(labels, 23, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.bincount(labels[first]).tolist() == [10, 10, 3]
    assert len(first.unique()) == 23
    assert not torch.equal(first, other)
    assert sorted(owned.balanced(labels, 103, generator=torch.Generator()).tolist()) == list(range(103))
    with pytest.raises(ValueError, match="seeds: expected at most the 103 images there are, got 104"):
        owned.balanced(labels, 104, generator=torch.Generator())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "budget: expected at least 1 image, got 0"),
        ({"rows": 0}, "rows: expected .* got 0"),
        ({"seeds": 1}, "seeds: expected at least 2 images, got 1"),
        ({"step": 0.0}, "step: expected above 0 and up to 1, got 0.0"),
        ({"step": 51.0}, "step: expected above 0 and up to 1, got 51.0"),
        ({"fit": "rmsprop"}, "fit: expected one of sgd, adamw, adam, got 'rmsprop'"),
        ({"epochs": 0}, "expected epochs >= 1"),
        ({"batch_size": 1}, "batch_size >= 2, got 10, 1"),
        ({"rounds": -1}, "rounds, reservoir, reservoir_from: expected 0 or more, got -1, 0, 3"),
        ({"sign": "up"}, "sign: expected 'away' or 'into', got 'up'"),
        ({"alternate": -1}, "alternate: expected 0 or more rounds, got -1"),
    ],
)
def test_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JBDA(**{"dataset": "digits", "budget": 10, **fields})
