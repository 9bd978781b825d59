"""How far members agree on an attacker's images: "coherence" rows of a report (EDM, ICLR 2021, equation 1, Figure 5).

    python -m evaluation.studies coherence RECIPE --policies ensemble edm --run reports/RECIPE

coherence(x) = the largest cosine between the answers of any two members to x, in [0, 1]. An attacker never sees it:
each query is answered by one member. It is read here from all members of an archive, on every kind of traffic of
evaluation/traffic.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.study import Found, Study, Task
from evaluation.traffic import kinds
from report.rows.routing import CoherenceRow

ROWS = 5000


def study(task: Task) -> Iterator[Found]:
    """A row for each policy and kind of traffic."""
    traffic = dict(kinds(task.recipe, task.test, task.data))
    for policy, oracle in task.oracles():
        rows = list(measure(oracle, traffic, recipe=task.recipe.name, policy=policy))
        yield Found(rows, says="\n".join(map(line, rows)))


def measure(
    oracle: InProcessOracle, traffic: dict[str, torch.Tensor], *, recipe: str, policy: str
) -> Iterator[CoherenceRow]:
    """One row for each kind of traffic, on at most ROWS of its images. Raises OracleError where there is one member."""
    members = oracle.pipeline.policy.members
    if len(members) < 2:
        raise OracleError(f"{recipe}-{policy}: coherence is between members; this policy has one")
    for name, images in traffic.items():
        values = coherence(oracle.everyone(images[:ROWS]))
        yield CoherenceRow(
            recipe,
            policy,
            name,
            images=len(values),
            mean=float(values.mean()),
            percentiles=tuple(float(value) for value in np.percentile(values, np.arange(101))),
        )


def coherence(answers: torch.Tensor) -> np.ndarray:
    """Equation 1 of every image: (N, members, K) float32 probabilities to (N,) in [0, 1]."""
    unit = torch.nn.functional.normalize(answers.double(), dim=-1)
    gram = unit @ unit.transpose(1, 2)
    first, second = torch.triu_indices(answers.shape[1], answers.shape[1], offset=1)
    largest: np.ndarray = gram[:, first, second].amax(1).clamp(0, 1).numpy()
    return largest


def line(row: CoherenceRow) -> str:
    """A row's line on the terminal."""
    return f"{row.recipe}-{row.policy}, {row.traffic}: mean coherence {row.mean:.3f}"


STUDY = Study(
    "coherence",
    "how far members agree on an attacker's images",
    study,
    policies="policies of several members",
    sections=("coherence",),
)
