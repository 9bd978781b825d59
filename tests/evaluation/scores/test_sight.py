"""What is asked of graphs and networks, and what is remembered of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluation.scores.score import Once
from evaluation.scores.sight import Doubles, Memory, Seen, log_softmax, log_sum_exp
from tests.evaluation.scores import seeing


def test_nothing_is_asked_before_it_is_wanted() -> None:
    seen = seeing.sight()(seeing.images(5))
    assert (seen.asked_gate, seen.asked_network) == (False, False)
    assert seen.gated[1].shape == (5, seeing.CLASSES)
    assert (seen.asked_gate, seen.asked_network) == (True, False)
    assert seen.features.shape == (5, seeing.FEATURES)
    assert seen.asked_network


def test_an_image_is_asked_about_once() -> None:
    asked = []

    def mean(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        asked.append(len(images))
        return {"mean": images.mean((1, 2, 3))[:, None]}

    memory, images = Memory(mean), seeing.images(6).numpy()
    first = memory(images[:4])["mean"]
    again = memory(images[[3, 5, 0]])["mean"]
    assert asked == [4, 1]
    assert (first == mean(images[:4])["mean"]).all()
    assert (again == mean(images[[3, 5, 0]])["mean"]).all()


def test_what_is_remembered_is_what_was_said() -> None:
    fresh = seeing.sight()
    sight, images = fresh.remembering(), seeing.images(10)
    one, other = fresh(images), sight(images)
    for name in ("served", "features", "logits"):
        assert (getattr(one, name) == getattr(other, name)).all()
    broken = replace(sight, network=lambda _: pytest.fail("asked again"))
    assert (broken(images).gated[0] == one.gated[0]).all()
    assert (sight(images.flip(0)).features == one.features[::-1]).all()


def test_sums_of_exponentials_do_not_overflow() -> None:
    logits = torch.tensor([[1000.0, 999.0], [-1000.0, -1001.0]]).double()
    assert log_sum_exp(logits.numpy()) == pytest.approx(logits.logsumexp(1).tolist())
    assert log_softmax(logits.numpy()) == pytest.approx(logits.log_softmax(1).numpy())


def test_a_rule_scores_the_same_images_once() -> None:
    scored = []

    def darkness(seen: Seen) -> Doubles:
        scored.append(len(seen.images))
        found: Doubles = -seen.images.double().mean((1, 2, 3)).numpy()
        return found

    rule, seen = Once(darkness), seeing.sight()(seeing.images(5))
    assert (rule(seen) == rule(seen)).all()
    assert scored == [5]
    assert seen.served.shape == (5, seeing.CLASSES)
    again = seen.unscored()
    assert again.served is seen.served
    assert (rule(again) == rule(seen)).all()
    assert scored == [5, 5]
    assert (Once(darkness)(seen) == rule(seen)).all()
    assert scored == [5, 5, 5], "another rule's scores are its own"
