"""The own-noise thief: bounded, learnt from the answers, repeatable."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attacks.clone import Clone, Cloning
from attacks.forms.own_noise import NoiseGenerator, OwnNoiseThief, targets
from attacks.knockoff import KnockoffThief
from attacks.oracle import REFUSED, Answers, Ledger
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.thief import Thief, steal
from tests.attacks import victims
from tests.reached import Reached

SERVICE = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)
CLONING = Cloning("conv3", epochs=1, options={"width": 1})


def own_noise(thief: Thief, *, seed: int = 2, **changes: Any) -> OwnNoiseThief:
    return OwnNoiseThief(thief, service=SERVICE, cloning=CLONING, seed=seed, **changes)


def asked(thief: Thief, oracle: Any = victims.oracle, *, budget: int = 60) -> torch.Tensor:
    seen = []

    def listening(images: torch.Tensor) -> Answers:
        seen.append(images)
        response: Answers = oracle(images)
        return response

    assert list(steal(thief, Ledger(listening, budget), rows=20)) == list(range(20, budget + 1, 20))
    return torch.cat(seen)


def test_asked_images_are_perturbed_within_the_bound_and_kept_as_asked() -> None:
    surrogate = victims.images(60, seed=0)
    thief = own_noise(KnockoffThief(surrogate, seed=1), bound=0.1)
    seen = asked(thief)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    change = (seen - surrogate[order]).abs()
    assert 0 <= seen.min() <= seen.max() <= 1
    assert 1e-4 < change.max() <= 0.1 + 1e-6
    transfer = thief.transfer_set()
    assert torch.equal(transfer.images, seen)
    assert transfer.charged == 60
    assert transfer.probabilities is not None
    assert torch.allclose(transfer.probabilities, victims.probabilities(seen))


def test_the_perturbation_depends_on_the_image_and_on_chance() -> None:
    torch.manual_seed(0)
    generator = NoiseGenerator(channels=1, bound=0.2)
    images, noise = victims.images(2, seed=0), torch.randn(2, 1, victims.SIZE, victims.SIZE)
    same_noise = generator(images, noise[:1].expand(2, -1, -1, -1))
    same_image = generator(images[:1].expand(2, -1, -1, -1), noise)
    assert same_noise.shape == images.shape
    assert (same_noise[0] - same_noise[1]).abs().max() > 1e-4
    assert (same_image[0] - same_image[1]).abs().max() > 1e-4


def test_clone_and_generator_learn_and_equal_seeds_repeat() -> None:
    surrogate = victims.images(60, seed=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = asked(own_noise(KnockoffThief(surrogate, seed=1)))
    assert torch.get_rng_state().equal(before), "the thief moved the global generator"
    torch.manual_seed(6)
    assert first.equal(asked(own_noise(KnockoffThief(surrogate, seed=1))))
    assert not first.equal(asked(own_noise(KnockoffThief(surrogate, seed=1), seed=3)))
    # what is asked after the first request depends on what was answered to it
    still = asked(own_noise(KnockoffThief(surrogate, seed=1), steps=0))
    deaf = asked(own_noise(KnockoffThief(surrogate, seed=1)), victims.label_oracle)
    assert first[:20].equal(still[:20])
    assert first[:20].equal(deaf[:20])
    assert not first[20:].equal(still[20:])
    assert not first[20:].equal(deaf[20:])


def test_the_joint_loss_falls(reached: Reached, seed: int) -> None:
    losses = []
    for steps in (0, 40):
        thief = own_noise(KnockoffThief(victims.images(200, seed=seed), seed=seed + 1), steps=steps, seed=seed + 2)
        seen = asked(thief, budget=200)
        with torch.no_grad():
            response = victims.probabilities(seen)
            logits = thief._network.cpu()(seen)
            losses.append(torch.nn.functional.cross_entropy(logits, response).item())
    reached("share of the loss that is left", losses[1] / losses[0], below=0.7)


def test_refused_rows_teach_nothing_and_are_charged() -> None:
    def oracle(images: torch.Tensor) -> Answers:
        response = victims.oracle(images)
        assert response.probabilities is not None
        refused = torch.arange(len(images)) % 4 == 0
        return Answers(
            torch.where(refused, REFUSED, response.labels),
            torch.where(refused[:, None], torch.nan, response.probabilities),
        )

    thief = own_noise(KnockoffThief(victims.images(60, seed=0), seed=1))
    assert asked(thief, oracle).isfinite().all()
    assert (len(thief.transfer_set()), thief.transfer_set().charged) == (45, 60)
    silent = own_noise(KnockoffThief(victims.images(60, seed=0), seed=1))
    assert asked(silent, lambda images: Answers(torch.full((len(images),), REFUSED))).isfinite().all()


def test_targets_are_what_was_answered() -> None:
    response = Answers(torch.tensor([1, REFUSED, 0]), torch.tensor([[0.1, 0.3], [torch.nan, torch.nan], [0.5, 0.5]]))
    assert torch.allclose(targets(response), torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    assert targets(Answers(response.labels)).tolist() == [1, 0]


def test_it_works_around_a_thief_that_learns() -> None:
    heard: list[Answers] = []

    def script() -> Script:
        heard.append((yield victims.images(25, seed=3)))
        heard.append((yield victims.images(10, seed=4)))

    grown, own = Clone(torch.nn.Identity(), held_out=0.5), victims.transfer_set(30)
    thief = own_noise(ScriptedThief(script(), clone=lambda: grown, own=own))
    assert list(steal(thief, Ledger(victims.oracle, 100), rows=20)) == [20, 25, 35]
    assert [len(answers.labels) for answers in heard] == [25, 10]
    probabilities = [answers.probabilities for answers in heard if answers.probabilities is not None]
    assert torch.equal(torch.cat(probabilities), victims.probabilities(thief.transfer_set().images))
    assert thief.clone() is grown
    assert thief.own() is own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bound": 0.0}, "bound: expected a share"),
        ({"bound": 1.5}, "bound: expected a share"),
        ({"steps": -1}, "steps: expected at least 0"),
    ],
)
def test_ranges(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own_noise(KnockoffThief(victims.images(6, seed=0), seed=1), **changes)
