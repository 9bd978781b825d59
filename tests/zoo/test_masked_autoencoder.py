"""The masked autoencoder: where its pixels come from, with and without hidden parts."""

from __future__ import annotations

import pytest
import torch

from zoo.masked_autoencoder import MaskedAutoencoder

SMALL = {"width": 16, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_heads": 1}


def made(*, channels: int = 1, size: int = 12, patch: int = 4, groups: list[int] | None = None) -> MaskedAutoencoder:
    torch.manual_seed(0)
    scale = {"mean": [0.3] * channels, "std": [0.2] * channels}
    network = MaskedAutoencoder(channels=channels, size=size, patch=patch, groups=groups, **scale, **SMALL).eval()
    with torch.no_grad():  # as training leaves them: places and pixels that matter
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    return network


def images(rows: int, channels: int = 1, size: int = 12) -> torch.Tensor:
    return torch.rand(rows, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("channels", "size", "patch"), [(1, 12, 4), (3, 8, 2), (3, 32, 4)])
def test_patches_are_cut_row_by_row_and_put_together_again(channels: int, size: int, patch: int) -> None:
    network, given = made(channels=channels, size=size, patch=patch), images(2, channels, size)
    tokens = network._cut(given)
    side = size // patch
    assert tokens.shape == (2, side**2, channels * patch**2)
    row, column = side - 1, 1
    square = given[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
    assert torch.equal(tokens[:, row * side + column], square.flatten(1))
    scaled = network.normalise(given)
    torch.testing.assert_close(network._pixels(network._cut(scaled)), given)


@torch.inference_mode()
def test_only_what_is_seen_is_looked_at() -> None:
    network, given = made(), images(3)
    seen = torch.tensor([[0, 4], [8, 1], [2, 3]])
    before = network(given, seen)
    assert before.shape == given.shape
    changed = given.clone()
    changed[0, :, :4, 4:8] += 0.5  # the first row's second patch is hidden from it
    assert torch.equal(network(changed, seen), before)
    changed[0, :, :4, :4] += 0.5  # its first is not
    after = network(changed, seen)
    assert not torch.allclose(after[0], before[0])
    assert torch.equal(after[1:], before[1:]), "no row depends on another"


@torch.inference_mode()
def test_the_order_in_which_patches_are_seen_does_not_matter() -> None:
    network, given = made(), images(1)
    everything = network(given)
    for order in (torch.arange(9), torch.arange(9).flip(0)):
        torch.testing.assert_close(network(given, order[None]), everything, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_every_pixel_is_predicted_from_other_parts_alone() -> None:
    groups = [0, 1, 2, 1, 2, 0, 2, 0, 1]
    network, given = made(groups=groups), images(2)
    rebuilt = network(given)
    predicted = network._cut(rebuilt)
    for part in range(3):
        others = torch.tensor([[place for place in range(9) if groups[place] != part]] * 2)
        alone = network._cut(network(given, others))
        of_part = torch.tensor(groups) == part
        torch.testing.assert_close(predicted[:, of_part], alone[:, of_part])
    changed = given.clone()
    changed[:, :, :4, :4] = 0.9  # patch 0, of part 0, as are patches 5 and 7
    after = network._cut(network(changed))
    torch.testing.assert_close(after[:, [0, 5, 7]], predicted[:, [0, 5, 7]])
    assert not torch.allclose(after[:, [1, 2]], predicted[:, [1, 2]])


def test_parts_travel_with_the_architecture_not_with_the_weights() -> None:
    assert made().state_dict().keys() == made(groups=[0, 1] * 4 + [0]).state_dict().keys()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"patch": 5}, "patch: expected a divisor of the image's side 12, got 5"),
        ({"heads": 3}, "heads: expected a divisor of the width 16, got 3"),
        ({"decoder_heads": 3}, "decoder_heads: expected a divisor of the width 8, got 3"),
        ({"groups": [0, 1]}, "groups: expected 9 parts, one a patch, got 2"),
    ],
)
def test_it_says_what_does_not_fit(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MaskedAutoencoder(channels=1, size=12, mean=[0.5], std=[1.0], **{**SMALL, **wrong})  # type: ignore[arg-type]
