r"""A plain network in whole numbers, so that every backend, batch size and thread count gives the same bits.

A float sum depends on its order, and the order on the batch, the threads and the library. A sum of whole numbers
does not, as long as none of its parts outgrows the float's significand. So weights, biases and activations are whole
numbers carried in float32:

    x_0     = round(255 * image) - round(255 * mean)                      in -255 .. 255
    x_{l+1} = clamp(round(2^-e * (W x_l + b + 1/4)), 0, 255)              features, where l is the last but one
    logits  = round(2^-e * (W x_l + b + 1/4))                             in units of 1/64

with 255 * sum |W| + |b| < 2^22 for every output, and |W| < 2^11, which also leaves the products of a TF32 unit exact.
The exponents e are powers of two of each output; the quarter keeps every rounded number off the ties, so that even a
kernel that is not exact (a Winograd convolution) may err by less than a quarter. The scales follow from the
activations on calibration images (Jacob et al., CVPR 2018, is the idea; theirs are zero-points and 8-bit types).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

LARGEST = 255
BUDGET = 2**22
LARGEST_WEIGHT = 2**11 - 1
LOGIT_UNIT = 1 / 64
QUARTER = 0.25


class FixedPointError(ValueError):
    """A network that has more than convolutions, maximum pooling, ReLU and linear layers."""


class Layer(NamedTuple):
    """One layer of a plain network: what multiplies, and the pooling behind its ReLU."""

    operator: nn.Conv2d | nn.Linear
    pool: nn.MaxPool2d | None


class Stage(nn.Module):
    """A layer in whole numbers, rectified to 0..255 if it is not the last: (N,...) to (N,...) float32."""

    step: torch.Tensor

    def __init__(self, layer: Layer, *, rectified: bool) -> None:
        super().__init__()
        self.operator, self.pool, self.rectified = layer.operator, layer.pool, rectified
        self.folded = False
        outputs = len(layer.operator.weight)
        shape = (outputs, 1, 1) if isinstance(layer.operator, nn.Conv2d) else (outputs,)
        self.register_buffer("step", torch.ones(shape))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        sums = self.operator(values.flatten(1) if isinstance(self.operator, nn.Linear) else values)
        # rounding keeps the order of numbers, so pooling may come first, where there is less to round
        pooled = sums if self.pool is None else self.pool(sums)
        scaled = torch.round(pooled if self.folded else pooled * self.step)
        return scaled.clamp(0, LARGEST) if self.rectified else scaled

    @torch.no_grad()
    def fold(self) -> None:
        """Take the step into the weights: a power of two scales products and sums without rounding, so the outputs are
        the same bits, and a graph has an operator less."""
        weight, bias = self.operator.weight, self.operator.bias
        assert bias is not None, "fixed_point gives every layer one, for the quarter"
        weight.mul_(self.step.view(-1, *[1] * (weight.dim() - 1)))
        bias.mul_(self.step.flatten())
        self.folded = True


class FixedPoint(nn.Module):
    """Images (N,C,S,S) float32 in [0,1] to features (N,F) in 0..255 and logits (N,M) in units of 1/64, whole float32.

    Made with the shapes of `network`, one of zoo.models behind its normalisation; `fixed_point` or a checkpoint fills
    it. Raises FixedPointError.
    """

    mean: torch.Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = list(_layers(network))
        last = len(layers) - 1
        stages = [Stage(layer, rectified=number < last) for number, layer in enumerate(layers)]
        self.register_buffer("mean", torch.zeros_like(network.get_buffer("normalise.mean")))
        self.stages = nn.Sequential(*stages[:last])
        self.last = stages[last]
        self.requires_grad_(False)

    @property
    def features(self) -> int:
        """F, how many features there are."""
        return int(self.last.operator.weight.shape[1])

    @property
    def classes(self) -> int:
        """M, how many logits there are."""
        return len(self.last.operator.weight)

    def fold(self) -> None:
        """Take the steps into the weights, whole numbers scaled from then on: the same bits with fewer operators."""
        for stage in (*self.stages, self.last):
            assert isinstance(stage, Stage)
            stage.fold()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.stages(torch.round(images * LARGEST) - self.mean)
        return features, self.last(features)


@torch.no_grad()
def fixed_point(network: nn.Module, images: torch.Tensor) -> FixedPoint:
    """A float network of zoo.models, on the CPU, in whole numbers; `network` itself is spent.

    images: (N,C,S,S) float32 in [0,1], whose activations set the scales. Raises FixedPointError.
    """
    mean, std = network.get_buffer("normalise.mean").double(), network.get_buffer("normalise.std").double()
    values = network.get_submodule("normalise")(images)
    fixed = FixedPoint(network)
    whole_mean = torch.round(mean * LARGEST)
    fixed.mean.copy_(whole_mean)
    unit: torch.Tensor | float = 1 / (LARGEST * std)  # the real value of 1 in what the stage is given
    rest = (whole_mean - LARGEST * mean) * unit
    for stage in (*fixed.stages, fixed.last):
        assert isinstance(stage, Stage)
        operator = stage.operator
        values = operator(values.flatten(1) if isinstance(operator, nn.Linear) else values)
        if stage.pool is not None:
            values = stage.pool(values)
        after = LOGIT_UNIT
        if stage.rectified:
            values = values.relu()
            after = float(torch.exp2(torch.ceil(torch.log2(values.max().double() / LARGEST))))
        weight, bias = operator.weight.double(), torch.zeros(len(operator.weight), dtype=torch.float64)
        if operator.bias is not None:
            bias += operator.bias
        if isinstance(operator, nn.Conv2d):
            bias += (weight * rest).sum((1, 2, 3))
        whole, bias, one = _whole(weight * unit, bias)
        operator.weight.copy_(whole)
        operator.bias = nn.Parameter(bias.float() + QUARTER, requires_grad=False)
        stage.step.copy_((one / after).view_as(stage.step))
        unit, rest = after, torch.zeros(())
    return fixed


def _whole(weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each output's weights and bias as whole numbers within the budget, and the real value (O,) of their 1."""
    flat = weight.flatten(1)
    most = torch.minimum(LARGEST_WEIGHT / flat.abs().amax(1), BUDGET / (LARGEST * flat.abs().sum(1) + bias.abs()))
    bits = torch.floor(torch.log2(most.clamp(max=BUDGET)))
    while True:
        scale = torch.exp2(bits)
        whole, shift = torch.round(flat * scale[:, None]), torch.round(bias * scale)
        # another 1 for the quarter; rounding up may take an output over the budget that was within it before
        over = (LARGEST * whole.abs().sum(1) + shift.abs() + 1 >= BUDGET) | (whole.abs().amax(1) > LARGEST_WEIGHT)
        if not over.any():
            return whole.view_as(weight), shift, 1 / scale
        bits -= over.double()


def _layers(network: nn.Module) -> Iterator[Layer]:
    """The layers of a plain network: each a convolution or linear layer, ReLU behind all but the last."""
    modules = [*network.get_submodule("network").children()]
    found: list[Layer] = []
    rectified = True
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.Linear) and rectified:
            found.append(Layer(module, None))
            rectified = False
        elif isinstance(module, nn.ReLU) and found and not rectified:
            rectified = True
        elif isinstance(module, nn.MaxPool2d) and found and found[-1].pool is None:
            found[-1] = found[-1]._replace(pool=module)
        elif not isinstance(module, nn.Flatten):
            raise FixedPointError(f"expected convolutions, ReLU, MaxPool2d and linear layers in turn, got {module}")
    if rectified or len(found) < 2 or not isinstance(found[-1].operator, nn.Linear):
        raise FixedPointError(f"expected a linear layer at the end and another layer before it, got {len(found)}")
    yield from found
