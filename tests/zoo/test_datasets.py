"""The registry of data sets, the embedded ones, the user's own, and conversions between geometries."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from defenses.policy import Input
from handlers.images import read_image
from tests.zoo.writers import some_bytes
from zoo.datasets import DATASETS, DatasetError, Images, load
from zoo.imagefolder import every_image
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
        (torch.zeros(2, 28, 28), None, r"x: pixels: expected float32 \(N,C,H,W\), got torch.float32 \(2, 28, 28\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), None, r"x: pixels: expected float32 .*, got torch.uint8"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3).long(), r"x: labels: expected int64 \(2,\), got torch.int64 \(3,\)"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2), r"x: labels: expected int64 \(2,\), got torch.float32"),
    ],
)
def test_images_check_their_own_form(pixels: torch.Tensor, labels: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Images("x", pixels, labels, ())


# the user's own


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_folder_of_images_is_read_in_sorted_order(tmp_path: Path) -> None:
    pictures = {name: some_bytes(9, 9, 3, seed=seed) for seed, name in enumerate(("b/1.png", "a/2.png", "a/1.png"))}
    for name, picture in pictures.items():
        save(tmp_path / "train" / name, picture)
    (tmp_path / "train" / "a" / "notes.txt").write_text("not an image")
    images = load(f"imagefolder:{tmp_path}", "train")
    assert images.name == "imagefolder"
    assert images.classes == ("a", "b")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1]
    expected = np.stack([pictures[name] for name in sorted(pictures)])
    assert torch.equal(images.pixels, from_bytes(expected))


def test_a_folder_of_any_shapes_is_cropped_to_a_geometry_from_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 255
    save(tmp_path / "train" / "a" / "wide.png", wide)
    save(tmp_path / "train" / "a" / "tall.jpg", np.full((30, 10), 255, np.uint8))
    images = load(f"imagefolder:{tmp_path}", "train", size=8, channels=1)
    assert images.pixels.shape == (2, 1, 8, 8)
    torch.testing.assert_close(images.pixels, torch.ones(2, 1, 8, 8))


def test_a_picture_is_turned_as_its_orientation_says(tmp_path: Path) -> None:
    picture = some_bytes(9, 9, 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "train" / "a" / "1.png", exif=exif.tobytes())
    Image.fromarray(picture).save(tmp_path / "train" / "a" / "2.png", exif=b"Exif\0\0junk")
    images = load(f"imagefolder:{tmp_path}", "train")
    assert torch.equal(images.pixels, from_bytes(np.stack([np.rot90(picture, -1), picture])))


def test_training_turns_a_picture_where_the_server_does(tmp_path: Path) -> None:
    picture = some_bytes(9, 9, 3)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", xmp)
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "train" / "a" / "1.png", pnginfo=texts)
    Image.fromarray(picture).save(tmp_path / "train" / "a" / "2.jpg", xmp=xmp)
    images = load(f"imagefolder:{tmp_path}", "train")
    for path, pixels in zip(sorted((tmp_path / "train" / "a").iterdir()), images.pixels, strict=True):
        np.testing.assert_array_equal(pixels, read_image(path.read_bytes(), Input(3, 9, 9)))


def test_the_training_folders_number_the_classes(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png"):
        save(tmp_path / name, some_bytes(8, 8, 3))
    (tmp_path / "test" / "b").mkdir()
    images = load(f"imagefolder:{tmp_path}", "test")
    assert images.classes == ("a", "b", "c")
    assert images.labels is not None
    assert images.labels.tolist() == [2]


def test_a_folder_that_cannot_be_read_is_explained(tmp_path: Path) -> None:
    spec = f"imagefolder:{tmp_path}"
    with pytest.raises(DatasetError, match="train: no such folder; expected one folder of images a class in it"):
        load(spec, "train")
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(DatasetError, match="train: no image in the folders of 1 classes"):
        load(spec, "train")
    save(tmp_path / "train" / "a" / "1.png", some_bytes(8, 8, 3))
    save(tmp_path / "train" / "a" / "2.png", some_bytes(9, 9, 3))
    with pytest.raises(DatasetError, match=r"2.png: 9 pixels a side, but .*1.png has 8; give a size"):
        load(spec, "train")
    save(tmp_path / "test" / "z" / "1.png", some_bytes(8, 8, 3))
    with pytest.raises(DatasetError, match=r"test: z: no such classes in .*train"):
        load(spec, "test")


def test_every_image_below_a_folder_is_read_whatever_folder_it_is_in(tmp_path: Path) -> None:
    pictures = {name: some_bytes(9, 9, 3, seed=seed) for seed, name in enumerate(("z.png", "b/1.PNG", "a/deep/2.png"))}
    for name, picture in pictures.items():
        save(tmp_path / name, picture)
    (tmp_path / "notes.txt").write_text("not an image")
    expected = from_bytes(np.stack([pictures[name] for name in sorted(pictures)]))
    assert torch.equal(every_image(tmp_path, size=9, channels=3), expected)
    assert torch.equal(every_image(tmp_path, size=4, channels=1), convert(expected, size=4, channels=1))
    (tmp_path / "b/1.PNG").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"1\.PNG: not a readable image: "):
        every_image(tmp_path, size=9, channels=3)
    with pytest.raises(DatasetError, match=r"deeper: expected a folder of image files, found none \(\.jpg, \.jpeg, "):
        every_image(tmp_path / "deeper", size=9, channels=3)


@pytest.mark.parametrize("keep", [0, 60, 200])
def test_a_damaged_image_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "train" / "a" / "1.png"
    save(path, some_bytes(8, 8, 3))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=r"1.png: not a readable image: "):
        load(f"imagefolder:{tmp_path}", "train")
