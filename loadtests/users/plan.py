"""What all users of one Locust run share: the server, the images, the limits, and the tally they write to.

Made once from the command line, before the first user starts; users find it as `environment.plan`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recipes
from attacks.registry import attack
from attacks.service import Service
from loadtests import target
from loadtests.tally import LoadTest, Tally
from loadtests.target import Target
from zoo import datasets
from zoo.datasets import Images


@dataclass(frozen=True)
class Theft:
    """What the thief of a run does: the attack by its name, its seed, and where the transfer set goes."""

    attack: str
    seed: int
    transfer: Path


@dataclass(frozen=True)
class Plan:
    """See the module's docstring. images: the labelled test split, which benign users send."""

    recipe: recipes.Recipe
    target: Target
    models: tuple[str, ...]
    images: Images
    limits: LoadTest
    tally: Tally
    theft: Theft
    data: Path | None

    @property
    def service(self) -> Service:
        """What any client knows of the service."""
        _, channels, size, _ = self.images.pixels.shape
        return Service(channels, size, len(self.images.classes))


def add_options(parser: Any) -> None:
    """Our options beside Locust's own. `parser` is an argparse parser whose options also take env_var."""
    parser.add_argument("--recipe", default="digits", help="a recipe's name, or the path of its .toml file (digits)")
    parser.add_argument(
        "--policies", default="undefended", help="comma-separated; benign users take turns (undefended)"
    )
    parser.add_argument("--instance", default="default", help="the running instance (default)")
    parser.add_argument("--run-folder", default="run", help="holds the instances (run)")
    parser.add_argument("--data", default="", help="folder of the data sets, searched first")
    parser.add_argument("--summary", default="", help="file for counts, latencies and verdict (JSON)")
    parser.add_argument("--attack", default="knockoff", help="what the thief does: a table [attacks.NAME] (knockoff)")
    parser.add_argument("--seed", type=int, default=0, help="of the thief's choices (0)")
    parser.add_argument("--transfer", default="transfer.npz", help="file for the thief's answers (transfer.npz)")


def limits(recipe: recipes.Recipe) -> LoadTest:
    """[loadtest] of a recipe; its defaults where the recipe has none. Raises RecipeError."""
    return recipe.section("loadtest", LoadTest) if "loadtest" in recipe.tables else LoadTest()


def parameters(recipe: recipes.Recipe, name: str) -> Any:
    """The hyper-parameters [attacks.NAME] of a recipe, as the attack's own dataclass. Raises RecipeError."""
    where = f"{recipe.path}: [attacks.{name}]"
    try:
        return recipes.build(attack(name).parameters, recipe.tables.get("attacks", {}).get(name), where=where)
    except ValueError as error:
        raise error if isinstance(error, recipes.RecipeError) else recipes.RecipeError(f"{where}: {error}") from None


def make(options: argparse.Namespace) -> Plan:
    """The plan of a command line. Raises RecipeError, TargetError, DatasetError."""
    recipe = recipes.read(options.recipe)
    thresholds = limits(recipe)
    data = Path(options.data) if options.data else None
    server = target.read(options.instance, run_folder=Path(options.run_folder))
    models = tuple(f"{recipe.name}-{policy}" for policy in options.policies.split(","))
    for model in models:
        server.path(model)
    return Plan(
        recipe=recipe,
        target=server,
        models=models,
        images=recipe.section("dataset", datasets.Data).load("test", data),
        limits=thresholds,
        tally=Tally(thresholds, started=time.time()),
        theft=Theft(options.attack, options.seed, Path(options.transfer)),
        data=data,
    )
