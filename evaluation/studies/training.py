"""How the archives' networks were trained: the "training" and "members" rows of a report.

    python -m evaluation.studies.training RECIPE --policies undefended ensemble edm --run reports/RECIPE

Every exported graph carries the facts of its checkpoint. An ensemble's members were trained together, so they are one
row, and MISLEADER's, which differ in make and loss, one each besides; a policy's hash network is keyed and has none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import recipes
from evaluation.oracles import InProcessOracle, OracleError
from handlers.errors import LoadError
from report.rows.members import MemberRow
from report.rows.training import TrainingRow
from report.schema import Report, ResultError, merge, run_info

# a checkpoint's own table, the first of these that it has; all but the victim's name the victim's too
OWN = ("edm", "misleader", "meco", "victim")


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        tables = recipe.tables.get("policies", {})
        rows, members, settings = [], [], {}
        for predictor, policy in {tables[policy]["predictor"]: policy for policy in options.policies}.items():
            facts, count = read(recipe.name, policy, options.store)
            rows.append(training(recipe.name, predictor, count, facts))
            members += each(recipe.name, predictor, facts)
            settings[f"trained.{predictor}"] = table(facts)
        run = run_info(seed=0, started=started, settings=settings)
        merge(options.run / "report.json", Report(run, training=tuple(rows), members=tuple(members)))
    except (recipes.RecipeError, OracleError, LoadError, ResultError) as error:
        sys.exit(f"evaluation.studies.training: {error}")
    for row in rows:
        print(f"{recipe.name}/{row.predictor}: {row.epochs} epochs of {row.seconds_per_epoch:.0f} s on {row.device}")


def read(recipe: str, policy: str, store: Path) -> tuple[Mapping[str, Any], int]:
    """What the first member of a policy's archive tells of the training of all, and how many there are."""
    with InProcessOracle(store / f"{recipe}-{policy}.mar") as oracle:
        members = oracle.pipeline.policy.members
        return oracle.trained(members[0]), len(members)


def table(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe's own table of a checkpoint."""
    settings = facts["settings"]
    own: Mapping[str, Any] = next(settings[name] for name in OWN if settings.get(name))
    return own


def training(recipe: str, predictor: str, members: int, facts: Mapping[str, Any]) -> TrainingRow:
    """How all of a checkpoint was trained."""
    own, metrics = table(facts), facts["metrics"]
    epochs = own["optimisation"]["epochs"]
    return TrainingRow(
        recipe=recipe,
        predictor=predictor,
        members=members,
        lambda_diversity=own.get("lambda_diversity"),
        epochs=epochs,
        seconds_per_epoch=round(facts["seconds"] / epochs, 1),
        device=facts["device"],
        validation_accuracy=metrics["validation_accuracy"],
        diversity=metrics.get("diversity"),
        coherence=metrics.get("coherence"),
        search=tuple(facts.get("search", ())),
    )


def each(recipe: str, predictor: str, facts: Mapping[str, Any]) -> list[MemberRow]:
    """The members of a checkpoint by themselves, where it tells of them."""
    told = facts["metrics"].get("members", ())
    return [MemberRow(recipe, predictor, member, **row) for member, row in enumerate(told)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.studies.training", description="how networks were trained"
    )
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", required=True, help="policies whose archives are in the store")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
