"""The search for MISLEADER's lambdas: upward, each member's own, as far as customers can bear.

The term that drives a member from its thief acts on augmented images, whose right answer it knows, and nothing else in
the loss pays for them: shifted images of customers are what it costs. A member's lambda may lower its accuracy on the
validation split by `allowed_drop`, and on augmented validation images by `allowed_augmented_drop`, of what it reaches
in the plain distillation ensemble. The search goes on from that ensemble's members with one strength after another, for
a few short epochs each, held against as many without the term; members are judged each by itself. With the largest that
each bore, all are trained from the beginning and held against the plain ensemble itself; whoever breaks the rule then
takes the next smaller, and all are trained again. EDM's diversity term, where that is searched, has one strength for
all. The test split is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import checkpoint
from training.lambda_search import publish

if TYPE_CHECKING:
    from training.misleader import Misleader, Training


def search(training: Training) -> None:
    """Leave runs/RECIPE/<table>.safetensors with the lambdas that were found. Raises ValueError where none will do.

    Resumable: every training keeps its own checkpoint under runs/RECIPE/search.
    """
    misleader = training.misleader
    if not training.distilled.is_file():
        raise ValueError(
            f"{training.distilled}: the search starts from it; train it first "
            f"(python -m training.misleader --table {training.distilled.stem} RECIPE)"
        )
    plain = _seen(training.distilled)
    chosen, trail = _climb(training)
    while min(chosen) > 0:
        name = f"search/{training.table}-{'-'.join(map(str, chosen))}"
        path = training.train(name, misleader.at(chosen), facts={"search": trail})
        kept = _kept(misleader, plain, _seen(path))
        if all(kept):
            publish(path, training.runs / training.recipe / f"{training.table}.safetensors")
            return
        trail = [*trail, _step("full", misleader.at(chosen), _seen(path), kept)]
        chosen = _lowered(misleader, chosen, kept)
    raise ValueError(
        f"[{training.table}] lambda: a member bears none of {_lambdas(misleader)}: it loses more than "
        f"{misleader.allowed_drop} of its accuracy, or {misleader.allowed_augmented_drop} on augmented images; give "
        "smaller ones, or more epochs"
    )


def _climb(training: Training) -> tuple[list[int], list[dict[str, Any]]]:
    """The rung that each member bears, and every rung below it; and what was seen at every step."""
    misleader = training.misleader
    members = len(misleader.members)
    path = training.go_on(f"search/{training.table}-0-step", training.distilled, misleader.at([0] * members))
    reference = _seen(path)
    chosen, climbing = [0] * members, [True] * members
    trail = [_step("short", misleader.at([0] * members), reference, [True] * members)]
    for rung in range(1, misleader.rungs + 1):
        tried = misleader.at([rung] * members)
        seen = _seen(training.go_on(f"search/{training.table}-{rung}-step", training.distilled, tried))
        kept = _kept(misleader, reference, seen)
        trail.append(_step("short", tried, seen, kept))
        climbing = [still and now for still, now in zip(climbing, kept, strict=True)]
        chosen = [rung if still else reached for still, reached in zip(climbing, chosen, strict=True)]
        if not any(climbing):
            break
    return ([min(chosen)] * members if misleader.one_strength else chosen), trail


def _lowered(misleader: Misleader, chosen: Sequence[int], kept: Sequence[bool]) -> list[int]:
    """A rung down for whoever broke the rule; for all, where they share one."""
    if misleader.one_strength:
        return [min(chosen) - 1] * len(chosen)
    return [rung if fine else rung - 1 for rung, fine in zip(chosen, kept, strict=True)]


def _kept(misleader: Misleader, reference: dict[str, Any], seen: dict[str, Any]) -> list[bool]:
    """Whether each member keeps the rule."""
    return [
        before["validation_accuracy"] - after["validation_accuracy"] <= misleader.allowed_drop
        and before["augmented_accuracy"] - after["augmented_accuracy"] <= misleader.allowed_augmented_drop
        for before, after in zip(reference["members"], seen["members"], strict=True)
    ]


def _step(step: str, tried: Misleader, seen: dict[str, Any], kept: Sequence[bool]) -> dict[str, Any]:
    """What a report says of one training: values by member."""
    return {
        "step": step,
        "lambda_attacker": [member.lambda_attacker for member in tried.members],
        "lambda_diversity": tried.lambda_diversity,
        **{
            name: [round(member[name], 4) for member in seen["members"]]
            for name in ("validation_accuracy", "augmented_accuracy", "attacker_divergence")
        },
        "kept": list(kept),
    }


def _lambdas(misleader: Misleader) -> str:
    """What was to be tried, for an error."""
    if misleader.one_strength:
        return f"lambda_diversity {misleader.lambda_diversity}"
    return ", ".join(f"{member.architecture} {member.lambda_attacker}" for member in misleader.members)


def _seen(path: Path) -> dict[str, Any]:
    """The metrics of a checkpoint."""
    found: dict[str, Any] = checkpoint.facts(path)["metrics"]
    return found
