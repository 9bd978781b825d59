"""What all users of one Locust run share: the server, the images, the limits, and the tally they write to.

Made once from the command line, before the first user starts; users find it as `environment.plan`.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recipes
from attacks.thief import Parameters
from evaluation import tables
from loadtests import target
from loadtests.tally import LoadTest, Tally
from loadtests.target import Target
from zoo import datasets
from zoo.datasets import Images


@dataclass(frozen=True)
class Theft:
    """What the attacking clients of a run do together.

    attack: by its name. adaptive: the form that it takes, or "". labels: what the attack reads, "soft" or "hard", or
    "both" where what it asks does not depend on the answers. budgets: charged images at which it is looked at, the
    largest last. rows: images in one request.
    clients: that share the attack. dilution: percent of benign images among all they send. quiet_s: seconds that
    benign users have for themselves before it begins. outcome: folder for the results (evaluation.thefts).
    """

    attack: str
    labels: str
    seed: int
    budgets: tuple[int, ...]
    rows: int
    clients: int
    dilution: int
    quiet_s: float
    outcome: Path
    adaptive: str = ""

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise ValueError(f"clients: expected at least 1, got {self.clients}")
        if not 0 <= self.dilution < 100:
            raise ValueError(f"dilution: expected 0 to 99 percent, got {self.dilution}")
        if not self.quiet_s >= 0:
            raise ValueError(f"quiet: expected >= 0 seconds, got {self.quiet_s}")
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"budgets: expected at least 1 image, got {self.budgets}")


@dataclass(frozen=True)
class Plan:
    """See the module's docstring. images: the labelled test split, which benign users send. theft: what the run's
    attacking clients do, if it has any."""

    recipe: recipes.Recipe
    target: Target
    models: tuple[str, ...]
    images: Images
    limits: LoadTest
    tally: Tally
    data: Path | None
    theft: Theft | None = None


def add_options(parser: Any) -> None:
    """Our options besides Locust's own. `parser` is an argparse parser whose options also take env_var."""
    parser.add_argument("--recipe", default="digits", help="a recipe's name, or the path of its .toml file (digits)")
    parser.add_argument(
        "--policies", default="undefended", help="comma-separated; benign users take turns (undefended)"
    )
    parser.add_argument("--instance", default="default", help="the running instance (default)")
    parser.add_argument("--run-folder", default="run", help="holds the instances (run)")
    parser.add_argument("--data", default="", help="folder of the data sets, searched first")
    parser.add_argument("--working-folder", default=".", help="where relative paths begin (where Locust runs)")
    parser.add_argument("--summary", default="", help="file for counts, latencies and verdict (JSON)")
    parser.add_argument("--attack", default="", help="what attackers do: a table [attacks.NAME] (the recipe's first)")
    parser.add_argument("--adaptive", default="", help="an adaptive form of the attack (none)")
    parser.add_argument("--labels", default="both", choices=("soft", "hard", "both"), help="what attackers read (both)")
    parser.add_argument("--seed", type=int, default=0, help="of the attacker's choices (0)")
    parser.add_argument("--budgets", default="", help="comma-separated images to stop at for a look (its budget)")
    parser.add_argument("--clients", type=int, default=1, help="attacking clients that share the attack (1)")
    parser.add_argument("--dilution", type=int, default=0, help="percent of benign images among theirs (0)")
    parser.add_argument("--quiet", type=float, default=5.0, help="seconds of benign traffic before the attack (5)")
    parser.add_argument("--outcome", default="theft", help="folder for the attack's results (theft)")


def limits(recipe: recipes.Recipe) -> LoadTest:
    """[loadtest] of a recipe; its defaults where the recipe has none. Raises RecipeError."""
    return recipe.section("loadtest", LoadTest) if "loadtest" in recipe.tables else LoadTest()


def make(options: argparse.Namespace, *, thieves: bool) -> Plan:
    """The plan of a command line; `thieves`: with attackers. Raises RecipeError, TargetError, DatasetError.

    The process works in the options' working folder from here on: Locust has read its settings.
    """
    os.chdir(options.working_folder)
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
        data=data,
        theft=_theft(recipe, options) if thieves else None,
    )


def _theft(recipe: recipes.Recipe, options: argparse.Namespace) -> Theft:
    name = options.attack or tables.first_attack(recipe)
    config: Parameters = tables.parameters(recipe, name)
    return Theft(
        attack=name,
        adaptive=options.adaptive,
        labels=options.labels,
        seed=options.seed,
        budgets=tuple(sorted(map(int, options.budgets.split(",")))) if options.budgets else (config.budget,),
        rows=min(config.rows, recipe.max_rows),
        clients=options.clients,
        dilution=options.dilution,
        quiet_s=options.quiet,
        outcome=Path(options.outcome),
    )
