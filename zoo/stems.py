"""torchvision's ImageNet networks with stems for small images, as the extraction papers use them on CIFAR.

An ImageNet stem shrinks the image fourfold before the first block, which leaves a 32 x 32 image one pixel at
the end. Here the first convolution is 3x3 with stride 1: ResNet-8x and MobileNetV2 keep total stride 8,
DenseNet121 keeps its pooling and with it stride 16. torchvision is imported where a network is built: it takes
seconds, and the small networks need none of it.
"""

from __future__ import annotations

from typing import cast

from torch import nn

# MobileNetV2 (Sandler et al., CVPR 2018, table 2): expansion, channels, blocks, stride of the first block.
# The paper gives the second row stride 2; small images need 1.
MOBILENET_ROWS = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


def _stem(channels: int, filters: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def resnet_8x(*, classes: int, channels: int, size: int, depth: int) -> nn.Module:
    """A ResNet (He et al., CVPR 2016) of 18 or 34 layers at total stride 8, on normalised images (N,C,S,S)."""
    from torchvision import models

    del size  # global pooling takes any
    network = models.get_model(f"resnet{depth}", num_classes=classes)
    network.conv1 = _stem(channels, 64)
    network.maxpool = nn.Identity()
    return cast(nn.Module, network)


def mobilenetv2(*, classes: int, channels: int, size: int) -> nn.Module:
    """MobileNetV2 (Sandler et al., CVPR 2018) at total stride 8, on normalised images (N,C,S,S)."""
    from torchvision import models

    del size  # global pooling takes any
    network = models.MobileNetV2(num_classes=classes, inverted_residual_setting=MOBILENET_ROWS)
    network.features[0][0] = _stem(channels, 32)
    return cast(nn.Module, network)


def densenet121(*, classes: int, channels: int, size: int) -> nn.Module:
    """DenseNet-121 (Huang et al., CVPR 2017) at total stride 16, on normalised images (N,C,S,S)."""
    from torchvision import models

    del size  # global pooling takes any
    network = models.densenet121(num_classes=classes)
    network.features.conv0 = _stem(channels, 64)
    return cast(nn.Module, network)
