"""What of the user's folder or table is an image, and of which class: what is left out is counted and said.

    train/CLASS/*  and  test/CLASS/* (or val/, valid/, validation/)     split by its owner
    CLASS/*                                                            split here
    *                                                                  images without labels, split here
    TABLE.csv                                                          rows `file,label`, or `file` alone; split here

Folders and files of file managers, notebooks and archive programs are neither classes nor images. A class is all that
lies below its folder. Links are followed, in a circle once.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pictures.formats import ENDINGS
from zoo.images import DatasetError

TRAIN = "train"
HELD_OUT = ("test", "val", "valid", "validation")
# of file managers and archive programs, which do not begin with a dot
LEAVINGS = ("@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "lost+found")
HEADER = ("file", "filename", "path", "image")


@dataclass(frozen=True)
class Listing:
    """files, in the order of their names; labels of each, positions in `classes`, or None; what was left out, and how
    much, by reason. split_here: whether the held-out images are yet to be drawn from them."""

    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]
    split_here: bool
    left_out: Counter[str] = field(default_factory=Counter)


def listed(path: Path, split: str) -> Listing:
    """The images of a split, "train" or "test", of a folder or a CSV file. Raises DatasetError."""
    if path.suffix.lower() == ".csv":
        return _table(path)
    if not path.is_dir():
        raise DatasetError(f"{path}: no such folder; expected class folders, train/ and test/ of them, or a .csv file")
    path = _inner(path)
    if (path / TRAIN).is_dir():
        return _split_folders(path, split)
    left_out: Counter[str] = Counter()
    classes = tuple(_folders(path, left_out))
    if classes:
        loose = sum(1 for _ in _images(path, left_out, deep=False))
        if loose:
            left_out["next to the class folders"] += loose
        return _labelled(path, classes, left_out, split_here=True)
    files = tuple(_images(path, left_out))
    if not files:
        raise DatasetError(f"{path}: expected images or folders of images, found none ({', '.join(ENDINGS)})")
    return Listing(files, None, (), True, left_out)


def below(path: Path) -> list[Path]:
    """Every image file below a folder, whatever folder it is in. Raises DatasetError where there is none."""
    files = list(_images(path, Counter())) if path.is_dir() else []
    if not files:
        raise DatasetError(f"{path}: expected a folder of image files, found none ({', '.join(ENDINGS)})")
    return files


def _split_folders(path: Path, split: str) -> Listing:
    left_out: Counter[str] = Counter()
    classes = tuple(_folders(path / TRAIN, left_out))
    if not classes:
        raise DatasetError(f"{path / TRAIN}: expected one folder of images a class in it, found none")
    if split == TRAIN:
        return _labelled(path / TRAIN, classes, left_out, split_here=False)
    held_out = [name for name in HELD_OUT if (path / name).is_dir()]
    if not held_out:
        raise DatasetError(f"{path}: expected {', '.join(f'{name}/' for name in HELD_OUT)} next to train/, found none")
    folder = path / held_out[0]
    left_out = Counter({f"in {name}/, which is not looked at": 1 for name in held_out[1:]})
    strangers = [name for name in _folders(folder, left_out) if name not in classes]
    if strangers:
        raise DatasetError(f"{folder}: {', '.join(strangers)}: no such classes in {path / TRAIN}")
    return _labelled(folder, classes, left_out, split_here=False, empty=True)


def _labelled(
    path: Path, classes: Sequence[str], left_out: Counter[str], *, split_here: bool, empty: bool = False
) -> Listing:
    """All images of the classes' folders. empty: a class may have none."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = list(_images(path / name, left_out)) if (path / name).is_dir() else []
        if not found and not empty:
            raise DatasetError(f"{path / name}: expected images of the class {name!r}, found none; remove the folder")
        files += found
        labels += [label] * len(found)
    if not files:
        raise DatasetError(f"{path}: no image in the folders of {len(classes)} classes")
    return Listing(tuple(files), tuple(labels), tuple(classes), split_here, left_out)


def _table(path: Path) -> Listing:
    """Rows `file,label`; files are relative to the table's folder."""
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; expected rows file,label")
    with path.open(newline="", encoding="utf-8-sig") as text:
        rows = [row for row in csv.reader(text) if row]
    if rows and rows[0][0].strip().lower() in HEADER:
        rows = rows[1:]
    if not rows or {len(row) for row in rows} not in ({1}, {2}):
        raise DatasetError(f"{path}: expected rows of a file and a label, or of a file alone, got other ones")
    files = tuple(path.parent / row[0].strip() for row in rows)
    for file in files:
        if not file.is_file():
            raise DatasetError(f"{path}: {file}: no such file")
    if len(rows[0]) == 1:
        return Listing(files, None, (), True)
    names = [row[1].strip() for row in rows]
    whole = all(name.isdecimal() for name in names)
    classes = tuple(sorted(set(names), key=int if whole else str))
    position = {name: label for label, name in enumerate(classes)}
    return Listing(files, tuple(position[name] for name in names), classes, True)


def _inner(path: Path) -> Path:
    """The folder itself, or the one of its own name that some archive programs put into it."""
    entries = [entry for entry in path.iterdir() if not _is_leaving(entry.name)]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() and entries[0].name == path.name else path


def _folders(path: Path, left_out: Counter[str]) -> list[str]:
    """The names of class folders, sorted."""
    found = []
    for entry in sorted(path.iterdir()):
        if entry.is_dir():
            if _is_leaving(entry.name):
                left_out["hidden folder, or of a file manager"] += 1
            else:
                found.append(entry.name)
    return found


def _images(path: Path, left_out: Counter[str], *, deep: bool = True) -> Iterator[Path]:
    """The image files of a folder, and of those below, sorted."""
    seen: set[Path] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        kept = sorted(name for name in folders if not _is_leaving(name)) if deep else []
        folders[:] = kept
        for name in sorted(names):
            if _is_leaving(name):
                left_out["hidden file, or of a file manager"] += 1
            elif Path(name).suffix.lower() in ENDINGS:
                yield Path(folder) / name
            else:
                left_out[f"not an image by its ending ({Path(name).suffix or 'none'})"] += 1


def _is_leaving(name: str) -> bool:
    return name.startswith((".", "._")) or name in LEAVINGS
