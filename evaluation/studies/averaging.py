"""How much of a policy's noise averaging removes: the "denoising" rows of a report.

    python -m evaluation.studies averaging RECIPE --policies meco meco-keyed --run reports/RECIPE

An attacker asks about an image x in K copies, identical or jittered by a grey level or two (attacks/forms/jittered.py),
and believes the mean answer. Here that mean is compared with T(x), which no client sees: what the draws do not have in
common goes with 1 / sqrt(K), what they have in common, E[T(x + h)] - T(x), stays. With keyed noise identical copies
have all in common. The first K of one set of copies are averaged, so a line over K is one attacker who goes on asking.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from attacks.forms.jittered import STRENGTH
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.study import Found, Study, Task
from evaluation.traffic import SEED, kinds
from report.rows.noise import DenoisingRow
from zoo.augment import Variation

COPIES = (1, 2, 4, 8, 16)
IMAGES = 500
COPYING: dict[str, Variation | None] = {"identical": None, "jittered": STRENGTH}
# traffic of evaluation.traffic, by how its names begin
TRAFFIC = ("benign (", "thief (", "untrained generators")


def study(task: Task) -> Iterator[Found]:
    """A row for each policy, kind of traffic, of copies, and their number."""
    kept = kinds(task.recipe, task.test, task.data)
    by_kind = {name: images[:IMAGES] for name, images in kept if name.startswith(TRAFFIC)}
    for policy, oracle in task.oracles(seed=SEED):
        rows = list(measure(oracle, by_kind, recipe=task.recipe.name, policy=policy))
        yield Found(rows, says="\n".join(map(line, rows)))


def measure(
    oracle: InProcessOracle, by_kind: dict[str, torch.Tensor], *, recipe: str, policy: str
) -> Iterator[DenoisingRow]:
    """The rows of one policy. Raises OracleError where it has several members or returns no probabilities."""
    if len(oracle.pipeline.policy.members) != 1:
        raise OracleError(f"{recipe}-{policy}: expected a policy of one member")
    for name, images in by_kind.items():
        clean = oracle.everyone(images)[:, 0]
        for copying, strength in COPYING.items():
            answers = asked(oracle, images, strength)
            for copies in COPIES:
                mean = answers[:, :copies].mean(1)
                yield DenoisingRow(
                    recipe,
                    policy,
                    name,
                    copying,
                    copies,
                    images=len(images),
                    l1=(mean - clean).abs().sum(1).mean().item(),
                    kept=(mean.argmax(1) == clean.argmax(1)).float().mean().item(),
                )


def asked(oracle: InProcessOracle, images: torch.Tensor, strength: Variation | None) -> torch.Tensor:
    """The answers (N, copies, K) float32 to the most copies of each of N images. Raises OracleError."""
    most = max(COPIES)
    copies = images.repeat_interleave(most, dim=0)
    if strength is not None:
        copies = strength(copies, generator=torch.Generator().manual_seed(SEED)).clamp(0, 1)
    answers = oracle(copies).probabilities
    if answers is None:
        raise OracleError("expected probabilities to average, the policy returns labels only")
    return answers.view(len(images), most, -1)


def line(row: DenoisingRow) -> str:
    """A row's line on the terminal."""
    return f"{row.recipe}-{row.policy}, {row.traffic}, {row.copies} {row.copying} copies: l1 {row.l1:.4f}"


STUDY = Study(
    "averaging",
    "how much of a policy's noise an attacker removes by averaging",
    study,
    policies="policies of one member that return probabilities",
    sections=("denoising",),
)
