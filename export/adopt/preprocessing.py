"""What an owner does to pictures: stated, or what the owner's own pictures show; and how far that is proven."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from export.adopt.asked import Asked
from export.adopt.classes import column
from export.adopt.opened import Opened
from export.adopt.presets import preset
from export.adopt.trial import (
    AGREEMENT,
    TRIED,
    Pictures,
    Tried,
    check_chance,
    predictions,
    sampled,
    table,
    trial,
    tried,
)
from export.graphs import ExportError
from pictures.model_input import ModelInput
from zoo.folders import Listing
from zoo.imagefolder import BROKEN, some

# which pictures are read at all: it says nothing of what is done to them
READING = ("background", "megapixels")
UNPROVEN = "nothing was proven of its preprocessing: no labelled pictures and no predictions were given"


def preprocessing(
    asked: Asked, opened: Opened, listing: Listing | None, classes: tuple[str, ...]
) -> tuple[ModelInput, str, str]:
    """What the owner does to pictures, how that is known, and the table of what was tried."""
    name = asked.preset or (asked.architecture if asked.architecture.startswith("timm:") else "")
    try:
        taken = replace(opened.input, **{each: asked.fields[each] for each in READING if each in asked.fields})
        stated = replace(preset(name, taken) if name else taken, **asked.fields)
    except ValueError as error:
        raise ExportError(f"preprocessing: {error}") from error
    given = bool(asked.preset or asked.fields.keys() - set(READING))
    pictures = pictures_of(asked, listing, classes, stated)
    if pictures is None:
        return stated, UNPROVEN + (f"; it is taken for {name or 'unit'}" if not given else ""), ""
    count = len(pictures.images)
    if given or (name and pictures.labels.max() < 0 > pictures.expected.max()):
        chosen = tried(asked.preset or "as stated", stated, pictures, opened.labels)
        check(chosen, pictures, len(classes))
        return stated, _proof(chosen, count, "as stated"), table([chosen])
    if pictures.labels.max() < 0 and pictures.expected.max() < 0:
        return stated, UNPROVEN, ""
    usual = {name: stated} if name else {}
    verdict = trial(taken, pictures, opened.labels, classes=len(classes), usual=usual)
    return verdict.chosen.input, _proof(verdict.chosen, count, verdict.chosen.name), verdict.table()


def check(chosen: Tried, pictures: Pictures, classes: int) -> None:
    if chosen.agreement is not None and chosen.agreement < AGREEMENT:
        raise ExportError(
            f"it agrees with the owner's own predictions on {chosen.agreement:.1%} of pictures, expected "
            f"{AGREEMENT:.0%}; the preprocessing that was stated is another:\n{table([chosen])}"
        )
    if chosen.agreement is None and chosen.accuracy is not None:
        check_chance(chosen, pictures, classes=classes, shown=table([chosen]))


def _proof(chosen: Tried, count: int, name: str) -> str:
    parts = []
    if chosen.agreement is not None:
        parts.append(f"{chosen.agreement:.1%} of labels are the owner's own")
    if chosen.accuracy is not None:
        parts.append(f"accuracy {chosen.accuracy:.1%}")
    return f"preprocessing ({name}): {', '.join(parts)} on {count} pictures" if parts else UNPROVEN


def pictures_of(asked: Asked, listing: Listing | None, classes: tuple[str, ...], wanted: ModelInput) -> Pictures | None:
    """Some of the owner's pictures, those with predictions first, as far as they can be read for `wanted`."""
    folder = asked.images if asked.images is None or asked.images.is_dir() else asked.images.parent
    expected = {} if asked.expect is None else predictions(asked.expect, classes, folder)
    if listing is None and not expected:
        return None
    files: list[Path] = []
    labels: list[int] | None = None
    if expected:
        files = list(expected)[:: max(1, len(expected) // TRIED)][:TRIED]
        known = (
            {} if listing is None or listing.labels is None else dict(zip(listing.files, listing.labels, strict=True))
        )
        by_path = {file.resolve(): label for file, label in known.items()}
        if by_path and listing is not None:
            labels = [column(by_path.get(file, -1), listing.classes, classes) for file in files]
    elif listing is not None:
        chosen = some(listing, TRIED)
        files = [file.resolve() for file in chosen.files]
        if chosen.labels is not None:
            labels = [column(label, listing.classes, classes) for label in chosen.labels]
    return sampled(files, labels, expected, broken=BROKEN, wanted=wanted)
