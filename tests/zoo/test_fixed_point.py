"""Networks in whole numbers: as good as the float ones, exact in any order, and clear on what they cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.fixed_point import (
    BUDGET,
    LARGEST,
    LARGEST_WEIGHT,
    LOGIT_UNIT,
    QUARTER,
    FixedPoint,
    FixedPointError,
    fixed_point,
)
from zoo.hash_net import HashNet
from zoo.models import build

MEAN, STD = [0.31, 0.5, 0.62], [0.2, 0.3, 0.25]
PLAIN = (("conv3", {"width": 1}), ("lenet5", {}))

every_plain_network = pytest.mark.parametrize(("architecture", "options"), PLAIN)


def network(architecture: str, channels: int, **options: int) -> nn.Module:
    torch.manual_seed(0)
    made = build(
        architecture, classes=7, channels=channels, size=28, mean=MEAN[:channels], std=STD[:channels], **options
    )
    return made.eval()


def images(count: int, channels: int) -> torch.Tensor:
    """Byte / 255, as they come from files."""
    drawn = torch.rand(count, channels, 28, 28, generator=torch.Generator().manual_seed(1))
    return (drawn * 255).round() / 255


@every_plain_network
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_are_near_the_float_network_s(architecture: str, options: dict[str, int], channels: int) -> None:
    pixels = images(64, channels)
    with torch.inference_mode():
        expected = network(architecture, channels, **options)(pixels)
        features, logits = fixed_point(network(architecture, channels, **options), pixels)(pixels)
    assert (LOGIT_UNIT * logits - expected).abs().max() < 0.05 + LOGIT_UNIT / 2
    assert features.shape == (64, 256 if architecture == "conv3" else 84)
    for values in (features, logits):
        assert values.dtype == torch.float32
        assert torch.equal(values, values.round())
    assert 0 <= features.min() < features.max() <= LARGEST
    assert features.max() > LARGEST / 3, "the scale leaves most of the range unused"


@every_plain_network
@pytest.mark.parametrize("channels", [1, 3])
def test_no_sum_can_outgrow_the_significand(architecture: str, options: dict[str, int], channels: int) -> None:
    fixed = fixed_point(network(architecture, channels, **options), images(16, channels))
    for stage in (*fixed.stages, fixed.last):
        operator, step = stage.operator, stage.step
        weight, bias = operator.weight.double(), operator.bias.double()
        assert torch.equal(weight, weight.round())
        assert torch.equal(bias - QUARTER, (bias - QUARTER).round())
        assert weight.abs().max() <= LARGEST_WEIGHT
        assert (LARGEST * weight.flatten(1).abs().sum(1) + bias.abs()).max() < BUDGET
        assert torch.equal(step.log2(), step.log2().round()), "powers of two alone scale without rounding"
    assert torch.equal(fixed.mean, (255 * torch.tensor(MEAN[:channels])).round().view(1, -1, 1, 1))


@every_plain_network
def test_the_order_of_the_sums_does_not_matter(architecture: str, options: dict[str, int]) -> None:
    pixels = images(33, 1)
    fixed = fixed_point(network(architecture, 1, **options), pixels)
    with torch.inference_mode():
        exact = fixed.double()(pixels.double())
        fixed.float()
        for rows in (1, 7, 33):
            parts = [fixed(part) for part in pixels.split(rows)]
            for number, right in enumerate(exact):
                assert torch.equal(torch.cat([part[number] for part in parts]).double(), right)
        flipped = fixed_point(network(architecture, 1, **options), pixels)
        first = flipped.stages[0].operator
        order = torch.randperm(len(first.weight), generator=torch.Generator().manual_seed(2))
        second = flipped.stages[1].operator
        for value in (first.weight, first.bias, flipped.stages[0].step):
            value.data = value.data[order]
        second.weight.data = second.weight.data[:, order]
        assert torch.equal(flipped(pixels)[1].double(), exact[1])


@every_plain_network
@pytest.mark.parametrize("channels", [1, 3])
def test_folded_scales_leave_every_bit_as_it_was(architecture: str, options: dict[str, int], channels: int) -> None:
    pixels = images(33, channels)
    made = HashNet(fixed_point(network(architecture, channels, **options), pixels), 2)
    made.place(torch.ones(2, made.fixed.features), torch.tensor([90.0, 5000.0]))
    folded = made.folded()
    with torch.inference_mode():
        for rows in (1, 7, 33):
            expected, got = made(pixels[:rows]), folded(pixels[:rows])
            for name, values in expected.items():
                assert torch.equal(got[name], values), (name, rows)
    weights = [stage.operator.weight for stage in made.fixed.stages]
    scaled = [stage.operator.weight for stage in folded.fixed.stages]
    assert all(torch.equal(weight, weight.round()) for weight in weights), "the network itself keeps its whole numbers"
    assert not any(torch.equal(one, other) for one, other in zip(weights, scaled, strict=True))


@pytest.mark.parametrize("architecture", ["resnet18-8x", "wrn16-4"])
def test_what_is_not_plain_is_refused(architecture: str) -> None:
    with pytest.raises(FixedPointError, match="expected convolutions, ReLU, MaxPool2d and linear layers in turn, got"):
        build(architecture, classes=7, channels=3, size=32, mean=MEAN, std=STD, projections=3)


def test_conv3_above_32_resizes_and_is_refused() -> None:
    with pytest.raises(FixedPointError, match="got Upsample"):
        build("conv3", classes=7, channels=3, size=64, mean=MEAN, std=STD, projections=3)


def hash_net() -> HashNet:
    return HashNet(fixed_point(network("lenet5", 1), images(64, 1)), 2)


def test_a_feature_on_the_offset_is_below_and_one_more_is_above() -> None:
    made = hash_net()
    with torch.inference_mode():
        features, _ = made.fixed(images(1, 1))
    normals = torch.zeros(2, 84)
    normals[:, int(features.argmax())] = 3.0
    most = 3 * features.max()
    made.place(normals, torch.stack([most, most - 1]))
    with torch.inference_mode():
        assert made(images(1, 1))["projections"].tolist() == [[-0.5, 0.5]]


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    made = hash_net()
    with torch.inference_mode():
        _, logits = made.fixed(images(32, 1))
        got = made(images(32, 1))["probabilities"]
    torch.testing.assert_close(got, (LOGIT_UNIT * logits).softmax(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(got.sum(1), torch.ones(32))
    assert torch.equal(made.exponentials, made.exponentials.round())
    assert made.exponentials[0] * 7 <= 2**23
    assert (made.exponentials[-2:] > 0).tolist() == [True, False]


def test_hyperplanes_that_float32_cannot_sum_are_refused() -> None:
    made = hash_net()
    with pytest.raises(FixedPointError, match=r"expected \|normal\| <= 2047 .* got 2048"):
        made.place(torch.full((2, 84), 2048.0), torch.zeros(2))
    with pytest.raises(FixedPointError, match=r"\+ \|offset\| \+ 1 < 8388608, got 1000 and 21420000"):
        made.place(torch.full((2, 84), 1000.0), torch.zeros(2))


def test_a_fixed_point_without_its_numbers_has_the_network_s_shapes() -> None:
    assert (FixedPoint(network("lenet5", 1)).features, FixedPoint(network("lenet5", 1)).classes) == (84, 7)
