"""An attack written as a script: handed out in parts, answered whole, ended by its end or by the budget."""

from __future__ import annotations

import pytest
import torch

from attacks.oracle import REFUSED, Answers, Ledger, joined
from attacks.script import Script, ScriptedThief
from attacks.thief import steal
from attacks.transfer import Collector
from tests.attacks import victims


def asking(*counts: int, heard: list[Answers]) -> Script:
    for number, count in enumerate(counts):
        heard.append((yield victims.images(count, seed=number)))


def test_the_script_hears_all_its_answers_at_once() -> None:
    heard: list[Answers] = []
    thief = ScriptedThief(asking(10, 3, 8, heard=heard))
    assert list(steal(thief, Ledger(victims.oracle, 100), rows=4)) == [4, 8, 10, 13, 17, 21]
    assert [len(answers.labels) for answers in heard] == [10, 3, 8]
    asked = torch.cat([victims.images(count, seed=number) for number, count in enumerate((10, 3, 8))])
    transfer = thief.transfer_set()
    assert torch.equal(transfer.images, asked)
    responses = torch.cat([answers.probabilities for answers in heard if answers.probabilities is not None])
    assert torch.equal(responses, victims.probabilities(asked))
    assert transfer.charged == 21
    assert thief.clone() is thief.own() is None


def test_a_script_whose_budget_is_spent_hears_nothing_more() -> None:
    heard: list[Answers] = []
    thief = ScriptedThief(asking(10, 10, heard=heard))
    assert list(steal(thief, Ledger(victims.oracle, 15), rows=8)) == [8, 10, 15]
    assert len(heard) == 1
    assert len(thief.transfer_set()) == 15


def test_the_latest_answers_are_kept_and_all_are_charged() -> None:
    thief = ScriptedThief(asking(8, 8, 8, heard=[]), keep=10)
    list(steal(thief, Ledger(victims.oracle, 100), rows=4))
    transfer = thief.transfer_set()
    assert transfer.charged == 24
    assert transfer.places.tolist() == list(range(12, 24))


def test_a_collector_without_a_limit_forgets_nothing() -> None:
    collector = Collector()
    for _ in range(3):
        images = victims.images(5, seed=0)
        collector.add(images, victims.oracle(images))
    assert collector.transfer_set().places.tolist() == list(range(15))


def test_answers_refused_whole_are_nan_next_to_others() -> None:
    refused = Answers(torch.full((2,), REFUSED))
    responses = joined([refused, victims.oracle(victims.images(3, seed=0))])
    assert responses.labels[:2].tolist() == [REFUSED, REFUSED]
    assert responses.probabilities is not None
    assert responses.probabilities[:2].isnan().all()
    assert joined([refused, refused]).probabilities is None


def test_observing_before_proposing_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="observe follows propose"):
        ScriptedThief(asking(1, heard=[])).observe(victims.images(1, seed=0), victims.oracle(victims.images(1, seed=0)))
