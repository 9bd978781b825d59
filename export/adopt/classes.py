"""Which class each column of an adopted model is."""

from __future__ import annotations

from collections.abc import Sequence

from export.adopt.asked import Asked
from export.adopt.sources import Source
from export.graphs import ExportError
from zoo.folders import Listing


def classes_of(asked: Asked, source: Source, columns: int, listing: Listing | None) -> tuple[str, ...]:
    """Names in the order of the columns. Raises ExportError where their number is another."""
    count = 2 if columns == 1 else columns
    for names, where in ((asked.classes, "--classes"), (source.names, "index_to_name.json")):
        if names:
            if len(names) != count:
                raise ExportError(f"{where}: expected {count} names, one a column, got {len(names)}: {few(names)}")
            return names
    folders = () if listing is None else listing.classes
    if folders and len(folders) != count:
        raise ExportError(
            f"{asked.file}: {count} classes, but {asked.images} has {len(folders)}: {few(folders)}; give --classes "
            "FILE, a name a line in the order of the model's columns, where the folders are some of them"
        )
    return folders or tuple(map(str, range(count)))


def column(label: int, folders: Sequence[str], classes: Sequence[str]) -> int:
    """The model's column of a folder. Raises ExportError for a folder that is none of its classes."""
    if label < 0:
        return -1
    if folders[label] not in classes:
        raise ExportError(f"--classes: no class {folders[label]!r}, which is a folder of images; known: {few(classes)}")
    return classes.index(folders[label])


def few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
