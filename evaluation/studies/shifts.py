"""What a policy answers once a customer's images have been shifted: the "shifts" rows of report.json, in process.

    python -m evaluation.studies.shifts RECIPE --policies undefended misleader --run reports/RECIPE-misleader

The test images as they are, after each shift of evaluation/traffic.py, and, where the recipe has a [misleader]
table, as its members and their thieves saw images (training/misleader.py): the term that drives members off their
thieves there drives them off answers that are often right, and customers send such images too. Every policy, MISLEADER
or not, meets the same images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch

import recipes
from attacks import metrics
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.traffic import SEED, SHIFTS, Shift
from handlers.errors import LoadError
from report.rows.members import ShiftRow
from report.schema import Report, ResultError, merge, run_info
from zoo import datasets
from zoo.augment import Augmentation
from zoo.datasets import Images

TABLE = "misleader"


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        every = shifts(recipe)
        rows = []
        for policy in options.policies:
            # rows that want a proof of work are answered, as they are to users who pay
            with InProcessOracle(options.store / f"{recipe.name}-{policy}.mar", seed=SEED, pay=True) as oracle:
                for row in measure(oracle, test, every, recipe=recipe.name, policy=policy):
                    rows.append(row)
                    print(f"{row.policy}, {row.shift}: accuracy {row.accuracy:.4f}, kept {row.kept:.4f}", flush=True)
        settings = {"shifts.augment": recipe.tables[TABLE]["augment"]} if ShiftRow.TRAINED in every else {}
        facts = run_info(seed=SEED, started=started, settings=settings)
        merge(options.run / "report.json", Report(facts, shifts=tuple(rows)))
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"evaluation.studies.shifts: {error}")


def shifts(recipe: recipes.Recipe) -> dict[str, Shift]:
    """Every shift by its name, none of all first. Raises RecipeError."""
    found: dict[str, Shift] = {ShiftRow.NONE: lambda images: images, **SHIFTS}
    stated = recipe.tables.get(TABLE, {}).get("augment")
    if stated is not None:
        augment = recipes.build(Augmentation, stated, where=f"{recipe.path}: [{TABLE}]: augment")
        found[ShiftRow.TRAINED] = lambda images: augmented(augment, images)
    return found


def augmented(augment: Augmentation, images: torch.Tensor) -> torch.Tensor:
    """Each image augmented once; always the same way."""
    return augment(images, generator=torch.Generator().manual_seed(SEED))


def measure(
    oracle: InProcessOracle, test: Images, every: Mapping[str, Shift], *, recipe: str, policy: str
) -> Iterator[ShiftRow]:
    """A row for each shift of the test images, which are labelled."""
    assert test.labels is not None, "a recipe's data set is labelled"
    own = oracle(test.pixels).labels
    for name, shift in every.items():
        served = oracle(shift(test.pixels))
        told = None if served.refused.all() else served.probabilities
        yield ShiftRow(
            recipe=recipe,
            policy=policy,
            shift=name,
            images=len(test),
            accuracy=metrics.accuracy(served.labels, test.labels),
            kept=metrics.agreement(served.labels, own),
            ece=None if told is None else metrics.ece(told, test.labels),
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.studies.shifts", description="what policies make of shifts"
    )
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", required=True, help="policies whose archives are in the store")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    main()
