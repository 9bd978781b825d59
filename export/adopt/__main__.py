"""Adopt a classifier that was trained elsewhere, or make its victim again.

    python -m export.adopt FILE [--images DIR] [--name mine]
    python -m export.adopt --recipe RECIPE

The first finds out what FILE takes and gives, writes recipes/NAME.toml, and runs/NAME/victim.onnx (victim.safetensors
where its weights are known). The second makes the victim from a recipe's [model]. Nothing is trained.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Any

import recipes
from export.adopt import sources, written
from export.adopt.adoption import adopted, remade, say
from export.adopt.asked import Asked
from export.adopt.model import GIVES, Model
from export.graphs import ExportError
from pictures.model_input import FITS, INTERPOLATIONS, LAYOUTS
from zoo.datasets import DatasetError

NAME = re.compile(r"[a-z0-9][a-z0-9_]*(-[a-z0-9_]+)*")


def main(words: list[str] | None = None) -> None:
    options = parse(words)
    started = time.monotonic()
    try:
        if options.recipe:
            path, lines = again(options.recipe, options.runs)
        else:
            path, lines = first(options)
    except (ExportError, DatasetError, recipes.RecipeError) as error:
        sys.exit(f"export.adopt: {error}")
    say([*lines, f"{time.monotonic() - started:.0f} s"])
    print(path)


def first(options: argparse.Namespace) -> tuple[Path, list[str]]:
    """Adopt a file: its recipe and its victim. Raises ExportError, DatasetError, RecipeError."""
    if not NAME.fullmatch(options.name):
        raise ExportError(f"--name: expected lower-case letters, digits, - and _, got {options.name!r}")
    asked = Asked(
        file=options.file,
        images=options.images,
        architecture=options.architecture,
        size=options.size,
        layout=options.layout,
        output=options.output,
        gives=options.gives,
        preset=options.preset,
        fields=_fields(options),
        classes=() if options.classes is None else _classes(options.classes),
        expect=options.expect,
    )
    recipe = Path(options.recipes) / f"{options.name}.toml"
    found = adopted(asked)
    written.write(recipe, asked, found, replace=options.replace)
    found.victim(options.runs / options.name)
    shown = found.shown.splitlines()
    return recipe, [*found.said, *shown]


def again(spec: str, runs: Path) -> tuple[Path, list[str]]:
    """Make the victim of a recipe. Raises ExportError, RecipeError."""
    recipe = recipes.read(spec)
    model = recipe.section("model", Model)
    name = str(recipe.tables.get("dataset", {}).get("name", ""))
    folder = Path(name.removeprefix("imagefolder:")) if name.startswith("imagefolder:") else None
    found = remade(model, folder)
    return found.victim(runs / recipe.name), [*found.said, model.proven]


def parse(words: list[str] | None) -> argparse.Namespace:
    """The command line. What is found out by itself need not be said."""
    parser = argparse.ArgumentParser(prog="python -m export.adopt", description="adopt a trained classifier")
    parser.add_argument("file", type=Path, nargs="?", help=".onnx, TorchScript .pt, .pt2, .pth, .safetensors or .mar")
    parser.add_argument("--recipe", default="", help="make the victim of this recipe again, in place of a file")
    parser.add_argument(
        "--images", type=Path, default=None, help="the owner's pictures: a folder, or a CSV of file,label"
    )
    parser.add_argument("--name", default="mine", help="of the recipe (mine)")
    parser.add_argument(
        "--architecture", default="", help="timm:NAME or torchvision:NAME, whose weights the file holds"
    )
    parser.add_argument(
        "--classes", type=Path, default=None, help="class names: a line each, a JSON list, index_to_name.json"
    )
    parser.add_argument("--expect", type=Path, default=None, help="CSV of file,label: the owner's own predictions")
    parser.add_argument(
        "--preset", default="", help="imagenet, unit, half, bytes, caffe, timm:NAME, keras:NAME, *.json"
    )
    parser.add_argument("--size", type=_size, default=None, help="height and width, 224 or 48x192, where they are free")
    parser.add_argument("--layout", choices=LAYOUTS, default=None, help="of the input, where it is in doubt")
    parser.add_argument("--output", default="", help="name or index of the output that answers")
    parser.add_argument("--gives", choices=GIVES, default="", help="what the output's numbers are")
    parser.add_argument("--fit", choices=FITS, default=None, help="how a picture becomes the size")
    parser.add_argument("--resize", type=int, default=None, help="the shorter side, before the centre is cut out")
    parser.add_argument("--fill", type=int, default=None, help="gray level around a letterboxed picture")
    parser.add_argument("--background", type=int, default=None, help="gray level under transparent parts (refused)")
    parser.add_argument("--megapixels", type=float, default=None, help="the most that a picture may have (25)")
    parser.add_argument("--library", choices=tuple(INTERPOLATIONS), default=None, help="whose resize it is (pillow)")
    parser.add_argument("--interpolation", default=None, help="the library's mode (bilinear)")
    parser.add_argument("--colour", choices=("RGB", "BGR"), default=None, help="order of the channels")
    parser.add_argument("--scale", type=float, default=None, help="of pixels in [0,1], before mean and std")
    parser.add_argument("--mean", type=float, nargs="+", default=None, help="one value, or one a channel")
    parser.add_argument("--std", type=float, nargs="+", default=None, help="one value, or one a channel")
    parser.add_argument("--replace", action="store_true", help="replace a recipe of that name")
    parser.add_argument("--recipes", type=Path, default=recipes.HERE, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the checkpoints (runs)")
    options = parser.parse_args(words)
    if (options.file is None) == (not options.recipe):
        parser.error("expected a model's file, or --recipe")
    return options


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    """The preprocessing that is stated."""
    names = (
        *("fit", "resize", "fill", "background", "megapixels", "library", "interpolation"),
        *("colour", "scale", "mean", "std"),
    )
    stated = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stated.items()}


def _classes(path: Path) -> tuple[str, ...]:
    try:
        return sources.class_names(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"--classes: {path}: not a text file that can be read ({error})") from error


def _size(text: str) -> tuple[int, int]:
    """Of 224, or 48x192."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"expected a side, or height x width as in 48x192, got {text!r}")
    return int(sides[0]), int(sides[-1])


if __name__ == "__main__":
    main()
