"""What each policy costs its users: the "policies" and "routing" rows of report.json, measured in process.

    python -m evaluation.studies utility RECIPE --policies undefended edm --run reports/RECIPE

Every archive answers the test split, and the same images after a benign shift: each rotated by up to 10 degrees and
moved by up to 2 pixels, the same way for every policy. Drop, label flips and l1 compare with the undefended archive;
l1 and calibration error are of answered rows. The false positives of a gate are test images that are not answered
plainly, whatever then becomes of them.
Routing counts which member answers each kind of traffic (evaluation/traffic.py): a hash that is balanced on its own
task need not be so on what an attacker sends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from attacks import metrics
from attacks.oracle import Answers
from evaluation.detectors import ANSWER, answered
from evaluation.oracles import InProcessOracle
from evaluation.studies.hashes import balance
from evaluation.studies.study import Found, Study, Task
from evaluation.traffic import SEED, kinds
from report.headline import UNDEFENDED
from report.rows.policies import PolicyRow
from zoo.augment import Affine
from zoo.datasets import Images

SHIFT_DEGREES = 10
SHIFT_PIXELS = 2


def study(task: Task) -> Iterator[Found]:
    """A row for each policy, and the routing of those that route. The undefended archive is asked first."""
    shift = f"{SHIFT_DEGREES} degrees, {SHIFT_PIXELS} pixels"
    yield Found(settings={"shift": shift, **task.recipe.adopted})
    traffic = dict(kinds(task.recipe, task.test, task.data))
    clean: Answers | None = None
    # rows that want a proof of work are answered, as they are to users who pay
    for policy, oracle in task.oracles(dict.fromkeys((UNDEFENDED, *task.policies)), pay=True):
        if clean is None:
            clean = oracle(task.test.pixels)
        if policy not in task.policies:
            continue
        place = {"recipe": task.recipe.name, "policy": policy}
        row = measure(oracle, task.test, clean, **place)
        rules = oracle.pipeline.policy
        routing = [] if rules.route is None else balance(oracle.members, traffic, len(rules.members), **place)
        says = f"{row.recipe}-{policy}: accuracy {row.accuracy:.4f}, drop {row.accuracy_drop:+.4f}"
        yield Found([row, *routing], says=says)


def measure(oracle: InProcessOracle, test: Images, clean: Answers, *, recipe: str, policy: str) -> PolicyRow:
    """The utility row of one policy; `clean` is what the undefended archive answers to the test images."""
    assert test.labels is not None, "a recipe's data set is labelled"
    served = oracle(test.pixels)
    accuracy = metrics.accuracy(served.labels, test.labels)
    rules = oracle.pipeline.policy
    probabilities = None if served.refused.all() else served.probabilities
    return PolicyRow(
        recipe=recipe,
        policy=policy,
        accuracy=accuracy,
        accuracy_drop=metrics.accuracy(clean.labels, test.labels) - accuracy,
        label_flips=metrics.label_flips(served.labels, clean.labels),
        l1=_l1(served, clean),
        ece=None if probabilities is None else metrics.ece(probabilities, test.labels),
        shifted_accuracy=metrics.accuracy(oracle(shifted(test.pixels)).labels, test.labels),
        false_positive_rate=None if rules.gate is None else flagged(oracle, test.pixels),
        forward_passes=float(forward_passes(rules)),
    )


def forward_passes(policy: Any) -> int:
    """Networks that run for a row of a pipeline's policy: one member or all, every other graph, and a gate's is two."""
    members = len(policy.members)
    return (members if policy.average else 1) + len(policy.graphs) - members + (policy.gate is not None)


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Each image rotated by up to 10 degrees and moved by up to 2 pixels; always the same way."""
    shift = Affine(degrees=SHIFT_DEGREES, shift=SHIFT_PIXELS / images.shape[-1])
    return shift(images, generator=torch.Generator().manual_seed(SEED)).clamp(0, 1)


def flagged(oracle: InProcessOracle, images: torch.Tensor) -> float:
    """The share of images (N,C,S,S) that a gated policy does not simply answer."""
    decisions: list[str] = [decision for answers in answered(oracle, images) for decision in answers.decisions]
    return sum(decision != ANSWER for decision in decisions) / len(decisions)


def _l1(served: Answers, clean: Answers) -> float | None:
    """Over answered rows; None where there are none, or where either side returns labels only."""
    if served.probabilities is None or clean.probabilities is None or served.refused.all():
        return None
    return metrics.l1(served.probabilities, clean.probabilities)


STUDY = Study(
    "utility",
    "what policies cost their users",
    study,
    policies="policies whose archives are in the store",
    sections=("policies", "routing"),
)
