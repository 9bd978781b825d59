"""How the archives' networks were trained: the "training" rows of a report.

    python -m loadtests.trained RECIPE --policies undefended ensemble edm --run reports/RECIPE

Every exported graph carries the facts of its checkpoint. An ensemble's members were trained together, so they are one
row; a policy's hash network is keyed and has none.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import recipes
from handlers.errors import LoadError
from loadtests.oracles import InProcessOracle, OracleError
from loadtests.results import Report, ResultError, TrainingRow, merge, run_info


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        tables = recipe.tables.get("policies", {})
        rows, settings = [], {}
        for predictor, policy in {tables[policy]["predictor"]: policy for policy in options.policies}.items():
            row, settings[f"trained.{predictor}"] = read(recipe.name, predictor, policy, options.store)
            rows.append(row)
        facts = run_info(seed=0, started=started, settings=settings)
        merge(options.run / "report.json", Report(facts, training=tuple(rows)))
    except (recipes.RecipeError, OracleError, LoadError, ResultError) as error:
        sys.exit(f"loadtests.trained: {error}")
    for row in rows:
        print(f"{recipe.name}/{row.predictor}: {row.epochs} epochs of {row.seconds_per_epoch:.0f} s on {row.device}")


def read(recipe: str, predictor: str, policy: str, store: Path) -> tuple[TrainingRow, dict[str, Any]]:
    """What the first member of a policy's archive tells of the training of all, and its own table of the recipe."""
    with InProcessOracle(store / f"{recipe}-{policy}.mar") as oracle:
        members = oracle.pipeline.policy.members
        facts = oracle.trained(members[0])
    metrics, settings = facts["metrics"], facts["settings"]
    ensemble = settings.get("edm", {})
    trained = ensemble or settings.get("meco") or settings["victim"]
    epochs = trained["optimisation"]["epochs"]
    row = TrainingRow(
        recipe=recipe,
        predictor=predictor,
        members=len(members),
        lambda_diversity=ensemble.get("lambda_diversity"),
        epochs=epochs,
        seconds_per_epoch=round(facts["seconds"] / epochs, 1),
        device=facts["device"],
        validation_accuracy=metrics["validation_accuracy"],
        diversity=metrics.get("diversity"),
        coherence=metrics.get("coherence"),
        search=tuple(facts.get("search", ())),
    )
    return row, trained


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.trained", description="how networks were trained")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", required=True, help="policies whose archives are in the store")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
