"""Knockoff's adaptive policy: rewards and update by hand, draws without replacement, and that it prefers what pays."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from attacks import knockoff_adaptive
from attacks.clone import Cloning
from attacks.knockoff_adaptive import KnockoffAdaptive, Policy, Pupil, Rewards
from attacks.oracle import REFUSED, Answers, Ledger, Oracle
from attacks.script import ScriptedThief
from attacks.service import Service
from attacks.thief import steal
from attacks.transfer import TransferSet
from tests.attacks import victims
from tests.reached import Reached

CLONING = Cloning("conv3", epochs=1, options={"width": 1}, batch_size=32)
SERVICE = Service(1, victims.SIZE, victims.CLASSES)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stolen(
    surrogate: torch.Tensor,
    labels: torch.Tensor,
    oracle: Oracle = victims.oracle,
    *,
    budget: int = 10_000,
    seed: int = 0,
    rows: int = 16,
) -> TransferSet:
    parameters = KnockoffAdaptive("digits", budget, per_action=8, window=5)
    thief = ScriptedThief(
        knockoff_adaptive.adapting(surrogate, labels, parameters, SERVICE, cloning=CLONING, generator=seeded(seed))
    )
    for _ in steal(thief, Ledger(oracle, budget), rows=rows):
        pass
    return thief.transfer_set()


def key(image: torch.Tensor) -> bytes:
    return image.numpy().tobytes()


def test_the_rewards_by_hand() -> None:
    answers = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    assert knockoff_adaptive.certainty(answers) == pytest.approx((0.5 + 0.3) / 2)
    usual = torch.tensor([0.5, 0.25, 0.25])
    # above the usual: 0.2 in the first row; 0.05 and 0.35 in the second
    assert knockoff_adaptive.diversity(answers, usual) == pytest.approx((0.2 + 0.4) / 2)


def test_rewards_are_rescaled_by_the_extremes_of_the_window() -> None:
    rewards = Rewards(window=2)
    sure, unsure = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.4, 0.3, 0.3]])
    # nothing to compare with: the middle of the scale, three times over
    assert rewards(sure, 1.0, soft=True) == pytest.approx(0.5)
    # least certain: 0; more diverse than the first draw, which was its own mean: 1; the larger loss: 1
    assert rewards(unsure, 3.0, soft=True) == pytest.approx(2 / 3)
    # the mean answer of the two before is (0.7, 0.15, 0.15): a diversity of 0.3, after 0.6; the most certain again, and
    # the larger loss of the two that the window holds
    third = rewards(sure, 4.0, soft=True)
    assert third == pytest.approx((1 + 0 + 1) / 3)


def test_labels_alone_are_rewarded_by_diversity_and_loss() -> None:
    rewards = Rewards(window=5)
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    rewards(first, 1.0, soft=False)
    # as unlike the first as can be, and the smaller loss; certainty would have been 1 again, and moved the mean
    assert rewards(second, 0.5, soft=False) == pytest.approx((1 + 0) / 2)


def test_the_update_by_hand() -> None:
    policy = Policy(3, window=2, generator=seeded(0))
    policy.reward(0, 0.5)
    assert policy.preferences.tolist() == [0, 0, 0]
    policy.reward(1, 0.8)
    # gain 0.3 over one draw of class 1, at pi = 1/3 each
    torch.testing.assert_close(policy.preferences, torch.tensor([-0.1, 0.2, -0.1], dtype=torch.float64))
    weights = [math.exp(value) for value in (-0.1, 0.2, -0.1)]
    pi = [weight / sum(weights) for weight in weights]
    assert policy.probabilities().tolist() == pytest.approx(pi)
    # gain 0.15 - (0.5 + 0.8) / 2 = -0.5, halved by the second draw of class 1
    policy.reward(1, 0.15)
    expected = [-0.1 + 0.25 * pi[0], 0.2 - 0.25 * (1 - pi[1]), -0.1 + 0.25 * pi[2]]
    assert policy.preferences.tolist() == pytest.approx(expected)


def test_a_closed_class_is_not_drawn_and_keeps_its_preference() -> None:
    policy = Policy(3, window=5, generator=seeded(0))
    policy.open[1] = False
    assert policy.probabilities().tolist() == [0.5, 0, 0.5]
    assert {policy.draw() for _ in range(50)} == {0, 2}
    policy.reward(0, 0.1)
    policy.reward(0, 0.9)
    assert policy.preferences[1] == 0
    # 0.8 / 2 draws, times 1 - pi
    assert policy.preferences.tolist() == pytest.approx([0.2, 0, -0.2])


def test_no_image_is_asked_twice_and_the_set_is_exhausted() -> None:
    surrogate = victims.images(60, seed=0)
    # classes of 5, 20 and 35 images, none a multiple of a draw, and a label that nobody has
    labels = torch.tensor([0] * 5 + [2] * 20 + [3] * 35)
    transfer = stolen(surrogate, labels)
    assert transfer.charged == len(transfer) == 60
    assert {key(image) for image in transfer.images} == {key(image) for image in surrogate}


def test_the_images_of_a_draw_are_of_one_class() -> None:
    surrogate = victims.images(160, seed=0)
    labels = torch.arange(160) % 4
    transfer = stolen(surrogate, labels, budget=64)
    kind = {key(image): int(label) for image, label in zip(surrogate, labels, strict=True)}
    draws = torch.tensor([kind[key(image)] for image in transfer.images]).view(-1, 8)
    assert torch.equal(draws, draws[:, :1].expand(-1, 8))
    assert transfer.charged == 64


def test_the_policy_prefers_the_class_that_pays(reached: Reached, seed: int) -> None:
    # one class is black: the victim answers all of it alike; the other is what it separates, and is sure of
    kinds = torch.zeros(800, 1, victims.SIZE, victims.SIZE), victims.images(800, seed=seed + 1)
    labels = torch.arange(2).repeat_interleave(800)

    def share(*surrogate: torch.Tensor) -> float:
        asked = stolen(torch.cat(surrogate), labels, budget=640, seed=seed).images
        return (asked.amax(dim=(1, 2, 3)) > 0).float().mean().item()

    # whatever the dice prefer of two classes, it is not what pays both times
    reached("mean share of what pays", (share(*kinds) + share(*kinds[::-1])) / 2, above=0.55)


def test_the_seed_and_the_answers_decide_what_is_asked() -> None:
    surrogate, labels = victims.images(400, seed=0), torch.arange(400) % 4
    torch.manual_seed(1)
    first = stolen(surrogate, labels, budget=160)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = stolen(surrogate, labels, budget=160, rows=5)
    assert torch.get_rng_state().equal(before), "the attack moved the global generator"
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, stolen(surrogate, labels, budget=160, seed=1).images)
    hard = stolen(surrogate, labels, victims.label_oracle, budget=160)
    assert hard.probabilities is None
    assert not torch.equal(first.images, hard.images)


def test_refusals_are_charged_and_teach_nothing() -> None:
    def unwilling(images: torch.Tensor) -> Answers:
        response = victims.oracle(images)
        assert response.probabilities is not None
        dark = images.mean(dim=(1, 2, 3)) < 0.5
        return Answers(
            response.labels.masked_fill(dark, REFUSED), response.probabilities.masked_fill(dark[:, None], torch.nan)
        )

    surrogate = victims.images(80, seed=0)
    transfer = stolen(surrogate, torch.arange(80) % 4, unwilling)
    assert transfer.charged == 80
    assert len(transfer) == int((surrogate.mean(dim=(1, 2, 3)) >= 0.5).sum())
    never = stolen(surrogate, torch.arange(80) % 4, lambda images: Answers(torch.full((len(images),), REFUSED)))
    assert (never.charged, len(never)) == (80, 0)


def test_the_pupil_learns_from_its_steps(reached: Reached, seed: int) -> None:
    surrogate = victims.images(600, seed=seed)
    pupil = Pupil(surrogate, SERVICE, CLONING, generator=seeded(seed))
    answers = victims.probabilities(surrogate)
    unseen = torch.arange(500, 600)
    before = pupil.loss(unseen, answers[unseen])
    assert before == pupil.loss(unseen, answers[unseen]), "looking taught it something"
    for rows in torch.arange(500).split(8):
        pupil.learn(rows, answers[rows])
    reached("share of the loss that is left", pupil.loss(unseen, answers[unseen]) / before, below=0.5)


def test_a_recipe_makes_a_thief_of_a_labelled_surrogate() -> None:
    service = Service(channels=3, size=32, classes=7)
    cloning = Cloning("conv3", epochs=1, options={"width": 1})
    thief = knockoff_adaptive.prepare(KnockoffAdaptive("digits", 50), service, cloning=cloning, seed=0)
    images = thief.propose(64)
    assert images is not None
    assert images.shape == (32, 3, 32, 32)
    assert thief.own() is thief.clone() is None
    with pytest.raises(ValueError, match="surrogate: expected labelled images, got 'china' without labels"):
        knockoff_adaptive.prepare(KnockoffAdaptive("china", 50), service, cloning=cloning, seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "budget: expected at least 1 image, got 0"),
        ({"rows": 0}, "rows: expected .* got 0"),
        ({"per_action": 7}, "per_action: expected 8 to 64 images, got 7"),
        ({"per_action": 65}, "per_action: expected 8 to 64 images, got 65"),
        ({"window": 1}, "window: expected at least 2 draws, got 1"),
    ],
)
def test_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnockoffAdaptive(**{"surrogate": "digits", "budget": 10, **fields})
