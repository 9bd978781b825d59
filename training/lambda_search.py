"""The search for EDM's lambda: upward, under the paper's rule that benign accuracy falls by less than 0.5 points.

Kariyappa et al., ICLR 2021, sec. 5.1 and appendix A.7: no value is printed, and even large lambdas cost little, so
the largest admissible one is wanted. The search starts from the trained regular ensemble (lambda 0) and goes on from
its members with one lambda after another, a short epoch each. A short epoch costs some accuracy by itself, so one
without the diversity term is the reference: what is compared is the price of lambda. The search ends at the first
lambda whose members fall behind that, on the validation split, by more than the rule allows, or that no longer lowers
the diversity loss. With the largest that kept the rule, the members are trained on everything and held against the
undefended victim; if they break the rule, the next smaller lambda is taken. The test split is not touched.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import checkpoint

if TYPE_CHECKING:
    from training.edm import Training

# a step must lower the diversity loss, which lies in [0, 1], by this much for a larger lambda to be tried
SATURATED = 0.005


def search(training: Training) -> None:
    """Leave runs/RECIPE/<table>.safetensors with the lambda that was found. Raises ValueError where none will do.

    Resumable: every training keeps its own checkpoint under runs/RECIPE/search.
    """
    table, allowed, folder = training.table, training.edm.allowed_drop, training.runs / training.recipe
    undefended = _seen(folder / "victim.safetensors", "python -m training.victim")["validation_accuracy"]
    passed, trail = _climb(training)
    for weight in reversed(passed):
        path = training.train(f"search/{table}-{weight:g}", lambda_diversity=weight, facts={"search": trail})
        drop = undefended - _seen(path)["validation_accuracy"]
        if drop <= allowed:
            publish(path, folder / f"{table}.safetensors")
            return
        trail = [*trail, {"lambda": weight, "step": "full", "drop": round(drop, 4), "kept": False}]
    raise ValueError(
        f"[{table}] lambda_diversity: none of {training.edm.lambda_diversity} keeps the members' accuracy within "
        f"{allowed} of the victim's {undefended:.4f}; give smaller ones, or more epochs"
    )


def _climb(training: Training) -> tuple[list[float], list[dict[str, Any]]]:
    """The lambdas that kept the rule, rising, and what was seen at every step."""
    path = training.regular
    _seen(path, f"python -m training.edm --table {path.stem}")
    before = _seen(training.go_on(f"search/{training.table}-0-step", path, lambda_diversity=0.0))
    reference, diversity = before["validation_accuracy"], before["diversity"]
    passed: list[float] = []
    trail = [_step(0.0, before, reference, kept=True)]
    for weight in training.edm.lambdas:
        path = training.go_on(f"search/{training.table}-{weight:g}-step", path, lambda_diversity=weight)
        after = _seen(path)
        kept = reference - after["validation_accuracy"] <= training.edm.allowed_drop
        trail.append(_step(weight, after, reference, kept=kept))
        if not kept:
            break
        passed.append(weight)
        if diversity - after["diversity"] < SATURATED:
            break
        diversity = after["diversity"]
    return passed, trail


def _step(weight: float, seen: dict[str, float], reference: float, *, kept: bool) -> dict[str, Any]:
    return {
        "lambda": weight,
        "step": "short",
        "validation_accuracy": round(seen["validation_accuracy"], 4),
        "diversity": round(seen["diversity"], 4),
        "drop": round(reference - seen["validation_accuracy"], 4),
        "kept": kept,
    }


def _seen(path: Path, trained_by: str = "") -> dict[str, float]:
    """The metrics of a checkpoint. Raises ValueError saying how to make one that must be there before."""
    if trained_by and not path.is_file():
        raise ValueError(f"{path}: the search starts from it; train it first ({trained_by} RECIPE)")
    found: dict[str, float] = checkpoint.facts(path)["metrics"]
    return found


def rising(name: str, given: float | tuple[float, ...]) -> None:
    """Raise ValueError unless `given` is >= 0, and rises where it is several."""
    values = given if isinstance(given, tuple) else (given,)
    if min(values, default=-1) < 0 or list(values) != sorted(set(values)):
        raise ValueError(f"{name}: expected >= 0, several in rising order, got {given}")


def publish(source: Path, target: Path) -> None:
    """Copy a search's checkpoint to where it is looked for, whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)
