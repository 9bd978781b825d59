"""Unmixing: what every function leaves of answers worked out by hand, and that members' constants go."""

from __future__ import annotations

import math

import pytest
import torch

from attacks import unmixing

# labels 0, 0, 0, 2 of three classes: 0 is more frequent than a third, 2 is not
ANSWERS = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.1, 0.2, 0.7]])


def test_signatures_are_the_labels_that_are_more_frequent_than_their_share() -> None:
    assert unmixing.signatures(ANSWERS).tolist() == [True, False, False]


def test_centred_answers_are_what_differs_from_their_label_s_mean() -> None:
    left = unmixing.centred(ANSWERS)
    assert torch.allclose(left[:3].mean(dim=0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(left[3], torch.zeros(3), atol=1e-6)
    # the same constant in every logit of a member goes
    constant = torch.tensor([2.0, -1.0, 0.5])
    moved = (ANSWERS[:3].log() + constant * torch.ones(3, 1)).softmax(dim=1)
    assert moved.argmax(dim=1).tolist() == [0, 0, 0]
    assert torch.allclose(unmixing.centred(moved), unmixing.centred(ANSWERS[:3]), atol=1e-5)


def test_a_mixture_takes_each_member_s_constant_off() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 4, generator=generator)
    logits -= logits.mean(dim=1, keepdim=True)
    # two members that both answer class 0 or 3 off the task, so that labels do not tell them apart
    constants = torch.tensor([[9.0, -6.0, -6.0, 3.0], [3.0, 6.0, -9.0, 0.0]])
    members = torch.randint(2, (400,), generator=generator)
    answers = (logits + constants[members]).softmax(dim=1)
    left = unmixing.uncovered(answers)
    expected = torch.cat([logits[members == m] - logits[members == m].mean(dim=0) for m in (0, 1)])
    found = torch.cat([left[members == m] for m in (0, 1)])
    assert (found - expected).abs().mean() < 0.2
    assert left.equal(unmixing.uncovered(answers)), "equal answers give equal logits"


def test_a_masked_answer_has_no_signature_and_sums_to_one() -> None:
    left = unmixing.masked(ANSWERS)
    assert left[:3, 0].isnan().all()
    assert torch.allclose(left[:3, 1:], torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.2, 0.8]]))
    assert torch.allclose(left[3], ANSWERS[3])
    logs = unmixing.masked_log(ANSWERS)
    assert logs[1].tolist() == pytest.approx([math.nan, math.log(3) / 2, -math.log(3) / 2], nan_ok=True)
    assert unmixing.second_labels(ANSWERS).tolist() == [1, 1, 2, 2]


def test_an_answer_that_was_rounded_to_certainty_teaches_nothing_and_breaks_nothing() -> None:
    certain = torch.tensor([[1.0, 0.0, 0.0]] * 3)
    assert unmixing.masked(certain)[:, 1:].tolist() == [[0.5, 0.5]] * 3
    assert unmixing.masked_log(certain)[:, 1:].tolist() == [[0.0, 0.0]] * 3
    assert torch.allclose(unmixing.centred(certain), torch.zeros(3, 3), atol=1e-5)
