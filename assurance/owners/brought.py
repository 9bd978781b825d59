"""What an owner brings: a model's file, pictures, and what the owner's own pipeline says of each."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Brought:
    """file: the model's. words: what the owner says of it, as options of export.adopt. images: the pictures' folder.
    expected: the owner's own label of each picture, a class by its name. classes: names in the order of the model's
    columns; (): those of the pictures' folders."""

    file: Path
    words: tuple[str, ...]
    images: Path
    expected: Mapping[Path, str]
    classes: tuple[str, ...] = ()

    def told(self, folder: Path) -> list[str]:
        """All options, with the files that they name in `folder`."""
        expect = folder / f"{self.file.name}.csv"
        with expect.open("w", newline="") as file:
            rows = ((str(path.relative_to(self.images)), name) for path, name in self.expected.items())
            csv.writer(file).writerows(rows)
        words = [str(self.file), *self.words, "--images", str(self.images), "--expect", str(expect)]
        if self.classes:
            names = folder / f"{self.file.name}.classes.txt"
            names.write_text("\n".join(self.classes) + "\n")
            words += ["--classes", str(names)]
        return words


@dataclass(frozen=True)
class Form:
    """A form in which owners have a model. source: what it is, with its version. bring: makes it in a folder of its
    own. refused: words of the refusal that it must meet; "": it must be served."""

    name: str
    source: str
    bring: Callable[[Path], Brought]
    refused: str = ""
