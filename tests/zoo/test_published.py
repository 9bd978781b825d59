"""Networks of timm and torchvision by name."""

from __future__ import annotations

import pytest
import torch

from zoo.models import ArchitectureError, build
from zoo.published import UnknownNetworkError, answers, pretrained_config, published

NORMAL = {"mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.mark.parametrize(
    ("name", "size"),
    [("timm:resnet10t", (40, 56)), ("timm:vit_tiny_patch16_224", 32), ("torchvision:mobilenet_v3_small", 32)],
)
def test_a_published_network_is_built_for_any_classes(name: str, size: int | tuple[int, int]) -> None:
    network = build(name, classes=7, channels=3, size=size, **NORMAL).eval()
    height, width = (size, size) if isinstance(size, int) else size
    assert network(torch.rand(2, 3, height, width)).shape == (2, 7)
    assert answers(network.get_submodule("network"), 3, size) == 7


def test_timm_builds_for_gray_images_and_torchvision_says_that_it_does_not() -> None:
    assert published("timm:resnet10t", classes=4, channels=1, size=32)(torch.rand(2, 1, 32, 32)).shape == (2, 4)
    with pytest.raises(UnknownNetworkError, match="its first layer takes 3 channels"):
        published("torchvision:resnet18", classes=4, channels=1, size=32)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ArchitectureError, match=r"timm has no network 'resnet19'; nearest: resnet18, "):
        build("timm:resnet19", classes=4, channels=3, size=32, **NORMAL)
    with pytest.raises(ArchitectureError, match=r"unknown architecture 'resnet18'; known: conv3, .*, and timm:NAME"):
        build("resnet18", classes=4, channels=3, size=32, **NORMAL)
    with pytest.raises(ArchitectureError, match="timm:resnet10t: unknown option 'width'; known: none"):
        build("timm:resnet10t", classes=4, channels=3, size=32, width=2, **NORMAL)


def test_a_published_network_says_how_its_images_were_prepared() -> None:
    config = pretrained_config("timm:resnet18")
    assert config["input_size"] == (3, 224, 224)
    assert config["interpolation"] in ("bilinear", "bicubic")
    assert len(config["mean"]) == 3
    with pytest.raises(UnknownNetworkError, match="timm has no pretrained_cfg of 'resnet19'"):
        pretrained_config("timm:resnet19")
