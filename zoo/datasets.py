"""The registry of data sets, and the one way to load them: images (N,C,H,W) in [0,1].

Nothing here normalises: mean and standard deviation belong to a network's first layer (zoo/models.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pictures.geometry import Geometry
from pictures.model_input import ModelInput
from zoo.cifar_pickles import CifarPickles
from zoo.embedded import crops, digits
from zoo.files import DebianPackage, Files
from zoo.fonts import characters
from zoo.idx import Idx
from zoo.imagefolder import BROKEN, SHARE, imagefolder
from zoo.images import DatasetError, Images, Size, convert, from_bytes, sides
from zoo.names import CIFAR10, CIFAR100, DIGITS, FASHION, KUZUSHIJI, LETTERS

__all__ = ["DATASETS", "Data", "Dataset", "DatasetError", "Images", "load"]

SPLITS = ("train", "test")
# every second image: whoever defends and whoever attacks share none of a split that is all a machine has
HALVES = {"even": 0, "odd": 1}
# float32 bytes of a built-in set in another geometry, above which it is kept as bytes
LARGE = 2**29
PART_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What there is to know of one entry of the registry.

    channels, size: geometry as stored; size None: as the user's images are.
    classes: class names, a label being a position in them; empty without labels, and for the user's set.
    source, licence, about: who made it, its terms, and one line on what it holds.
    embedded: makes the pixels and labels of a split without any file.
    files: where the files of the others lie. Neither: the user's folder of images.
    """

    name: str
    channels: int
    size: int | None
    classes: tuple[str, ...]
    source: str
    licence: str
    about: str
    embedded: Callable[[str], tuple[torch.Tensor, torch.Tensor | None]] | None = None
    files: Files | None = None


_ENTRIES = (
    Dataset(
        name="digits",
        channels=1,
        size=28,
        classes=DIGITS,
        source="E. Alpaydin, C. Kaynak, UCI Optical Recognition of Handwritten Digits, 1998, in scikit-learn",
        licence="CC BY 4.0",
        about="1,297 + 500 handwritten digits of 8x8 pixels, resized",
        embedded=digits,
    ),
    Dataset(
        name="china",
        channels=1,
        size=28,
        classes=(),
        source="photograph by danielbuechele, in scikit-learn",
        licence="CC BY 2.0",
        about="6,000 + 1,000 gray crops of a pagoda: a defender's auxiliary set",
        embedded=partial(crops, "china.jpg"),
    ),
    Dataset(
        name="flower",
        channels=1,
        size=28,
        classes=(),
        source="photograph by vultilion, in scikit-learn",
        licence="CC BY 2.0",
        about="6,000 + 1,000 gray crops of a dahlia: a thief's surrogate set",
        embedded=partial(crops, "flower.jpg"),
    ),
    Dataset(
        name="font-digits",
        channels=1,
        size=28,
        classes=DIGITS,
        source="DejaVu, STIX and BaKoMa fonts, in matplotlib",
        licence="those of the fonts, all free",
        about="6,000 + 1,000 digits drawn from fonts: a thief's images of the task's kind",
        embedded=partial(characters, "".join(DIGITS)),
    ),
    Dataset(
        name="font-letters",
        channels=1,
        size=28,
        classes=LETTERS,
        source="DejaVu, STIX and BaKoMa fonts, in matplotlib",
        licence="those of the fonts, all free",
        about="6,000 + 1,000 Latin letters, large and small, drawn from fonts",
        embedded=partial(characters, "".join(LETTERS)),
    ),
    Dataset(
        name="mnist",
        channels=1,
        size=28,
        classes=DIGITS,
        source="Y. LeCun, C. Cortes, C. J. C. Burges, after NIST, 1998",
        licence="CC BY-SA 3.0",
        about="60,000 + 10,000 handwritten digits",
        files=Files(Idx("MNIST/raw"), "MNIST"),
    ),
    Dataset(
        name="fashionmnist",
        channels=1,
        size=28,
        classes=FASHION,
        source="H. Xiao, K. Rasul, R. Vollgraf, Zalando, 2017",
        licence="MIT",
        about="60,000 + 10,000 articles of clothing",
        files=Files(
            Idx("FashionMNIST/raw"),
            "FashionMNIST",
            DebianPackage("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")),
        ),
    ),
    Dataset(
        name="kmnist",
        channels=1,
        size=28,
        classes=KUZUSHIJI,
        source="T. Clanuwat et al., 2018, after the Kuzushiji Dataset of NIJL, doi:10.20676/00000341",
        licence="CC BY-SA 4.0",
        about="60,000 + 10,000 cursive Japanese characters",
        files=Files(Idx("KMNIST/raw"), "KMNIST"),
    ),
    Dataset(
        name="cifar10",
        channels=3,
        size=32,
        classes=CIFAR10,
        source="A. Krizhevsky, V. Nair, G. Hinton, 2009",
        licence="none stated; cite Learning Multiple Layers of Features from Tiny Images",
        about="50,000 + 10,000 photographs of animals and vehicles",
        files=Files(
            CifarPickles(
                "cifar-10-batches-py",
                train=tuple(f"data_batch_{number}" for number in range(1, 6)),
                test=("test_batch",),
                labels="labels",
            ),
            "CIFAR10",
        ),
    ),
    Dataset(
        name="cifar100",
        channels=3,
        size=32,
        classes=CIFAR100,
        source="A. Krizhevsky, V. Nair, G. Hinton, 2009",
        licence="none stated; cite Learning Multiple Layers of Features from Tiny Images",
        about="50,000 + 10,000 photographs, 100 fine classes",
        files=Files(
            CifarPickles("cifar-100-python", train=("train",), test=("test",), labels="fine_labels"),
            "CIFAR100",
        ),
    ),
    Dataset(
        name="imagefolder",
        channels=3,
        size=None,
        classes=(),
        source="the user's own",
        licence="the user's own",
        about="imagefolder:PATH holds train/ and test/ of class folders, class folders, or images; or is a .csv file",
    ),
)
DATASETS: Mapping[str, Dataset] = {dataset.name: dataset for dataset in _ENTRIES}


def load(
    spec: str,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    size: Size | None = None,
    channels: int | None = None,
    wanted: ModelInput | None = None,
    share: float = SHARE,
    broken: float = BROKEN,
) -> Images:
    """One split of one data set: in memory as float32, the user's as bytes in a memory map.

    spec: a name of the registry; "NAME:SPLIT" pins a split and overrides the argument (auxiliary and
        surrogate sets use whichever split a machine has); "NAME:SPLIT/even" and "/odd" are its halves, without an
        image in common; "imagefolder:PATH" is the user's set.
    split: "train" or "test".
    root: a folder searched before all others (zoo/files.py); a set found nowhere is downloaded if there is a
        network.
    size, channels: another geometry than the stored one: bilinear with antialiasing, RGB to gray and back.
    wanted: the geometry as a model's owner has it, in their place. share, broken: of the user's set
        (zoo/imagefolder.py).
    Bytes become byte / 255 exactly. Nothing here is random. Raises DatasetError.
    """
    if wanted is not None:
        size, channels = (wanted.height, wanted.width), wanted.channels
    name, _, suffix = spec.partition(":")
    if name not in DATASETS:
        raise DatasetError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    own = dataset.embedded is None and dataset.files is None
    pinned, _, half = ("", "", "") if own else suffix.partition("/")
    split = pinned or split
    if split not in SPLITS:
        raise DatasetError(f"{spec}: unknown split {split!r}; expected train or test")
    if half and half not in HALVES:
        raise DatasetError(f"{spec}: unknown half {half!r}; expected even or odd")
    if own:
        if not suffix:
            raise DatasetError(f"{name}: expected a folder, as in {name}:PATH")
        geometry = {"size": size, "channels": channels, "wanted": wanted}
        return imagefolder(Path(suffix), split, **geometry, share=share, broken=broken)  # type: ignore[arg-type]
    pixels, labels = _stored(dataset, split, root)
    if half:
        pixels = pixels[HALVES[half] :: 2]
        labels = None if labels is None else labels[HALVES[half] :: 2]
    return Images(name, _converted(pixels, size, channels), labels, dataset.classes)


@dataclass(frozen=True)
class Data:
    """[dataset] of a recipe: what the victim classifies, and at which geometry everything of the recipe works.

    name: as `load` spells it. rows: train on so many images only (0: all). size, channels: another geometry than the
    stored one (0: as stored), for recipes whose networks want 32 x 32 or colour; size may be height and width. input:
    [model.input] of the recipe, in their place. classes: of [model], in the order of its columns, by which the set's
    labels are numbered; (): the set's own. split: the share of the user's images that is held out for tests where
    they are not split. broken: the share of the user's files that may be broken.
    """

    name: str
    rows: int = 0
    size: int | tuple[int, int] = 0
    channels: int = 0
    input: ModelInput | None = None
    classes: tuple[str, ...] = ()
    split: float = SHARE
    broken: float = BROKEN

    def __post_init__(self) -> None:
        if self.input is not None and (self.size or self.channels):
            raise ValueError("size, channels: expected none, [model.input] gives the geometry, got some")
        if not 0 < self.split < 1:
            raise ValueError(f"split: expected a share above 0 and below 1, got {self.split}")
        if not 0 <= self.broken < 1:
            raise ValueError(f"broken: expected a share from 0 to below 1, got {self.broken}")

    def load(self, split: str, root: str | os.PathLike[str] | None = None) -> Images:
        """One split, whole: `rows` is for who trains. Raises DatasetError."""
        return self._numbered(self._loaded(split, root))

    def geometry(self, shape: tuple[int, int, int]) -> Geometry:
        """What a server makes of a picture before networks of this shape (C,H,W) see it: what was made of the user's;
        of a built-in set's, whose images have one size, nothing."""
        if self.input is not None:
            return self.input.geometry
        channels, height, width = shape
        if self.name.partition(":")[0] == "imagefolder":
            return ModelInput((height, width), channels).geometry
        return Geometry(channels, height, width)

    def _loaded(self, split: str, root: str | os.PathLike[str] | None) -> Images:
        return load(
            self.name,
            split,
            root=root,
            size=self.size or None,
            channels=self.channels or None,
            wanted=self.input,
            share=self.split,
            broken=self.broken,
        )

    def _numbered(self, images: Images) -> Images:
        """The images with labels that are positions in `classes`. Raises DatasetError for a class that is none of
        them."""
        if images.labels is None or not self.classes or images.classes == self.classes:
            return images
        strangers = [name for name in images.classes if name not in self.classes]
        if strangers:
            some = ", ".join(strangers[:5])
            raise DatasetError(f"{self.name}: {some}: no class of the model's, {', '.join(self.classes[:10])}")
        columns = torch.tensor([self.classes.index(name) for name in images.classes])
        return replace(images, labels=columns[images.labels], classes=self.classes)


def _converted(pixels: torch.Tensor, size: Size | None, channels: int | None) -> torch.Tensor:
    """In another geometry; as bytes where that would fill much memory, made in parts."""
    channels_, (height, width) = channels or pixels.shape[1], sides(size) if size is not None else pixels.shape[2:]
    large = 4 * len(pixels) * channels_ * height * width > LARGE and pixels.shape[1:] != (channels_, height, width)
    if not large:
        return convert(pixels, size=size, channels=channels)
    # gray as RGB is one channel, shown three times and held once
    held = min(channels_, pixels.shape[1])
    whole = torch.empty(len(pixels), held, height, width, dtype=torch.uint8)
    for part, made in zip(pixels.split(PART_ROWS), whole.split(PART_ROWS), strict=True):
        made.copy_(torch.round(convert(part, size=size, channels=held) * 255))
    return whole.expand(-1, channels_, -1, -1)


def _stored(
    dataset: Dataset, split: str, root: str | os.PathLike[str] | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pixels and labels in the stored geometry, checked against the registry where they come from files."""
    if dataset.embedded is not None:
        return dataset.embedded(split)
    assert dataset.files is not None
    images, labels = dataset.files.read(dataset.name, split, root)
    expected = (dataset.size, dataset.size, dataset.channels)
    if images.shape[1:] != expected:
        raise DatasetError(f"{dataset.name}: expected {split} images {expected} (H,W,C), got {images.shape[1:]}")
    if not np.all((labels >= 0) & (labels < len(dataset.classes))):
        raise DatasetError(
            f"{dataset.name}: expected {split} labels 0 to {len(dataset.classes) - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    return from_bytes(images), torch.from_numpy(labels)
