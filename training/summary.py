"""What training came to: the victim's accuracy, and that of what was trained for it, on the validation split.

    python -m training.summary RECIPE NETWORK ...

    victim              91.2 %   resnet18.onnx, adopted
    edm                 90.8 %   3 members of timm:resnet18
    misleader           91.0 %   3 members of timm:resnet18, all of which answer

The validation split trained no network (training/victim.py). Of an ensemble it is the members' mean accuracy, or
that of their mean answer where its program states it. Networks that answer in no policy are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import recipes
from recipes.policies import VICTIM
from training import checkpoint
from training.black_box import black_box, labelled
from training.checkpoint import CheckpointError
from training.examples import reached
from training.victim import split
from zoo.datasets import Data, DatasetError
from zoo.perturbation import Perturbation

# a mean answer's accuracy before the members' mean
STATED = ("ensemble_accuracy", "validation_accuracy")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.summary", description="what training came to")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("networks", nargs="*", help="checkpoints of the recipe (none: the victim alone)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the checkpoints (runs)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    options = parser.parse_args(words)
    try:
        recipe = recipes.read(options.recipe)
        for name, reached, about in rows(recipe, options.networks, options.runs, options.data):
            print(f"{name:<20} {reached:6.1%}   {about}")
    except (recipes.RecipeError, CheckpointError, DatasetError, ValueError) as error:
        sys.exit(f"training.summary: {error}")


def rows(
    recipe: recipes.Recipe, networks: Sequence[str], runs: Path, root: Path | None
) -> Iterator[tuple[str, float, str]]:
    """Name, accuracy and what it is, the victim first. Raises CheckpointError, DatasetError."""
    folder = runs / recipe.name
    box = black_box(VICTIM, folder)
    data = recipe.section("dataset", Data)
    images = data.load("train", root)
    splits = split(labelled(images, box), rows=data.rows)
    known = f"{recipe.architecture}{', adopted' if 'model' in recipe.tables else ''}"
    yield VICTIM, reached(box, splits), known if images.labels is not None else f"{known}; its own labels: agreement"
    answering = {policy["predictor"] for policy in recipe.tables.get("policies", {}).values()}
    for name in networks:
        if name == VICTIM or name not in answering:
            continue
        read = checkpoint.load(folder / f"{name}.safetensors")
        metrics = read.facts.get("metrics", {})
        stated = next(key for key in STATED if key in metrics)
        members = [
            plan.name
            for plan, each in zip(read.architectures, read.networks, strict=True)
            if not isinstance(each, Perturbation)
        ]
        about = f"{len(members)} members: {', '.join(dict.fromkeys(members))}" if len(members) > 1 else members[0]
        yield name, metrics[stated], f"{about}{', all of which answer' if stated == STATED[0] else ''}"


if __name__ == "__main__":
    main()
