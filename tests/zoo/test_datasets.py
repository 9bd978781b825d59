"""The registry of data sets, the embedded ones, the user's own, and conversions between geometries."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from zoo.datasets import DATASETS, DatasetError, Images, load
from zoo.embedded import photograph
from zoo.images import convert, from_bytes

EMBEDDED = [name for name, dataset in DATASETS.items() if dataset.embedded]


embedded = functools.cache(load)


def rows(images: Images) -> set[bytes]:
    return {row.numpy().tobytes() for row in images.pixels}


# the registry


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_says_what_it_is(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.name == name
    assert dataset.channels in (1, 3)
    assert len(set(dataset.classes)) == len(dataset.classes)
    assert all((dataset.source, dataset.licence, dataset.about))
    assert (dataset.size is None) == (name == "imagefolder")
    assert [dataset.embedded, dataset.files].count(None) == (2 if name == "imagefolder" else 1)


def test_halves_share_no_image_and_are_all_there_is() -> None:
    whole = load("digits", "test")
    even, odd = (load(f"digits:test/{half}", "train") for half in ("even", "odd"))
    assert whole.labels is not None
    assert even.labels is not None
    assert odd.labels is not None
    assert whole.pixels[::2].equal(even.pixels)
    assert whole.pixels[1::2].equal(odd.pixels)
    assert sorted(torch.cat([even.labels, odd.labels]).tolist()) == sorted(whole.labels.tolist())


def test_classes_are_counted() -> None:
    counts = {name: len(dataset.classes) for name, dataset in DATASETS.items()}
    labelled = {"digits": 10, "mnist": 10, "fashionmnist": 10, "kmnist": 10, "cifar10": 10, "cifar100": 100}
    labelled |= {"font-digits": 10, "font-letters": 52}
    assert counts == {"china": 0, "flower": 0, "imagefolder": 0} | labelled


@pytest.mark.parametrize(
    ("spec", "split", "options", "message"),
    [
        ("mnits", "train", {}, "unknown data set 'mnits'; known: digits, china, flower, font-digits, "),
        ("digits", "valid", {}, "digits: unknown split 'valid'; expected train or test"),
        ("digits:tset", "train", {}, "digits:tset: unknown split 'tset'; expected train or test"),
        ("digits:train/first", "train", {}, "digits:train/first: unknown half 'first'; expected even or odd"),
        ("imagefolder", "train", {}, "imagefolder: expected a folder, as in imagefolder:PATH"),
        ("digits", "test", {"channels": 2}, "channels: expected 1 or 3, got 2"),
        ("digits", "test", {"size": 0}, "size: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_loaded_is_explained(spec: str, split: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load(spec, split, **options)


# embedded


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_keep_the_registry_s_promises(name: str, split: str) -> None:
    images, dataset = embedded(name, split), DATASETS[name]
    assert images.name == name
    assert images.pixels.shape[1:] == (dataset.channels, dataset.size, dataset.size)
    assert images.pixels.dtype == torch.float32
    assert images.pixels.is_contiguous()
    assert images.pixels.min() >= 0
    assert images.pixels.max() <= 1
    assert images.classes == dataset.classes


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_are_always_the_same_and_their_splits_apart(name: str) -> None:
    train, test = embedded(name, "train"), embedded(name, "test")
    assert torch.equal(test.pixels, load(f"{name}:test", "train").pixels)
    assert rows(train).isdisjoint(rows(test))


def test_digits_are_all_there_once_in_even_shares() -> None:
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test)) == (1297, 500)
    assert train.labels is not None
    assert test.labels is not None
    from sklearn.datasets import load_digits

    everything = np.bincount(load_digits().target)
    assert (torch.bincount(train.labels) + torch.bincount(test.labels)).tolist() == everything.tolist()
    shares = torch.bincount(test.labels) / torch.from_numpy(everything)
    assert (shares - 500 / 1797).abs().max() < 0.01


def test_digits_keep_their_pictures_and_labels() -> None:
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = convert(torch.from_numpy(data.images / 16).float()[:, None], size=28, channels=None)
    known = {picture.numpy().tobytes(): label for picture, label in zip(pictures, data.target, strict=True)}
    for split in ("train", "test"):
        images = load("digits", split)
        assert images.labels is not None
        assert [known[row.numpy().tobytes()] for row in images.pixels] == images.labels.tolist()


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_photographs_are_those_that_scikit_learn_shows(name: str) -> None:
    from sklearn.datasets import load_sample_image

    assert np.array_equal(photograph(name), load_sample_image(name))


@pytest.mark.parametrize(("split", "count"), [("train", 6000), ("test", 1000)])
@pytest.mark.parametrize("name", ["china", "flower"])
def test_crops_differ_and_have_contrast(name: str, split: str, count: int) -> None:
    images = embedded(name, split)
    assert images.labels is None
    assert len(rows(images)) == len(images) == count
    assert images.pixels.amin((1, 2, 3)).max() == 0
    assert images.pixels.amax((1, 2, 3)).min() == 1
    assert images.pixels.std((1, 2, 3)).min() > 0.05


# conversions


def test_bytes_become_the_nearest_float32_of_a_255th() -> None:
    every_byte = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    pixels = from_bytes(every_byte)
    exact = (np.arange(256) / 255).astype(np.float32)
    assert pixels.flatten().tolist() == exact.tolist()
    assert torch.equal((pixels.flatten() * 255).round().byte(), torch.arange(256).byte())


@pytest.mark.parametrize("size", [7, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_geometry_can_be_met(size: int, channels: int) -> None:
    images = load("digits", "test", size=size, channels=channels)
    assert images.pixels.shape == (500, channels, size, size)
    assert images.pixels.min() >= 0
    assert images.pixels.max() <= 1
    assert abs(images.pixels.mean() - load("digits", "test").pixels.mean()) < 0.01
    if channels == 3:
        assert torch.equal(images.pixels[:, 0], images.pixels[:, 2])


@pytest.mark.parametrize(("size", "channels"), [(13, None), (50, 1), (28, 1), (31, 3)])
def test_flat_images_stay_flat_and_in_range(size: int, channels: int | None) -> None:
    for value in (0.0, 0.3, 1.0):
        flat = convert(torch.full((2, 3, 28, 28), value), size=size, channels=channels)
        torch.testing.assert_close(flat, torch.full((2, channels or 3, size, size), value))
        assert 0 <= flat.min() <= flat.max() <= 1


def test_gray_is_the_luma_of_the_colours() -> None:
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]).view(3, 3, 1, 1)
    gray = convert(colours, size=None, channels=1)
    torch.testing.assert_close(gray.flatten(), torch.tensor([0.299, 0.587, 0.114]))


def test_what_fits_already_is_not_touched() -> None:
    pixels = torch.rand(2, 1, 28, 28)
    assert convert(pixels, size=28, channels=1) is pixels


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (
            torch.zeros(2, 28, 28),
            None,
            r"x: pixels: expected float32 or uint8 \(N,C,H,W\), got torch.float32 \(2, 28, 28\)",
        ),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int16), None, r"x: pixels: expected float32 .*, got torch.int16"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3).long(), r"x: labels: expected int64 \(2,\), got torch.int64 \(3,\)"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2), r"x: labels: expected int64 \(2,\), got torch.float32"),
    ],
)
def test_images_check_their_own_form(pixels: torch.Tensor, labels: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Images("x", pixels, labels, ())
