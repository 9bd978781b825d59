"""Every architecture of the registry against one list of properties."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from zoo.models import ARCHITECTURES, ArchitectureError, build

# trainable parameters for gray 28 x 28 and for RGB 32 x 32 images, ten classes
PARAMETERS = {
    "conv3": (1_146_890, 1_737_290),
    "lenet5": (61_706, 62_006),
    "lenet5-half": (15_738, 15_888),
    "lenet5-fifth": (9_884, 10_084),
    "resnet9": (412_666, 412_954),
    "resnet18-8x": (11_172_810, 11_173_962),
    "resnet34-8x": (21_280_970, 21_282_122),
    "wrn16-4": (2_748_602, 2_748_890),
    "mobilenetv2": (2_236_106, 2_236_682),
    "densenet121": (6_955_274, 6_956_426),
}
# side of the last convolution's map of a 32 x 32 image
LAST_SIDE = {
    "conv3": 11,
    "lenet5": 1,
    "lenet5-half": 1,
    "lenet5-fifth": 1,
    "resnet9": 4,
    "resnet18-8x": 4,
    "resnet34-8x": 4,
    "wrn16-4": 8,
    "mobilenetv2": 4,
    "densenet121": 2,
}
MEAN, STD = [0.2, 0.5, 0.7], [0.1, 0.3, 0.5]

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def gray(architecture: str, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    arguments = {"classes": 10, "channels": 1, "size": 28, "mean": MEAN[:1], "std": STD[:1]} | changes
    return build(architecture, **arguments)  # type: ignore[arg-type]


def lively(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, its batch normalisations fitted to a batch, so that rows differ at the end."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    network(images(16))
    return network.eval()


def images(count: int, channels: int = 1, size: int = 28) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_the_tables_of_this_file_know_every_architecture() -> None:
    assert list(PARAMETERS) == list(LAST_SIDE) == list(ARCHITECTURES)


@every_architecture
def test_weights_are_counted(architecture: str) -> None:
    networks = gray(architecture), gray(architecture, channels=3, size=32, mean=MEAN, std=STD)
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == PARAMETERS[architecture]


def test_narrow_conv3_has_the_family_s_size() -> None:
    assert sum(p.numel() for p in gray("conv3", width=1).parameters()) == 288_266


@every_architecture
def test_pixels_are_normalised_by_the_first_layer(architecture: str) -> None:
    network = gray(architecture, channels=3, size=32, mean=MEAN, std=STD).eval()
    state = network.state_dict()
    torch.testing.assert_close(state["normalise.mean"].flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(state["normalise.std"].flatten(), torch.tensor(STD))
    pixels = images(2, 3, 32)
    normalised = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels), network.get_submodule("network")(normalised))


@every_architecture
def test_total_stride_suits_small_images(architecture: str) -> None:
    network = gray(architecture, channels=3, size=32, mean=MEAN, std=STD, classes=7).eval()
    sides: list[int] = []
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    last.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    with torch.inference_mode():
        assert network(images(2, 3, 32)).shape == (2, 7)
    assert sides == [LAST_SIDE[architecture]]


@every_architecture
def test_gradients_reach_every_weight_and_pixel(architecture: str) -> None:
    network, pixels = gray(architecture), images(4).requires_grad_()
    nn.functional.cross_entropy(network(pixels), torch.arange(4)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert pixels.grad is not None
    assert pixels.grad.abs().sum(dim=(1, 2, 3)).min() > 0


@every_architecture
def test_a_row_s_answer_does_not_depend_on_its_neighbours(architecture: str) -> None:
    network = lively(gray(architecture))
    with torch.inference_mode():
        together = network(images(5))
        alone = torch.cat([network(row[None]) for row in images(5)])
    assert together.std(dim=0).min() > 1e-3
    # kernels of another batch size sum in another order: eight times what they were seen to differ by in DenseNet
    torch.testing.assert_close(together, alone, rtol=5e-4, atol=5e-5)


@every_architecture
def test_tracing_finds_no_choice_that_depends_on_the_data(architecture: str) -> None:
    network = lively(gray(architecture))
    with warnings.catch_warnings():
        # newer torch prefers torch.export; what is asked here is that no TracerWarning is raised
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated")
        traced = torch.jit.trace(network, images(2), check_trace=False)
        with torch.inference_mode():
            torch.testing.assert_close(traced(images(5)), network(images(5)))


@every_architecture
def test_the_smallest_and_largest_sizes_are_those_stated(architecture: str) -> None:
    entry = ARCHITECTURES[architecture]
    for size in filter(None, (entry.smallest, entry.largest)):
        assert gray(architecture, size=size).eval()(images(1, size=size)).shape == (1, 10)
    with pytest.raises(ArchitectureError, match=f"{architecture}: size: expected at least {entry.smallest}, got"):
        gray(architecture, size=entry.smallest - 1)
    if entry.largest is not None:
        with pytest.raises(ArchitectureError, match=f"size: expected at most {entry.largest}, got"):
            gray(architecture, size=entry.largest + 1)


@pytest.mark.parametrize("size", range(28, 33))
def test_lenet5_pads_what_is_between_28_and_32(size: int) -> None:
    assert gray("lenet5", size=size)(images(2, size=size)).shape == (2, 10)


def test_conv3_shrinks_large_images_to_32() -> None:
    network = gray("conv3", size=64)
    assert network(images(2, size=64)).shape == (2, 10)
    weights = [sum(p.numel() for p in each.parameters()) for each in (network, gray("conv3", size=32))]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 1}, "conv3: classes: expected at least 2, got 1"),
        ({"channels": 0}, "conv3: channels: expected at least 1, got 0"),
        ({"mean": MEAN}, r"conv3: mean: expected 1 values, one a channel, got \[0.2, 0.5, 0.7\]"),
        ({"std": []}, r"conv3: std: expected 1 values, one a channel, got \[\]"),
        ({"std": [0.0]}, r"conv3: std: expected values above 0, got \[0.0\]"),
        ({"depth": 3}, "conv3: unknown option 'depth'; known: width"),
        ({"width": 0}, "conv3: width: expected a positive integer, got 0"),
        ({"width": 1.5}, "conv3: width: expected a positive integer, got 1.5"),
        ({"width": True}, "conv3: width: expected a positive integer, got True"),
    ],
)
def test_what_cannot_be_built_is_explained(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        gray("conv3", **changes)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ArchitectureError, match="unknown architecture 'conv4'; known: conv3, lenet5, "):
        gray("conv4")
    with pytest.raises(ArchitectureError, match="wrn16-4: unknown option 'width'; known: none"):
        gray("wrn16-4", width=2)
