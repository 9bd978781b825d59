"""The papers' way to MAD and GRAD comes to the answers of the rules that are served, and to those by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bench import naive_poisoning
from defenses.responses.poisoning import GradientRedirection, Mad
from defenses.responses.rule import Context
from export.redirection import Redirection
from zoo import models

ROWS, CLASSES, SIDE = 24, 10, 28


def network(architecture: str = "lenet5") -> nn.Module:
    torch.manual_seed(0)
    built = models.build(architecture, classes=CLASSES, channels=1, size=SIDE, mean=[0.5], std=[0.5])
    return built.eval()


def answers(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, and answers that are the surer of themselves the larger `scale` is."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(ROWS, 1, SIDE, SIDE, generator=generator)
    return images, torch.softmax(scale * torch.randn(ROWS, CLASSES, generator=generator), 1)


@pytest.mark.parametrize("scale", [1.0, 8.0])
@pytest.mark.parametrize("epsilon", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("keep_label", [True, False])
@pytest.mark.parametrize(("name", "rule"), [("mad", Mad), ("grad", GradientRedirection)])
def test_the_rule_s_answers(
    name: str, rule: type[Mad] | type[GradientRedirection], keep_label: bool, epsilon: float, scale: float
) -> None:
    surrogate = network()
    images, y = answers(scale)
    with torch.no_grad():
        redirection = {output: values.numpy() for output, values in Redirection(surrogate)(images).items()}
    served = rule(epsilon, keep_label, "surrogate")(
        y.numpy(), Context({"surrogate": redirection}, np.random.default_rng(0))
    )
    shown = naive_poisoning.NAIVE[name](surrogate, images, y, epsilon=epsilon, keep_label=keep_label)
    assert served is not None
    assert np.allclose(shown.numpy(), served, atol=1e-6)
    assert not np.allclose(shown.numpy(), y.numpy(), atol=0.05)


def test_grad_differentiates_through_batch_normalisation_and_shortcuts() -> None:
    surrogate = network("resnet18-8x")
    images, y = (values[:1] for values in answers(2.0))
    with torch.no_grad():
        redirection = Redirection(surrogate)(images)["redirection"].numpy()
    served = GradientRedirection(1.0)(
        y.numpy(), Context({"surrogate": {"redirection": redirection}}, np.random.default_rng(0))
    )
    shown = naive_poisoning.grad(surrogate, images, y, epsilon=1.0, keep_label=False)
    assert served is not None
    assert np.allclose(shown.numpy(), served, atol=1e-6)


class Constant(nn.Module):
    """Says (0.5, 0.25, 0.25) = s of every image, so that the gradient of log p_k is (e_k - s) times one number."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 3)
        nn.init.zeros_(self.last.weight)
        self.last.bias = nn.Parameter(torch.tensor([2.0, 1.0, 1.0]).log())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(images.flatten(1))


def test_mad_by_hand() -> None:
    # y - s = (0.1, 0.05, -0.15). Candidates with the label and their cosines: (1,0,0) 0.65, (1,1,0)/2 0.76,
    # (1,1,1)/3 -0.65 and (1,0,1)/2 -0.76, which lies 0.1 + 0.3 + 0.4 from y; epsilon is half of that.
    y = torch.tensor([[0.6, 0.3, 0.1]])
    shown = naive_poisoning.mad(Constant(), torch.ones(1, 1, 1, 1), y, epsilon=0.4, keep_label=True)
    assert shown.tolist() == [pytest.approx([0.55, 0.15, 0.3])]


def test_more_classes_than_candidates_can_be_tried_for() -> None:
    y = torch.full((1, 11), 1 / 11)
    with pytest.raises(naive_poisoning.TooManyClassesError, match="at most 10 classes to keep the label, got 11"):
        naive_poisoning.mad(nn.Flatten(), torch.ones(1, 11), y, epsilon=1.0, keep_label=True)
