"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016): WRN-d-k has depth d = 6n + 4 and widening k.

EDM's CIFAR victim is WRN-16-4. Blocks are pre-activated (normalise, ReLU, convolve); the first block of a
group feeds its shortcut from the activated input, as in the authors' code.
"""

from __future__ import annotations

from torch import Tensor, nn


class Block(nn.Module):
    """Two pre-activated convolutions and a shortcut; (N,inputs,S,S) to (N,outputs,S/stride,S/stride)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        activated: Tensor = self.activate(images)
        residual: Tensor = self.residual(activated)
        return residual + (images if self.shortcut is None else self.shortcut(activated))


def wide_resnet(*, classes: int, channels: int, size: int, depth: int, widening: int) -> nn.Sequential:
    """WRN-depth-widening on normalised images (N,C,S,S), to logits (N,K); total stride 4. depth: 6n + 4."""
    del size  # global pooling takes any
    blocks = (depth - 4) // 6
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    inputs = 16
    for outputs, stride in ((16 * widening, 1), (32 * widening, 2), (64 * widening, 2)):
        for number in range(blocks):
            layers.append(Block(inputs, outputs, stride=stride if number == 0 else 1))
            inputs = outputs
    head = [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, *head, nn.Linear(inputs, classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
