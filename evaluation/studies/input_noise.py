"""What a policy's input noise does to its users' images and to attackers': the "noise" rows of a report.

    python -m evaluation.studies input-noise RECIPE --policies meco meco-keyed --run reports/RECIPE

Of every kind of traffic (evaluation/traffic.py, and benign images rotated and shifted as in utility.py here), in each
of five draws: the mean ||T(x + h) - T(x)||_1 between the policy's answer and its own predictor's without noise, which a
client never sees; how many labels the noise changes; where there are labels, the accuracy. Keyed noise has one draw an
image, and is measured once.

The l1 of Wang et al. (MeCo, NeurIPS 2023, Table 3) is the benign one. It is what users lose besides accuracy; the same
number on an attacker's images is what the attacker's transfer set is off by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch

import recipes
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.study import Found, Study, Task
from evaluation.studies.utility import shifted
from evaluation.traffic import SEED, kinds
from report.rows.noise import NoiseRow
from zoo.datasets import Images

DRAWS = 5
ROWS = 5000

# images, and labels where there are some
Traffic = dict[str, tuple[torch.Tensor, torch.Tensor | None]]


def study(task: Task) -> Iterator[Found]:
    """A row for each policy and kind of traffic."""
    by_kind = traffic(task.recipe, task.test, task.data)
    for policy, oracle in task.oracles(seed=SEED):
        rows = list(measure(oracle, by_kind, recipe=task.recipe.name, policy=policy))
        yield Found(rows, says="\n".join(map(line, rows)))


def traffic(recipe: recipes.Recipe, test: Images, data: Path | None) -> Traffic:
    """At most ROWS images of each kind; those of the test split, as they are and shifted, have labels. Raises
    DatasetError."""
    assert test.labels is not None, "a recipe's data set is labelled"
    labels = test.labels[:ROWS]
    found: Traffic = {
        f"benign ({test.name})": (test.pixels[:ROWS], labels),
        f"shifted benign ({test.name})": (shifted(test.pixels)[:ROWS], labels),
    }
    return {**{name: (images[:ROWS], None) for name, images in kinds(recipe, test, data)}, **found}


def measure(oracle: InProcessOracle, by_kind: Traffic, *, recipe: str, policy: str) -> Iterator[NoiseRow]:
    """One row for each kind of traffic. Raises OracleError where the policy has no noise, or several members."""
    rules = oracle.pipeline.policy
    if rules.perturb is None or len(rules.members) != 1:
        raise OracleError(f"{recipe}-{policy}: expected a policy with noise and one member")
    draws = DRAWS if rules.perturb.noise == "fresh" else 1
    for name, (images, labels) in by_kind.items():
        found = [drawn(oracle, images, labels) for _ in range(draws)]
        yield NoiseRow(
            recipe,
            policy,
            name,
            images=len(images),
            l1=tuple(each.l1 for each in found),
            label_flips=tuple(each.label_flips for each in found),
            accuracy=tuple(each.accuracy for each in found if each.accuracy is not None),
            rms=mean(each.rms for each in found),
            largest=max(each.largest for each in found),
        )


@dataclass(frozen=True)
class Drawn:
    """One draw's figures; see report.rows.noise.NoiseRow."""

    l1: float
    label_flips: float
    accuracy: float | None
    rms: float
    largest: float


def drawn(oracle: InProcessOracle, images: torch.Tensor, labels: torch.Tensor | None) -> Drawn:
    """What one draw does to `images` (N,C,S,S), with their labels (N,) where they have some."""
    pipeline = oracle.pipeline
    member = pipeline.graphs[pipeline.policy.members[0]]
    noisy, clean, h = [], [], []
    for part in (part.numpy() for part in images.split(pipeline.policy.max_rows)):
        seen = pipeline.perturbed(part)
        h.append((seen - part).reshape(len(part), -1))
        noisy.append(member(seen)["probabilities"])
        clean.append(member(part)["probabilities"])
    answers, plain, added = np.concatenate(noisy), np.concatenate(clean), np.concatenate(h)
    found = answers.argmax(1)
    return Drawn(
        l1=float(np.abs(answers - plain).sum(1).mean()),
        label_flips=float((found != plain.argmax(1)).mean()),
        accuracy=None if labels is None else float((found == labels.numpy()).mean()),
        rms=float(np.sqrt(np.square(added).mean(1)).mean()),
        largest=float(np.abs(added).max()),
    )


def line(row: NoiseRow) -> str:
    """A row's line on the terminal."""
    return f"{row.recipe}-{row.policy}, {row.traffic}: l1 {np.mean(row.l1):.4f}, RMS of h {row.rms:.3f}"


STUDY = Study(
    "input-noise",
    "what input noise does to answers",
    study,
    policies="policies with noise and one member",
    sections=("noise",),
)
