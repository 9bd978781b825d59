"""What a policy answers once a customer's images have been shifted: the "shifts" rows of report.json, in process.

    python -m evaluation.studies shifts RECIPE --policies undefended misleader --run reports/RECIPE-misleader

The test images as they are, after each shift of evaluation/traffic.py, and, where the recipe has a network
`misleader`, as its members and their attackers saw images (training/misleader.py): the term that drives members off
their attackers there drives them off answers that are often right, and customers send such images too. Every policy,
MISLEADER or not, receives the same images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

import recipes
from attacks import metrics
from evaluation.oracles import InProcessOracle
from evaluation.studies.study import Found, Study, Task
from evaluation.traffic import SEED, SHIFTS, Shift
from report.rows.members import ShiftRow
from zoo.augment import Augmentation
from zoo.datasets import Images

NETWORK = "misleader"


def study(task: Task) -> Iterator[Found]:
    """A row for each policy and shift."""
    every = shifts(task.recipe)
    if ShiftRow.TRAINED in every:
        yield Found(settings={"shifts.augment": task.recipe.networks[NETWORK]["augment"]})
    # rows that want a proof of work are answered, as they are to users who pay
    for policy, oracle in task.oracles(seed=SEED, pay=True):
        for row in measure(oracle, task.test, every, recipe=task.recipe.name, policy=policy):
            says = f"{row.policy}, {row.shift}: accuracy {row.accuracy:.4f}, kept {row.kept:.4f}"
            yield Found([row], says=says)


def shifts(recipe: recipes.Recipe) -> dict[str, Shift]:
    """Every shift by its name, none of all first. Raises RecipeError."""
    found: dict[str, Shift] = {ShiftRow.NONE: lambda images: images, **SHIFTS}
    stated = recipe.networks.get(NETWORK, {}).get("augment")
    if stated is not None:
        augment = recipes.build(Augmentation, stated, where=f"{recipe.path}: [networks.{NETWORK}]: augment")
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
        probabilities = None if served.refused.all() else served.probabilities
        yield ShiftRow(
            recipe=recipe,
            policy=policy,
            shift=name,
            images=len(test),
            accuracy=metrics.accuracy(served.labels, test.labels),
            kept=metrics.agreement(served.labels, own),
            ece=None if probabilities is None else metrics.ece(probabilities, test.labels),
        )


STUDY = Study(
    "shifts",
    "what policies answer once a customer's images are shifted",
    study,
    policies="policies whose archives are in the store",
    sections=("shifts",),
)
