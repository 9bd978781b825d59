"""EDM's equations, against vectors worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tests.reached import Reached
from training.edm import EDM, coherence, diversity_loss, pair_cosines


def one_hots(*classes: int) -> torch.Tensor:
    """One row, a one-hot answer a member: (1,N,4)."""
    return torch.eye(4)[list(classes)][None]


def test_cosines_of_every_pair_in_order() -> None:
    # members 0 and 2 agree; (0.6, 0.8) against an axis has cosine 0.6
    answers = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]]])
    assert torch.allclose(pair_cosines(answers), torch.tensor([[0.6, 1.0, 0.6]]))


def test_coherence_is_the_largest_pair_cosine() -> None:
    answers = torch.cat([one_hots(0, 1, 2), one_hots(0, 1, 1)])
    assert coherence(answers).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (one_hots(2, 2), 1.0),  # log e^1 - log 1
        (one_hots(0, 1), 0.0),
        (one_hots(0, 1, 2), 0.0),  # log 3 e^0 - log 3
        (one_hots(0, 1, 1), math.log((math.e + 2) / 3)),
        (one_hots(3, 3, 3), 1.0),
    ],
)
def test_diversity_loss_above_its_bound(answers: torch.Tensor, expected: float) -> None:
    assert diversity_loss(answers).item() == pytest.approx(expected, abs=1e-6)


def test_a_high_temperature_comes_near_the_largest_cosine() -> None:
    answers = one_hots(0, 1, 1)
    soft, sharp = diversity_loss(answers), diversity_loss(answers, temperature=10)
    assert sharp.item() == pytest.approx(math.log((math.e**10 + 2) / 3) / 10, abs=1e-6)
    assert soft < sharp < coherence(answers)


def test_the_gradient_drives_members_apart(reached: Reached, seed: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(8, 4, 10, requires_grad=True)
    optimiser = torch.optim.SGD([logits], lr=5.0)
    before = coherence(logits.softmax(-1)).mean().item()
    for _ in range(100):
        optimiser.zero_grad()
        diversity_loss(logits.softmax(-1)).backward()
        optimiser.step()
    reached("share of the coherence that is left", coherence(logits.softmax(-1)).mean().item() / before, below=0.5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("members", 1, "members: expected at least 2, got 1"),
        ("lambda_diversity", -1.0, "lambda_diversity: expected >= 0, several in rising order, got -1"),
        ("lambda_diversity", (1.0, 0.3), "several in rising order, got"),
        ("lambda_diversity", (), "several in rising order, got"),
        ("allowed_drop", 0.0, "0 < allowed_drop < 1, got 12000, 0.0"),
        ("temperature", 0.0, "temperature: expected > 0, got 0"),
    ],
)
def test_what_a_recipe_cannot_ask_for(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EDM(auxiliary="china", **{field: value})  # type: ignore[arg-type]
