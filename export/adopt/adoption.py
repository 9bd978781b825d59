"""From the owner's file to a victim: read, understood, wrapped, checked, and only then written.

Whatever is wrong with a file is said here, in seconds, and no exception of a runtime passes. The same steps make the
victim again from a recipe's [model] (`remade`), so that what a recipe says is always what is served.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.adopt import sources
from export.adopt.asked import Asked
from export.adopt.classes import classes_of
from export.adopt.model import Model
from export.adopt.opened import Opened, labels_of, of_graph, of_network, plain
from export.adopt.preprocessing import UNPROVEN, check, pictures_of, preprocessing
from export.adopt.probing import running
from export.adopt.sources import Source
from export.adopt.trial import tried
from export.adopt.victim import raw_of, victim_of
from export.graphs import ExportError
from pictures.model_input import ModelInput
from zoo.folders import listed


@dataclass(frozen=True)
class Adopted:
    """model: [model] of a recipe. victim: what writes runs/RECIPE/victim.*, called with the folder. said: what was
    found and how, a line each. shown: the table of preprocessings, "" where none was tried."""

    model: Model
    victim: Callable[[Path], Path]
    said: list[str]
    shown: str = ""


def adopted(asked: Asked) -> Adopted:
    """Find out what the owner's file is. Raises ExportError, DatasetError."""
    source = sources.opened(asked.file, architecture=asked.architecture, size=asked.size)
    said = [f"{asked.file}: {source.kind}", *source.said]
    listing = None if asked.images is None else listed(asked.images, "test")
    with sources.naming(asked.file):
        opened = of_network(source) if source.network is not None else of_graph(source, asked)
    said += opened.said
    classes = classes_of(asked, source, opened.columns, listing)
    # what cannot be served is refused before it is asked about hundreds of pictures
    said += victim_of(_model(asked, opened, classes, opened.input, UNPROVEN), source)[1]
    found, proven, shown = preprocessing(asked, opened, listing, classes)
    model = _model(asked, opened, classes, found, proven)
    victim, _ = victim_of(model, source, rows=False)
    return Adopted(model, victim, [*said, proven], shown)


def _model(asked: Asked, opened: Opened, classes: tuple[str, ...], found: ModelInput, proven: str) -> Model:
    """[model] with this preprocessing. Raises ExportError."""
    try:
        return Model(
            file=str(asked.file.resolve()),
            classes=classes,
            input=found,
            gives=opened.gives,
            output=opened.output,
            batch=opened.batch,
            architecture=asked.architecture,
            expect="" if asked.expect is None else str(asked.expect.resolve()),
            proven=proven,
        )
    except ValueError as error:
        raise ExportError(f"{asked.file}: {error}") from error


def remade(model: Model, images: Path | None = None) -> Adopted:
    """The victim as a recipe's [model] has it, checked again. Raises ExportError."""
    size = (model.input.height, model.input.width)
    source = sources.opened(Path(model.file), architecture=model.architecture, size=size)
    if (source.network is None) == bool(model.architecture):
        raise ExportError(f"{model.file}: expected {'weights' if model.architecture else 'a graph'}, got {source.kind}")
    victim, remarks = victim_of(model, source)
    if model.expect:
        _agrees(model, source, images)
    return Adopted(model, victim, remarks)


def _agrees(model: Model, source: Source, images: Path | None) -> None:
    """Raise ExportError unless the adopted model gives the owner's own predictions."""
    asked = Asked(
        Path(model.file),
        images,
        architecture=model.architecture,
        size=(model.input.height, model.input.width),
        layout=model.input.layout,
        output="",
        gives=model.gives,
        classes=model.classes,
        expect=Path(model.expect),
    )
    pictures = pictures_of(asked, None, model.classes, model.input)
    assert pictures is not None
    if source.network is not None:
        labels = of_network(source).labels
    else:
        assert source.proto is not None
        answer = running(raw_of(model, source.proto, plain(model.input)))

        def labels(given: NDArray[np.float32]) -> NDArray[np.int64]:
            return labels_of(answer(given), model.gives)

    check(tried("the recipe's", model.input, pictures, labels), pictures, len(model.classes))


def say(lines: Sequence[str]) -> None:
    """What was found, to stderr."""
    for line in lines:
        print(f"  {line}", file=sys.stderr)
