"""The thief who learns a gate: fewer refusals, nothing charged but what was sent, and equal seeds repeat."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attacks.clone import Cloning
from attacks.forms.filtered import FilteredThief
from attacks.forms.matched import blurred
from attacks.knockoff import KnockoffThief
from attacks.oracle import REFUSED, Answers, Ledger, Oracle
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.thief import Thief, steal
from tests.attacks import victims
from tests.reached import Reached

SERVICE = Service(channels=1, size=victims.SIZE, classes=victims.CLASSES)


def filtered(thief: Thief, *, seed: int = 0, **changes: Any) -> FilteredThief:
    return FilteredThief(thief, service=SERVICE, cloning=Cloning("lenet5", epochs=1), seed=seed, **changes)


def mixture(count: int, *, seed: int = 0) -> torch.Tensor:
    """A quarter sharp, the rest blurred."""
    images = victims.crisp(count, seed=seed)
    soft = torch.arange(count) % 4 > 0
    return torch.where(soft[:, None, None, None], blurred(images), images)


def attacked(thief: Thief, oracle: Oracle, budget: int, *, rows: int = 40) -> Ledger:
    ledger = Ledger(oracle, budget)
    for _ in steal(thief, ledger, rows=rows):
        pass
    return ledger


def test_it_is_refused_less_than_the_thief_it_wraps(reached: Reached, seed: int) -> None:
    surrogate = mixture(1200, seed=seed)
    assert victims.gated(surrogate).refused.float().mean() == pytest.approx(0.75, abs=0.01)
    thief = filtered(KnockoffThief(surrogate, seed=seed), seed=seed, probes=200, steps=60)
    before = attacked(thief, victims.gated, 200)
    assert before.refused > 120
    after = attacked(thief, victims.gated, 200)
    assert after.queries == 200
    reached("share refused of what was filtered", after.refused / 200, below=0.5)


def test_only_what_is_sent_is_charged_and_kept() -> None:
    sent = []

    def listening(images: torch.Tensor) -> Answers:
        sent.append(images.clone())
        return victims.gated(images)

    thief = filtered(KnockoffThief(mixture(600), seed=0), probes=80, candidates=3, steps=5)
    ledger = attacked(thief, listening, 240)
    transfer, everything = thief.transfer_set(), torch.cat(sent)
    assert transfer.charged == ledger.queries == 240
    assert torch.equal(transfer.images, everything[transfer.places])
    assert len({image.numpy().tobytes() for image in everything}) > 230, "an image is sent once"


def test_the_wrapped_thief_hears_of_every_candidate() -> None:
    heard: list[Answers] = []

    def script() -> Script:
        while True:
            heard.append((yield mixture(120)))

    thief = filtered(ScriptedThief(script()), probes=120, candidates=3, steps=1)
    ledger = attacked(thief, victims.gated, 120 + 40)
    assert ledger.queries == 160
    first, second = heard
    assert int((~first.refused).sum()) == 30
    # a third was sent, the others count as refused
    sent = victims.gated(thief.transfer_set().first(1000).images)
    assert int((~second.refused).sum()) == len(sent.labels) - 30
    assert second.probabilities is not None
    assert second.probabilities.isnan().all(dim=1).tolist() == second.refused.tolist()


def test_equal_seeds_give_equal_proposals() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    images = []
    for seed in (0, 0, 1):
        thief = filtered(KnockoffThief(mixture(700), seed=0), seed=seed, probes=80, steps=5)
        attacked(thief, victims.gated, 200)
        images.append(thief.transfer_set().images)
    assert torch.get_rng_state().equal(before), "the thief moved the global generator"
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize("oracle", [victims.oracle, lambda images: Answers(torch.full((len(images),), REFUSED))])
def test_where_all_answers_are_alike_nothing_is_filtered(oracle: Oracle) -> None:
    thief = filtered(KnockoffThief(mixture(300), seed=0), probes=80)
    assert attacked(thief, oracle, 400).queries == 300


def test_ranges() -> None:
    with pytest.raises(ValueError, match="candidates: expected at least 1, got 0"):
        filtered(KnockoffThief(mixture(6), seed=1), candidates=0)
