"""What a clone is drawn to, each loss worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from attacks.losses import LOSSES

ROWS = torch.tensor([0, 1])


def test_the_likelihood_of_labels_and_of_probabilities() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    labels = LOSSES["p"].make(torch.tensor([1, 0]))
    assert labels(logits, ROWS).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    shares = LOSSES["p"].make(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    assert shares(logits, ROWS).item() == pytest.approx((0.5 * math.log(4) + 0.5 * math.log(4 / 3) + math.log(2)) / 2)
    # a batch's rows are those of the answers that it is drawn from
    assert labels(logits[:1], torch.tensor([1])).item() == pytest.approx(math.log(4))


def test_the_distance_of_logits() -> None:
    # logs -1, -2, -3 up to a common shift, whose centre is -2
    distance = LOSSES["log-p"].make(torch.tensor([[-1.0, -2.0, -3.0]]).softmax(dim=1))
    assert distance(torch.tensor([[2.0, 0.5, -1.0]]), ROWS[:1]).item() == pytest.approx((1 + 0.5 + 0) / 3)
    # a served 0 counts as the floor, 10^-7
    floor = -7 * math.log(10)
    certain = LOSSES["log-p"].make(torch.tensor([[1.0, 0.0, 0.0]]))
    assert certain(torch.tensor([[-2 / 3 * floor, floor / 3, floor / 3]]), ROWS[:1]).item() == pytest.approx(
        0, abs=1e-5
    )


def test_frequent_labels_tell_less() -> None:
    # three of four answers are label 0: logits that say so and nothing else are as good as none
    labels = torch.tensor([0, 0, 0, 1])
    distance = LOSSES["prior-adjusted"].make(labels)
    uniform = torch.zeros(1, 2)
    assert distance(uniform, torch.tensor([0])).item() == pytest.approx(-math.log(0.75))
    assert distance(uniform, torch.tensor([3])).item() == pytest.approx(-math.log(0.25))


@pytest.mark.parametrize("name", ["masked", "masked-log-p"])
def test_a_masked_class_neither_counts_nor_is_moved(name: str) -> None:
    # class 0 is the label of all, and so a signature
    answers = torch.tensor([[0.9, 0.06, 0.04], [0.8, 0.05, 0.15]])
    distance = LOSSES[name].make(answers)
    logits = torch.tensor([[5.0, 1.0, 2.0], [-5.0, 0.0, 0.5]], requires_grad=True)
    loss = distance(logits, ROWS)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, 0].tolist() == [0.0, 0.0]
    assert logits.grad[:, 1:].abs().min() > 0
    with torch.no_grad():
        assert distance(logits + torch.tensor([7.0, 0.0, 0.0]), ROWS).item() == pytest.approx(loss.item())
        perfect = torch.cat([torch.zeros(2, 1), answers[:, 1:].log()], dim=1)
        if name == "masked-log-p":
            perfect[:, 1:] -= perfect[:, 1:].mean(dim=1, keepdim=True)
            assert distance(perfect, ROWS).item() == pytest.approx(0, abs=1e-6)
        else:
            shares = answers[:, 1:] / answers[:, 1:].sum(dim=1, keepdim=True)
            entropy = -(shares * shares.log()).sum(dim=1).mean()
            assert distance(perfect, ROWS).item() == pytest.approx(entropy.item(), rel=1e-5)


def test_half_precision_masks_too() -> None:
    distance = LOSSES["masked"].make(torch.tensor([[0.9, 0.06, 0.04]] * 2))
    assert distance(torch.zeros(2, 3, dtype=torch.bfloat16), ROWS).isfinite()
