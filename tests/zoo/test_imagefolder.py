"""The user's folders and tables: what is an image, of which class, on which side of the split, and kept as bytes."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from handlers.images import read_image
from pictures.geometry import Geometry
from pictures.model_input import ModelInput
from tests.zoo.writers import some_bytes
from zoo import maps, stored
from zoo.datasets import Data, DatasetError, load
from zoo.folders import listed
from zoo.imagefolder import every_image
from zoo.images import Images, from_bytes, unit


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def written(folder: Path, names: list[str], side: int = 9) -> dict[str, np.ndarray]:
    """Different pictures under these names."""
    made = {name: some_bytes(side, side, 3, seed=seed) for seed, name in enumerate(names)}
    for name, picture in made.items():
        save(folder / name, picture)
    return made


def rows(images: Images) -> dict[bytes, int]:
    """Bytes of each image, and its label."""
    labels = [-1] * len(images) if images.labels is None else images.labels.tolist()
    return {row.numpy().tobytes(): label for row, label in zip(images.stored, labels, strict=True)}


def channels_first(picture: np.ndarray) -> bytes:
    return picture.transpose(2, 0, 1).tobytes()


def test_a_split_folder_is_read_with_its_labels(tmp_path: Path) -> None:
    made = written(tmp_path / "train", ["b/1.png", "a/2.png", "a/deep/1.png"])
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    images = load(f"imagefolder:{tmp_path}", "train")
    assert (images.name, images.classes, images.stored.dtype) == ("imagefolder", ("a", "b"), torch.uint8)
    assert rows(images) == {channels_first(made[name]): int(name.startswith("b")) for name in made}
    torch.testing.assert_close(images.pixels, images.stored.float() / 255)


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_what_is_held_out_has_one_of_several_names(tmp_path: Path, name: str) -> None:
    written(tmp_path, ["train/a/1.png", "train/b/2.png", "train/c/3.png", f"{name}/c/4.png"])
    (tmp_path / name / "b").mkdir()
    images = load(f"imagefolder:{tmp_path}", "test")
    assert images.classes == ("a", "b", "c")
    assert images.labels is not None
    assert images.labels.tolist() == [2]


def test_one_folder_is_split_by_content(tmp_path: Path) -> None:
    made = written(tmp_path, [f"{kind}/{number}.png" for kind in "ab" for number in range(60)])
    for number in range(60):  # a copy of each, in the same class
        save(tmp_path / f"a/copy{number}.png", made[f"a/{number}.png"])
    train, test = (load(f"imagefolder:{tmp_path}", split, share=0.25) for split in ("train", "test"))
    assert len(train) + len(test) == 180
    assert not set(rows(train)) & set(rows(test))
    assert 20 <= len(test) <= 70
    save(tmp_path / "a/new.png", some_bytes(9, 9, 3, seed=999))
    again = load(f"imagefolder:{tmp_path}", "test", share=0.25)
    assert set(rows(test)) <= set(rows(again))


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    written(tmp_path, [f"{number}.png" for number in range(30)])
    images = load(f"imagefolder:{tmp_path}", "train")
    assert images.labels is None
    assert images.classes == ()


def test_a_table_names_files_and_labels(tmp_path: Path) -> None:
    made = written(tmp_path, [f"pictures/{number}.png" for number in range(30)])
    with (tmp_path / "set.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((name, 10 if n < 15 else 9) for n, name in enumerate(made))])
    both = [load(f"imagefolder:{tmp_path}/set.csv", split) for split in ("train", "test")]
    assert both[0].classes == ("9", "10")  # numbers in their order, not as texts
    found = rows(both[0]) | rows(both[1])
    assert found == {channels_first(picture): int(n < 15) for n, picture in enumerate(made.values())}
    (tmp_path / "bad.csv").write_text("pictures/none.png,1\n")
    with pytest.raises(DatasetError, match=r"bad\.csv: .*none\.png: no such file"):
        load(f"imagefolder:{tmp_path}/bad.csv", "train")
    (tmp_path / "bad.csv").write_text("a,b,c\n")
    with pytest.raises(DatasetError, match="expected rows of a file and a label"):
        load(f"imagefolder:{tmp_path}/bad.csv", "train")


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git"])
def test_what_programs_leave_behind_is_no_class(tmp_path: Path, name: str) -> None:
    written(tmp_path / "train", ["cat/1.png", "dog/1.png", f"{name}/x.png", "cat/._1.png", f"cat/{name}/y.png"])
    listing = listed(tmp_path, "train")
    assert listing.classes == ("cat", "dog")
    assert [file.name for file in listing.files] == ["1.png", "1.png"]
    assert listing.left_out == Counter(
        {"hidden folder, or of a file manager": 1, "hidden file, or of a file manager": 1}
    )


def test_other_endings_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "train", ["cat/1.png", "dog/1.png"])
    Image.fromarray(some_bytes(9, 9, 3)).save(tmp_path / "train/dog/2.jfif", "JPEG")
    for name in ("a.heic", "b.heic", "c.psd", "Thumbs.db"):
        (tmp_path / "train/cat" / name).write_bytes(b"x")
    assert len(load(f"imagefolder:{tmp_path}", "train")) == 3
    said = capsys.readouterr().err
    for line in (
        "train: 3 images of 2 classes",
        "left out 2: not an image by its ending (.heic)",
        "left out 1: not an image by its ending (.psd)",
        "left out 1: hidden file, or of a file manager",
    ):
        assert line in said


def test_a_class_without_images_is_an_error(tmp_path: Path) -> None:
    written(tmp_path / "train", ["cat/1.png"])
    (tmp_path / "train/dog").mkdir()
    with pytest.raises(DatasetError, match=r"train/dog: expected images of the class 'dog', found none; remove the f"):
        load(f"imagefolder:{tmp_path}", "train")


def test_a_folder_of_its_own_name_and_links_in_a_circle(tmp_path: Path) -> None:
    written(tmp_path / "photos/photos", ["cat/1.png", "dog/1.png"])
    (tmp_path / "photos/photos/cat/again").symlink_to(tmp_path / "photos/photos/cat", target_is_directory=True)
    listing = listed(tmp_path / "photos", "train")
    assert listing.classes == ("cat", "dog")
    assert len(listing.files) == 2


def test_a_folder_that_cannot_be_read_is_explained(tmp_path: Path) -> None:
    spec = f"imagefolder:{tmp_path}"
    with pytest.raises(DatasetError, match="expected images or folders of images, found none"):
        load(spec, "train")
    with pytest.raises(DatasetError, match="nowhere: no such folder; expected class folders, train/ and test/ of them"):
        load(f"{spec}/nowhere", "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match="train: expected one folder of images a class in it, found none"):
        load(spec, "train")
    written(tmp_path, ["train/a/1.png"], side=8)
    with pytest.raises(DatasetError, match="expected test/, val/, valid/, validation/ next to train/, found none"):
        load(spec, "test")
    save(tmp_path / "train/a/2.png", some_bytes(9, 9, 3))
    with pytest.raises(DatasetError, match=r"2.png: 9 x 9 pixels, but .*1.png has 8 x 8; give a size"):
        load(spec, "train")
    written(tmp_path, ["test/z/1.png"])
    with pytest.raises(DatasetError, match=r"test: z: no such classes in .*train"):
        load(spec, "test")


def test_a_few_broken_files_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "train", [f"a/{number}.png" for number in range(20)])
    (tmp_path / "train/a/broken.png").write_bytes(b"\x89PNG damaged")
    spec = f"imagefolder:{tmp_path}"
    assert len(load(spec, "train", size=8, broken=0.1)) == 20
    assert "broken.png: expected a picture (PNG, JPEG" in capsys.readouterr().err
    with pytest.raises(
        DatasetError,
        match=r"1 of 21 pictures cannot be read, more than the 1.0% that .* allows:\n  .*broken\.png: expected a",
    ):
        load(spec, "train", size=8, broken=0.01)


def test_any_shape_is_cropped_to_a_geometry_from_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 255
    save(tmp_path / "train/a/wide.png", wide)
    save(tmp_path / "train/a/tall.jpg", np.full((30, 10), 255, np.uint8))
    images = load(f"imagefolder:{tmp_path}", "train", size=8, channels=1)
    assert images.stored.shape == (2, 1, 8, 8)
    # a filter reaches a little beyond what is cut out
    assert images.pixels[..., 1:-1].min() > 0.97
    assert load(f"imagefolder:{tmp_path}", "train", size=(6, 10)).stored.shape == (2, 3, 6, 10)


def test_a_picture_is_turned_where_the_server_turns_it(tmp_path: Path) -> None:
    picture = some_bytes(9, 9, 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", xmp)
    folder = tmp_path / "train/a"
    folder.mkdir(parents=True)
    Image.fromarray(picture).save(folder / "1.png", exif=exif.tobytes())
    Image.fromarray(picture[::-1]).save(folder / "2.png", exif=b"Exif\0\0junk")
    Image.fromarray(picture[:, ::-1]).save(folder / "3.png", pnginfo=texts)
    Image.fromarray(picture[::-1, ::-1]).save(folder / "4.jpg", xmp=xmp)
    found = {row.numpy().tobytes() for row in load(f"imagefolder:{tmp_path}", "train").pixels}
    served = [read_image(path.read_bytes(), Geometry(3, 9, 9)) for path in sorted(folder.iterdir())]
    assert found == {np.ascontiguousarray(each).tobytes() for each in served}


def test_every_image_below_a_folder_is_read_whatever_folder_it_is_in(tmp_path: Path) -> None:
    made = written(tmp_path, ["z.png", "b/1.PNG", "a/deep/2.png"])
    (tmp_path / "notes.txt").write_text("not an image")
    found = every_image(tmp_path, ModelInput(9))
    assert {row.numpy().tobytes() for row in found} == {channels_first(each) for each in made.values()}
    with pytest.raises(DatasetError, match=r"deeper: expected a folder of image files, found none \(\.jpg, \.jpeg, "):
        every_image(tmp_path / "deeper", ModelInput(9))


def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, [f"a/{number}.png" for number in range(8)])
    first = load(f"imagefolder:{tmp_path}", "train", share=0.01).stored

    def never(job: object) -> None:
        raise AssertionError(job)

    monkeypatch.setattr(stored, "_decoded", never)
    assert torch.equal(load(f"imagefolder:{tmp_path}", "train", share=0.01).stored, first)
    os.utime(tmp_path / "a/1.png", (1, 1))
    with pytest.raises(AssertionError):
        load(f"imagefolder:{tmp_path}", "train", share=0.01)


def test_an_interrupted_decoding_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "photos", [f"a/{number}.png" for number in range(8)])
    monkeypatch.setenv(stored.VARIABLE, str(tmp_path / "maps"))

    def interrupted(job: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stored, "_decoded", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(f"imagefolder:{tmp_path}/photos", "train")
    assert not list((tmp_path / "maps").iterdir())
    assert len(load(f"imagefolder:{tmp_path}/photos", "train", share=0.01)) == 8


def test_a_map_is_private_and_its_pages_are_handed_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, [f"a/{number}.png" for number in range(8)])
    images = load(f"imagefolder:{tmp_path}", "train", share=0.01)
    before = images.stored.clone()
    monkeypatch.setattr(maps, "RESIDENT", 1)
    taken = stored.take(images.stored, torch.tensor([3, 1]))
    torch.testing.assert_close(taken, unit(before[[3, 1]]))
    assert torch.equal(images.stored, before)
    images.stored[0] = 0
    assert torch.equal(load(f"imagefolder:{tmp_path}", "train", share=0.01).stored, before)


def test_labels_are_the_columns_of_the_model(tmp_path: Path) -> None:
    written(tmp_path / "train", ["cat/1.png", "dog/1.png", "dog/2.png"])
    data = Data(f"imagefolder:{tmp_path}", input=ModelInput(9), classes=("dog", "bird", "cat"))
    images = data.load("train")
    assert images.classes == ("dog", "bird", "cat")
    assert images.labels is not None
    assert sorted(images.labels.tolist()) == [0, 0, 2]
    with pytest.raises(DatasetError, match="cat: no class of the model's, dog, bird"):
        Data(f"imagefolder:{tmp_path}", input=ModelInput(9), classes=("dog", "bird")).load("train")


def test_bytes_become_pixels_exactly(tmp_path: Path) -> None:
    picture = some_bytes(9, 9, 3)
    save(tmp_path / "train/a/1.png", picture)
    assert torch.equal(load(f"imagefolder:{tmp_path}", "train").pixels, from_bytes(picture[None]))
