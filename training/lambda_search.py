"""The search for EDM's lambda: upward, under the paper's rule that benign accuracy falls by less than 0.5 points.

Kariyappa et al., ICLR 2021, sec. 5.1 and appendix A.7: no value is printed, and even large lambdas cost little, so
the largest admissible one is wanted. Each candidate is trained on a share of the training images and compared, on
the validation split, with a regular ensemble (lambda 0) trained on the same share. The search ends at the first
candidate that breaks the rule, or that no longer lowers the diversity loss. The largest candidate that kept the rule
is then trained on everything and held against the undefended victim's own validation accuracy; if it breaks the rule
there, the next smaller one is trained. The test split is not touched.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import checkpoint

if TYPE_CHECKING:
    from training.edm import Training

# a candidate must lower the diversity loss, which lies in [0, 1], by this much for a larger one to be tried
SATURATED = 0.005


def search(training: Training) -> None:
    """Leave runs/RECIPE/<table>.safetensors with the lambda that was found. Raises ValueError where none will do.

    Resumable: every training keeps its own checkpoint under runs/RECIPE/search.
    """
    table, allowed = training.table, training.edm.allowed_drop
    undefended = _victim_accuracy(training.runs / training.recipe / "victim.safetensors")
    passed, trail = _candidates(training)
    for weight in reversed(passed):
        path = training.train(f"search/{table}-{weight:g}", lambda_diversity=weight, facts={"search": trail})
        drop = undefended - _metrics(path)["validation_accuracy"]
        if drop <= allowed:
            _publish(path, training.runs / training.recipe / f"{table}.safetensors")
            return
        trail = [*trail, {"lambda": weight, "rows": "all", "drop": round(drop, 4), "kept": False}]
    raise ValueError(
        f"[{table}] lambda_diversity: no candidate of {training.edm.lambda_diversity} keeps the accuracy within "
        f"{allowed} of the victim's {undefended:.4f}; give smaller ones, or more epochs"
    )


def _candidates(training: Training) -> tuple[list[float], list[dict[str, Any]]]:
    """The lambdas that kept the rule on few rows, rising, and what was seen on the way."""
    edm, passed, trail = training.edm, [], []
    regular, diversity = None, 1.0
    for weight in (0.0, *(weight for weight in edm.lambdas if weight)):
        path = training.train(f"search/{training.table}-{weight:g}-rows", lambda_diversity=weight, rows=edm.search_rows)
        seen = _metrics(path)
        if regular is None:
            regular = seen["validation_accuracy"]
        drop = regular - seen["validation_accuracy"]
        kept = drop <= edm.allowed_drop
        trail.append(
            {
                "lambda": weight,
                "rows": edm.search_rows,
                "validation_accuracy": round(seen["validation_accuracy"], 4),
                "diversity": round(seen["diversity"], 4),
                "drop": round(drop, 4),
                "kept": kept,
            }
        )
        if weight and kept:
            passed.append(weight)
        if not kept or (weight and diversity - seen["diversity"] < SATURATED):
            break
        diversity = seen["diversity"]
    return passed, trail


def _metrics(path: Path) -> dict[str, float]:
    found: dict[str, float] = checkpoint.facts(path)["metrics"]
    return found


def _victim_accuracy(path: Path) -> float:
    if not path.is_file():
        raise ValueError(f"{path}: the search compares with the victim; train it first (python -m training.victim)")
    return _metrics(path)["validation_accuracy"]


def _publish(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)
