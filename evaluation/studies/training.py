"""How the archives' networks were trained: the "training" and "members" rows of a report.

    python -m evaluation.studies training RECIPE --policies undefended ensemble edm --run reports/RECIPE

Every exported graph carries the facts of its checkpoint. An ensemble's members were trained together, so they are one
row, and MISLEADER's, which differ in make and loss, one each besides; a policy's hash network is keyed and has none.

How long a training took is in no graph, which the same training makes the same, but next to the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.studies.study import Found, Option, Study, StudyError, Task
from report.rows.members import MemberRow
from report.rows.training import TrainingRow

# a checkpoint's own table, the first of these that it has; all but the victim's name the victim's too
OWN = ("edm", "misleader", "meco", "victim")


def study(task: Task, *, runs: Path) -> Iterator[Found]:
    """A row for each predictor of the policies, and one for each of its members that has a record."""
    for policy, oracle in task.oracles(predictors(task).values()):
        members = oracle.pipeline.policy.members
        facts = oracle.trained(members[0])
        predictor = task.recipe.tables["policies"][policy]["predictor"]
        took = seconds(runs / task.recipe.name / f"{predictor}.timing.json", facts)
        row = training(task.recipe.name, predictor, len(members), facts, took)
        yield Found(
            [row, *each(task.recipe.name, predictor, facts)],
            says=line(row),
            settings={f"trained.{predictor}": table(facts)},
        )


def predictors(task: Task) -> dict[str, str]:
    """A policy of each predictor, by the predictor's name. Raises StudyError where the recipe has no such policy."""
    tables = task.recipe.tables.get("policies", {})
    for policy in task.policies:
        if policy not in tables:
            raise StudyError(f"{task.recipe.path}: no [policies.{policy}]; it has {', '.join(tables) or 'none'}")
    return {tables[policy]["predictor"]: policy for policy in task.policies}


def table(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe's own table of a checkpoint."""
    settings = facts["settings"]
    own: Mapping[str, Any] = next(settings[name] for name in OWN if settings.get(name))
    return own


def seconds(timing: Path, facts: Mapping[str, Any]) -> float | None:
    """How long a training took: by the file next to its checkpoint, or by the facts of a graph from before there was
    one; None where neither says so, as of an archive that came without its checkpoint."""
    if timing.is_file():
        return float(json.loads(timing.read_text("utf-8"))["seconds"])
    return facts.get("seconds")


def training(recipe: str, predictor: str, members: int, facts: Mapping[str, Any], seconds: float | None) -> TrainingRow:
    """How all of a checkpoint was trained."""
    own, metrics = table(facts), facts["metrics"]
    epochs = own["optimisation"]["epochs"]
    return TrainingRow(
        recipe=recipe,
        predictor=predictor,
        members=members,
        lambda_diversity=own.get("lambda_diversity"),
        epochs=epochs,
        seconds_per_epoch=None if seconds is None else round(seconds / epochs, 1),
        device=facts["device"],
        validation_accuracy=metrics["validation_accuracy"],
        diversity=metrics.get("diversity"),
        coherence=metrics.get("coherence"),
        search=tuple(facts.get("search", ())),
        leak=metrics.get("leak"),
        signatures=tuple(metrics.get("signatures", ())),
    )


def line(row: TrainingRow) -> str:
    """A row's line on the terminal."""
    took = "" if row.seconds_per_epoch is None else f" of {row.seconds_per_epoch:.0f} s"
    said = f"{row.recipe}/{row.predictor}: {row.epochs} epochs{took} on {row.device}"
    if row.leak is None:
        return said
    own = ", ".join(f"{each['class']} ({each['share']:.0%})" for each in row.signatures)
    return f"{said}; off the task the members mostly answer {own}: a label reveals {row.leak:.0%} of its member"


def each(recipe: str, predictor: str, facts: Mapping[str, Any]) -> list[MemberRow]:
    """The members of a checkpoint by themselves, where it has records of them."""
    records = facts["metrics"].get("members", ())
    return [MemberRow(recipe, predictor, member, **row) for member, row in enumerate(records)]


STUDY = Study(
    "training",
    "how the archives' networks were trained",
    study,
    policies="policies whose archives are in the store",
    sections=("training", "members"),
    options=(Option("runs", Path("runs"), "folder of the checkpoints, next to which their wall times are"),),
)
