"""The repeating thief: identical copies, and what their mean is worth against fresh noise."""

from __future__ import annotations

import torch

from attacks.clone import Clone, Cloning
from attacks.forms.repeats import RepeatsThief
from attacks.knockoff import KnockoffThief
from attacks.oracle import Answers, Ledger
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.thief import Thief, steal
from tests.attacks import victims


def repeats(thief: Thief, copies: int = 5) -> RepeatsThief:
    service = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)
    return RepeatsThief(thief, service=service, cloning=Cloning("conv3", epochs=1), seed=2, copies=copies)


class Noisy:
    """The victim with uniform noise on its probabilities, redrawn for each answer."""

    def __init__(self, amplitude: float) -> None:
        self.seen: list[torch.Tensor] = []
        self.amplitude = amplitude
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, images: torch.Tensor) -> Answers:
        self.seen.append(images)
        served = victims.probabilities(images)
        served = served + self.amplitude * torch.rand(served.shape, generator=self._generator)
        served = served / served.sum(dim=1, keepdim=True)
        return Answers(served.argmax(dim=1), served)


def error(thief: Thief, oracle: Noisy, budget: int) -> float:
    list(steal(thief, Ledger(oracle, budget), rows=64))
    transfer = thief.transfer_set()
    assert transfer.probabilities is not None
    plain = victims.probabilities(transfer.images) + oracle.amplitude / 2
    return (transfer.probabilities - plain / plain.sum(dim=1, keepdim=True)).std().item()


def test_every_image_is_asked_unchanged_and_charged_each_time() -> None:
    surrogate, oracle = victims.images(6, seed=0), Noisy(0.5)
    thief = repeats(KnockoffThief(surrogate, seed=1), copies=3)
    ledger = Ledger(oracle, 100)
    assert list(steal(thief, ledger, rows=10)) == [9, 18]
    asked = torch.cat(oracle.seen).view(6, 3, 1, victims.SIZE, victims.SIZE)
    assert all(asked[:, copy].equal(asked[:, 0]) for copy in range(3))
    transfer = thief.transfer_set()
    assert torch.equal(transfer.images, asked[:, 0])
    assert transfer.charged == ledger.queries == 18
    assert transfer.places.tolist() == [2, 5, 8, 11, 14, 17]


def test_the_mean_takes_fresh_noise_away() -> None:
    surrogate = victims.images(200, seed=0)
    once = error(KnockoffThief(surrogate, seed=1), Noisy(0.5), 200)
    often = error(repeats(KnockoffThief(surrogate, seed=1), copies=16), Noisy(0.5), 16 * 200)
    assert 0.2 < often / once < 0.32, "expected about 1 / sqrt(16) of the noise"


def test_a_script_hears_one_answer_an_image_and_in_order() -> None:
    heard: list[Answers] = []

    def script() -> Script:
        heard.append((yield victims.images(7, seed=3)))
        heard.append((yield victims.images(2, seed=4)))

    thief = repeats(ScriptedThief(script()))
    # requests of 12 hold two images: the script's seven come in parts
    assert list(steal(thief, Ledger(victims.oracle, 100), rows=12)) == [10, 20, 30, 35, 45]
    for answers, (count, seed) in zip(heard, [(7, 3), (2, 4)], strict=True):
        assert answers.probabilities is not None
        assert torch.allclose(answers.probabilities, victims.probabilities(victims.images(count, seed=seed)))


def test_the_wrapped_thiefs_own_things_are_passed_on() -> None:
    own = victims.transfer_set(30)
    grown = Clone(torch.nn.Identity(), held_out=0.5)

    def script() -> Script:
        yield victims.images(1, seed=0)

    thief = repeats(ScriptedThief(script(), clone=lambda: grown, own=own))
    assert thief.own() is own
    assert thief.clone() is grown
