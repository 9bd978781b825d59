"""Which preprocessing the owner used: the known ones are tried on some of the owner's labelled pictures.

First the arithmetic (imagenet, [0,1], ...), which changes much, then the geometry (resize and crop, stretched,
letterboxed). Accuracy tells the first apart; the second it hardly does, since a wrong resize changes 5 to 9 % of labels
and accuracy by a point. Agreement with the owner's own predictions tells both, and wherever these are given it decides.

Nothing is chosen that pictures do not show. Near chance, or between two that differ in labels and not in accuracy, the
table is shown and the owner asked.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.adopt.presets import VALUES, changed, cropped
from export.graphs import ExportError
from pictures.errors import PictureError
from pictures.files import opened
from pictures.model_input import ModelInput
from pictures.picture import Picture

# pictures that are tried
TRIED = 200
# of them, those on which all is tried first
FIRST = 64
# preprocessings that are tried on all of them
FINALISTS = 3
# images handed to the model at once
BATCH = 32
# agreement with the owner's own predictions at which the preprocessing is theirs
AGREEMENT = 0.99
# two preprocessings with so few labels that differ are the same, as far as these pictures go
SAME = 0.01
# one-sided: how sure a difference must be
DOUBT = 0.05

Labels = NDArray[np.int64]
NONE: Labels = np.empty(0, np.int64)
Raw = Callable[[NDArray[np.float32]], Labels]
"""images (N,C,H,W) float32 after the arithmetic, in the network's colours -> labels (N,)"""


@dataclass(frozen=True)
class Pictures:
    """Some of the owner's. images: their files. labels: positions among the classes, -1 where there is none. expected:
    the owner's own predictions, or -1."""

    images: tuple[Picture, ...]
    labels: Labels
    expected: Labels


@dataclass(frozen=True)
class Tried:
    """One preprocessing on all pictures. accuracy, agreement: None where there was nothing to compare with."""

    name: str
    input: ModelInput
    labels: Labels
    accuracy: float | None
    agreement: float | None

    @property
    def score(self) -> float:
        """By what it is chosen."""
        found = self.accuracy if self.agreement is None else self.agreement
        return 0.0 if found is None else found


@dataclass(frozen=True)
class Verdict:
    """chosen: the preprocessing that the pictures show. tried: all of them, the best first. pictures: how many."""

    chosen: Tried
    tried: tuple[Tried, ...]
    pictures: int

    def table(self) -> str:
        """What was reached, a line each."""
        return table(self.tried)


def sampled(
    files: Sequence[Path],
    labels: Sequence[int] | None,
    expected: Mapping[Path, int],
    *,
    broken: float,
    wanted: ModelInput,
) -> Pictures:
    """The pictures of some files, decoded in parallel as for `wanted`; those that cannot be read are left out up to a
    share.

    expected: predictions by file. Raises ExportError.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(pool.map(partial(_kept, wanted=wanted), files))
    faults = [each for each in read if isinstance(each, str)]
    if len(faults) > max(broken * len(files), 1):
        raise ExportError(f"{len(faults)} of {len(files)} pictures cannot be read:\n  " + "\n  ".join(faults[:5]))
    good = [row for row, each in enumerate(read) if not isinstance(each, str)]
    return Pictures(
        tuple(each for each in read if not isinstance(each, str)),
        np.array([-1 if labels is None else labels[row] for row in good], np.int64),
        np.array([expected.get(files[row], -1) for row in good], np.int64),
    )


def predictions(path: Path, classes: Sequence[str], folder: Path | None) -> dict[Path, int]:
    """The owner's own, of rows `file,label`: a class by its name or its number. Raises ExportError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            rows = [row for row in csv.reader(text) if row]
    except OSError as error:
        raise ExportError(f"--expect: {path}: {error.strerror}") from error
    found = {}
    for number, row in enumerate(rows):
        if len(row) < 2:
            raise ExportError(f"--expect: {path}: row {number + 1}: expected file,label, got {','.join(row)!r}")
        name, label = row[0].strip(), row[1].strip()
        if label in classes:
            position = classes.index(label)
        elif label.isdecimal() and int(label) < len(classes):
            position = int(label)
        elif number == 0:  # a header
            continue
        else:
            raise ExportError(
                f"--expect: {path}: row {number + 1}: no class {label!r}; known: {', '.join(classes[:10])}"
            )
        places = [path.parent / name, *([folder / name] if folder else []), Path(name)]
        file = next((each for each in places if each.is_file()), None)
        if file is None:
            raise ExportError(
                f"--expect: {path}: row {number + 1}: no file {name!r} beside it or in the images' folder"
            )
        found[file.resolve()] = position
    if not found:
        raise ExportError(f"--expect: {path}: expected rows file,label, got none")
    return found


def tried(
    name: str,
    model: ModelInput,
    pictures: Pictures,
    answer: Raw,
    rows: int | None = None,
    known: Labels = NONE,
) -> Tried:
    """One preprocessing on the pictures, or on the first of them. known: what was answered for the very first."""
    chosen = pictures.images[len(known) : rows]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pixels = list(pool.map(lambda picture: picture.fitted(model.geometry), chosen))
    labels = np.concatenate([known, *(answer(arithmetic(np.stack(part), model)) for part in _parts(pixels))])
    return Tried(
        name,
        model,
        labels,
        _share(labels, pictures.labels[:rows]),
        _share(labels, pictures.expected[:rows]),
    )


def arithmetic(pixels: NDArray[np.uint8], model: ModelInput) -> NDArray[np.float32]:
    """Bytes (N,C,H,W) as the network is to see them, before layout and type; what takes bytes is given them as they
    are everywhere else, in [0,1]."""
    values = pixels.astype(np.float32) / np.float32(255)
    if model.type == "uint8":
        return values
    if model.colour == "BGR":
        values = values[:, ::-1]
    slopes, offsets = (np.array(each, np.float32).reshape(1, -1, 1, 1) for each in (model.slopes(), model.offsets()))
    return np.ascontiguousarray(values * slopes + offsets)


def trial(
    model: ModelInput, pictures: Pictures, answer: Raw, *, classes: int, usual: Mapping[str, ModelInput] | None = None
) -> Verdict:
    """Try what is known, and choose. model: the graph's input. usual: what its architecture is usually given, by name,
    which is taken unless another is surely better. Raises ExportError where pictures do not decide."""
    values = VALUES[model.channels] if model.type != "uint8" else {"unit": {}}
    fits = dict(_fits(model, pictures))
    first = next(iter(fits))
    rows = min(FIRST, len(pictures.images))
    screened: list[Tried] = []
    with tqdm(desc="preprocessings", unit="preset", delay=2) as bar:

        def one(name: str, candidate: ModelInput, some: int | None = rows, known: Labels = NONE) -> Tried:
            bar.update()
            return tried(name, candidate, pictures, answer, some, known)

        for name, fields in values.items():
            screened.append(one(f"{name}, {first}", changed(model, {**fields, **fits[first]})))
        leader = max(screened, key=lambda each: each.score)
        arithmetic_name = leader.name.split(",")[0]
        for name, fields in fits.items():
            if name != first:
                screened.append(one(f"{arithmetic_name}, {name}", replace(leader.input, **fields)))
        leader = max(screened, key=lambda each: each.score)
        if leader.agreement is not None and leader.agreement < 1:
            screened += [one(*each) for each in _modes(leader)]
        best = max(each.score for each in screened)
        # all pictures for those that are not clearly worse on the first
        close = [each for each in screened if each.score >= best - 2 * math.sqrt(0.25 / rows)]
        finalists = sorted(close, key=lambda each: -each.score)[:FINALISTS]
        whole = [one(each.name, each.input, None, each.labels) for each in finalists]
        first_choice = [one(name, each, None) for name, each in (usual or {}).items()]
    rest = [each for each in screened if each.name not in {found.name for found in whole}]
    return decided(whole, rest, pictures, classes=classes, usual=first_choice)


def decided(
    whole: Sequence[Tried], rest: Sequence[Tried], pictures: Pictures, *, classes: int, usual: Sequence[Tried] = ()
) -> Verdict:
    """The best of what was tried on all pictures. rest: given up earlier. usual: taken unless another is surely better.
    Raises ExportError."""
    order = sorted([*usual, *whole], key=lambda each: -each.score)
    chosen, ranked = order[0], (*order, *sorted(rest, key=lambda each: -each.score))
    if chosen.agreement is not None:
        if chosen.agreement < AGREEMENT:
            raise ExportError(
                f"no known preprocessing gives the owner's own predictions on {AGREEMENT:.0%} of pictures; give "
                f"--preset with the owner's:\n{table(ranked)}"
            )
        return Verdict(chosen, ranked, len(pictures.images))
    assert chosen.accuracy is not None
    check_chance(chosen, pictures, classes=classes, shown=table(ranked))
    for each in usual:
        if not surely_better(chosen, each, pictures.labels):
            return Verdict(each, ranked, len(pictures.images))
    for other in order[1:]:
        if (other.labels != chosen.labels).mean() > SAME and not surely_better(chosen, other, pictures.labels):
            raise ExportError(
                f"{chosen.name!r} and {other.name!r} differ in {(other.labels != chosen.labels).mean():.1%} of "
                f"labels and not surely in accuracy; say which is the owner's, {flags(chosen)} or {flags(other)}, or "
                f"give the owner's own predictions, --expect FILE.csv:\n{table(ranked)}"
            )
    return Verdict(chosen, ranked, len(pictures.images))


def flags(each: Tried) -> str:
    """The command line that states a preprocessing."""
    words = [f"--preset {each.name.split(',')[0]}", f"--fit {each.input.fit}"]
    if each.input.fit == "crop" or each.input.resize:
        words.append(f"--resize {each.input.resize}")
    return f"`{' '.join(words)}`"


def check_chance(chosen: Tried, pictures: Pictures, *, classes: int, shown: str) -> None:
    """Raise ExportError where accuracy is no better than always naming the commonest class."""
    known = pictures.labels[pictures.labels >= 0]
    commonest = float(np.bincount(known).max() / len(known))
    chance = max(commonest, 1 / classes)
    assert chosen.accuracy is not None
    spread = math.sqrt(chance * (1 - chance) / len(known))
    if chosen.accuracy <= chance + 2 * spread:
        swapped = ""
        if classes == 2 and 1 - chosen.accuracy > chance + 2 * spread:
            swapped = "; the two classes may be the other way round: give --classes in the order of the model's columns"
        raise ExportError(
            f"the best accuracy, {chosen.accuracy:.1%} of {len(known)} pictures, is near chance "
            f"({chance:.1%}){swapped}; the preprocessing is none of the known ones (give --preset), the classes are "
            "in another order than the folders (give --classes FILE), or these are not the model's "
            f"pictures:\n{shown}"
        )


def surely_better(one: Tried, other: Tried, labels: Labels) -> bool:
    """Whether more of the pictures on which only one of the two is right are the first's: a one-sided sign test."""
    known = labels >= 0
    right, wrong = one.labels[known] == labels[known], other.labels[known] == labels[known]
    wins, losses = int((right & ~wrong).sum()), int((~right & wrong).sum())
    n = wins + losses
    if n == 0:
        return False
    tail = sum(math.comb(n, k) for k in range(wins, n + 1)) / 2**n
    return bool(tail < DOUBT)


def table(rows: Iterable[Tried]) -> str:
    """Names, accuracy and agreement, a line each."""
    lines = [f"  {'preprocessing':<34} {'accuracy':>8} {'agreement':>9} {'pictures':>8}"]
    for each in rows:
        accuracy, agreement = ("-" if found is None else f"{found:.1%}" for found in (each.accuracy, each.agreement))
        lines.append(f"  {each.name:<34} {accuracy:>8} {agreement:>9} {len(each.labels):>8}")
    return "\n".join(lines)


def _fits(model: ModelInput, pictures: Pictures) -> Mapping[str, dict[str, Any]]:
    """Geometry, by name. Pictures that all have the model's size are taken as they are: they were made so, and a slight
    resize changes too few labels for accuracy to tell. The owner's own predictions do tell."""
    as_they_are = {"crop": {"fit": "crop", "resize": 0}}
    sizes = {picture.size for picture in pictures.images}
    if sizes == {(model.height, model.width)} and not (pictures.expected >= 0).any():
        return as_they_are
    resized = cropped(model)
    return {
        **as_they_are,
        f"resize {resized['resize']} and crop": resized,
        "stretch": {"fit": "stretch", "resize": 0},
        f"stretch to {resized['resize']} and crop": {"fit": "stretch", "resize": resized["resize"]},
        "letterbox": {"fit": "letterbox", "resize": 0, "fill": 0},
    }


def _modes(best: Tried) -> list[tuple[str, ModelInput]]:
    """The other ways to resize, by name: only the owner's own predictions tell them apart."""
    return [
        (f"{best.name}, {library} {mode}", replace(best.input, library=library, interpolation=mode))
        for library, modes in {"pillow": ("bicubic", "nearest", "lanczos"), "opencv": ("linear", "area")}.items()
        for mode in modes
    ]


def _share(labels: Labels, wanted: Labels) -> float | None:
    known = wanted >= 0
    return float((labels[known] == wanted[known]).mean()) if known.any() else None


def _parts(pixels: Sequence[NDArray[np.uint8]]) -> Iterable[Sequence[NDArray[np.uint8]]]:
    return (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))


def _kept(file: Path, *, wanted: ModelInput) -> Picture | str:
    try:
        picture = opened(file)
        picture.fitted(wanted.geometry)
        return picture
    except PictureError as error:
        return f"{file}: {error}"
