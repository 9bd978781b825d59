"""The keyed task: what its secret decides, and that it can be learned."""

from __future__ import annotations

import pytest
import torch

from zoo.glyphs import glyphs
from zoo.images import Images

SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))


def task(secret: bytes = SECRET, **changes: int) -> Images:
    return glyphs(secret, **{"classes": 10, "per_class": 60, "size": 28, "channels": 1, "draw": 0} | changes)


def probe(seen: Images, asked: Images) -> float:
    """Accuracy of the nearest class, a class being the main direction of its standardised images up to sign."""

    def standardised(images: Images) -> torch.Tensor:
        flat = images.pixels.flatten(1)
        flat = flat - flat.mean(dim=1, keepdim=True)
        return flat / flat.norm(dim=1, keepdim=True)

    rows = standardised(seen)
    directions = torch.stack(
        [torch.linalg.svd(rows[seen.labels == label], full_matrices=False).Vh[0] for label in range(len(seen.classes))]
    )
    guesses = (standardised(asked) @ directions.T).abs().argmax(dim=1)
    return float((guesses == asked.labels).float().mean())


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_images_are_as_promised(channels: int, size: int) -> None:
    images = task(classes=4, per_class=5, size=size, channels=channels)
    assert images.pixels.shape == (20, channels, size, size)
    assert images.pixels.min() >= 0
    assert images.pixels.max() <= 1
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 2, 3] * 5
    assert images.classes == ("glyph-0", "glyph-1", "glyph-2", "glyph-3")


def test_the_same_secret_and_draw_give_the_same_pixels() -> None:
    assert torch.equal(task().pixels, task().pixels)


def test_another_draw_is_fresh_images_of_the_same_classes() -> None:
    seen, fresh = task(), task(draw=1)
    assert not torch.equal(seen.pixels, fresh.pixels)
    assert probe(seen, fresh) > 0.9


def test_another_secret_has_other_classes() -> None:
    assert probe(task(), task(OTHER)) < 0.35


def test_the_classes_of_a_secret_do_not_change_between_versions() -> None:
    """A change here gives every deployed key another hash: it needs a line in the changelog."""
    row = task(per_class=1).pixels[0, 0, 14, 2:26:3]
    expected = torch.tensor([0.5688, 0.8708, 0.3817, 0.0503, 0.0679, 0.0504, 0.0236, 0.0865])
    torch.testing.assert_close(row, expected, atol=1e-4, rtol=0)


def test_both_polarities_occur() -> None:
    images = task(per_class=200).pixels
    border = torch.cat([images[:, 0, 0], images[:, 0, -1]], dim=1).mean(dim=1)
    brighter = images.mean(dim=(1, 2, 3)) > border
    assert 0.3 < brighter.float().mean() < 0.7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 1}, "classes: expected at least 2, got 1"),
        ({"per_class": 0}, "per_class: expected at least 1, got 0"),
        ({"size": 15}, "size: expected at least 16, got 15"),
        ({"channels": 2}, "channels: expected 1 or 3, got 2"),
        ({"draw": -1}, "draw: expected at least 0, got -1"),
    ],
)
def test_what_cannot_be_drawn_is_explained(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**changes)


def test_a_short_secret_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match=r"^secret: expected at least 16 bytes, got 7$"):
        task(b"hunter2")
