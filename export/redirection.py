"""A surrogate's graph for gradient redirection: s = J v and the softmax, in one forward pass.

GRAD^2 (Mazeika et al., ICML 2022) scores class k by s_k = <gradient of log p_k, v>, v all ones over every parameter of
the surrogate. That is a directional derivative of the log-softmax: each layer hands on its value and that value's
derivative, as dual numbers do, so nothing is differentiated when the graph runs and it holds ordinary operators only.
A layer y = f(x, w) adds <df/dw, 1> to df/dx dx; a convolution's share is its input convolved with one filter of ones,
the same for all its filters.

The order of operations is read off the network by torch.fx. A layer without a rule here is an ExportError.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F


class UnknownLayerError(ValueError):
    """A layer or function whose derivative is not written down here."""


class Dual(NamedTuple):
    """A value and its derivative along v, of one shape; None for a derivative of 0, as the images have it."""

    value: Tensor
    slope: Tensor | None


class Redirection(nn.Module):
    """A network in evaluation mode as `probabilities` (N,K) and `redirection` (N,K): s = J v, v all ones.

    s carries the scale of the network: hundreds to many thousands, of which only the order matters to the rule.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()
        self.steps = fx.Tracer().trace(network)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits, slope = self._run(images)
        probabilities = torch.softmax(logits, -1)
        assert slope is not None, "a network without parameters"
        return {
            "probabilities": probabilities,
            "redirection": slope - (probabilities * slope).sum(-1, keepdim=True),
        }

    def _run(self, images: Tensor) -> Dual:
        known: dict[str, Any] = {}
        for node in self.steps.nodes:
            args = fx.map_arg(node.args, lambda each: known[each.name])
            options = fx.map_arg(node.kwargs, lambda each: known[each.name])
            if node.op == "placeholder":
                known[node.name] = Dual(images, None)
            elif node.op == "get_attr":
                known[node.name] = operator.attrgetter(node.target)(self.network)
            elif node.op == "output":
                result: Dual = args[0]
                return result
            else:
                known[node.name] = self._step(node, args, options)
        raise UnknownLayerError("a network without an output")

    def _step(self, node: fx.Node, args: Any, options: Mapping[str, Any]) -> Dual:
        if node.op == "call_module":
            layer = self.network.get_submodule(str(node.target))
            rule = LAYERS.get(type(layer))
            if rule is None:
                raise UnknownLayerError(f"no derivative for the layer {type(layer).__name__} ({node.target})")
            return rule(layer, *args)
        function = FUNCTIONS.get(node.target)
        if node.op != "call_function" or function is None:
            raise UnknownLayerError(f"no derivative for {node.op} {node.target}")
        return function(*args, **options)


def _add(*slopes: Tensor | None) -> Tensor | None:
    """Their sum, None counting as 0."""
    total: Tensor | None = None
    for slope in slopes:
        total = slope if total is None else total if slope is None else total + slope
    return total


def _linear_in_x(apply: Callable[..., Tensor]) -> Callable[..., Dual]:
    """The rule of a function without parameters that is linear in its first argument."""

    def rule(x: Dual, *args: Any, **options: Any) -> Dual:
        return Dual(apply(x.value, *args, **options), None if x.slope is None else apply(x.slope, *args, **options))

    return rule


def _layer_linear_in_x(layer: nn.Module, x: Dual) -> Dual:
    return Dual(layer(x.value), None if x.slope is None else layer(x.slope))


def _convolution(layer: nn.Conv2d, x: Dual) -> Dual:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnknownLayerError(f"no derivative for a convolution padded by {layer.padding_mode} {layer.padding}")
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    filters, inputs = layer.weight.shape[:2]
    # a filter of ones for each group stands for all the filters of that group
    ones = torch.ones(layer.groups, inputs, *layer.kernel_size, dtype=layer.weight.dtype)
    direct = F.conv2d(x.value, ones, None, *geometry)
    if layer.groups > 1:
        direct = direct.repeat_interleave(filters // layer.groups, dim=1)
    direct = direct.expand(-1, filters, -1, -1)
    carried = None if x.slope is None else F.conv2d(x.slope, layer.weight, None, *geometry)
    slope = _add(direct, carried)
    return Dual(layer(x.value), slope if layer.bias is None or slope is None else slope + 1)


def _fully_connected(layer: nn.Linear, x: Dual) -> Dual:
    direct = x.value.sum(-1, keepdim=True).expand(*x.value.shape[:-1], layer.out_features)
    slope = _add(direct, None if x.slope is None else F.linear(x.slope, layer.weight))
    return Dual(layer(x.value), slope if layer.bias is None or slope is None else slope + 1)


def _batch_norm(layer: nn.BatchNorm2d, x: Dual) -> Dual:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, scale = (each.view(1, -1, 1, 1) for each in (layer.running_mean, (layer.running_var + layer.eps).rsqrt()))
    slope = (x.value - mean) * scale + 1  # the weight's share and the bias's
    if x.slope is not None:
        slope = slope + x.slope * (scale * layer.weight.view(1, -1, 1, 1))
    return Dual(layer(x.value), slope)


def _clamped(x: Dual, value: Tensor, through: Tensor) -> Dual:
    return Dual(value, None if x.slope is None else torch.where(through, x.slope, torch.zeros_like(x.slope)))


def _relu(x: Dual, inplace: bool = False) -> Dual:
    return _clamped(x, torch.relu(x.value), x.value > 0)


def _relu6(x: Dual) -> Dual:
    return _clamped(x, x.value.clamp(0, 6), (x.value > 0) & (x.value < 6))


def _max_pool(layer: nn.MaxPool2d, x: Dual) -> Dual:
    value, places = F.max_pool2d(
        x.value, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
    )
    if x.slope is None:
        return Dual(value, None)
    return Dual(value, x.slope.flatten(2).gather(2, places.flatten(2)).view_as(value))


def _sum(left: Dual, right: Dual | Tensor | float) -> Dual:
    if isinstance(right, Dual):
        return Dual(left.value + right.value, _add(left.slope, right.slope))
    return Dual(left.value + right, left.slope)


def _minus_constant(left: Dual, right: Tensor) -> Dual:
    return Dual(left.value - right, left.slope)


def _concatenated(parts: list[Dual], dim: int = 0) -> Dual:
    slopes = [torch.zeros_like(each.value) if each.slope is None else each.slope for each in parts]
    return Dual(torch.cat([each.value for each in parts], dim), torch.cat(slopes, dim))


LAYERS: Mapping[type[nn.Module], Callable[..., Dual]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _fully_connected,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda layer, x: _relu(x),
    nn.ReLU6: lambda layer, x: _relu6(x),
    nn.MaxPool2d: _max_pool,
    nn.Dropout: lambda layer, x: x,  # in evaluation mode it does nothing
    **dict.fromkeys(
        (nn.Identity, nn.Flatten, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample),
        _layer_linear_in_x,
    ),
}
FUNCTIONS: Mapping[Any, Callable[..., Dual]] = {
    operator.add: _sum,
    operator.iadd: _sum,
    operator.sub: _minus_constant,
    operator.truediv: _linear_in_x(operator.truediv),
    torch.flatten: _linear_in_x(torch.flatten),
    torch.cat: _concatenated,
    F.relu: _relu,
    F.adaptive_avg_pool2d: _linear_in_x(F.adaptive_avg_pool2d),
}
