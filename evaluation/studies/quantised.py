"""What a precision costs a policy's users: the "quantised" rows of report.json, measured in process.

    python -m evaluation.studies quantised RECIPE --policies undefended undefended-int8 --run reports/RECIPE

A policy NAME-int8 and its twin NAME answer the test split through their archives, with the same key and the same draws
of noise. Accuracy of both and the share of equal labels; of the graphs, what the rule of acceptance saw of them on the
validation split (export/quantise.py wrote it into their metadata).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from attacks import metrics
from evaluation.oracles import InProcessOracle
from evaluation.studies.study import Found, Study, StudyError, Task
from recipes.policies import narrowed, twin
from report.rows.quantised import QuantisedRow

SEED = 0
# of a graph's metadata
ENTRY = "precision"


def study(task: Task) -> Iterator[Found]:
    """A row for each policy with a precision. Raises StudyError where there is none, or its twin is not among them."""
    tables = task.recipe.tables["policies"]
    narrow = [name for name in task.policies if narrowed(tables[name])]
    if not narrow:
        raise StudyError("expected a policy NAME-int8 with precision = 'int8', and NAME, got none")
    for policy in narrow:
        precision = str(tables[policy]["precision"])
        plain = twin(policy, tables)
        if plain is None or plain not in task.policies:
            raise StudyError(f"{policy}: expected the name NAME-{precision}, and NAME among the policies")
        row = measure(task, policy, plain, precision)
        yield Found(
            [row],
            says=f"{row.recipe}-{policy}: accuracy {row.accuracy:.4f} (float32 {row.float32_accuracy:.4f}), "
            f"labels equal {row.agreement:.4f}, {row.layers - row.kept} of {row.layers} layers in {precision}",
        )


def measure(task: Task, policy: str, plain: str, precision: str) -> QuantisedRow:
    """The row of one policy."""
    assert task.test.labels is not None, "a recipe's data set is labelled"
    with InProcessOracle(task.archive(plain), seed=SEED, pay=True) as oracle:
        full, whole = oracle(task.test.pixels), weight(oracle)
    with InProcessOracle(task.archive(policy), seed=SEED, pay=True) as oracle:
        got, narrow = oracle(task.test.pixels), weight(oracle)
        stated = [json.loads(text) for text in noted(oracle)]
    return QuantisedRow(
        recipe=task.recipe.name,
        policy=policy,
        precision=precision,
        images=len(task.test),
        accuracy=metrics.accuracy(got.labels, task.test.labels),
        float32_accuracy=metrics.accuracy(full.labels, task.test.labels),
        agreement=float((got.labels == full.labels).double().mean()),
        layers=sum(each["layers"] for each in stated),
        kept=sum(len(each["kept"]) for each in stated),
        method=", ".join(sorted({each["method"] for each in stated})),
        held=min(each["agreement"] for each in stated),
        megabytes=narrow,
        float32_megabytes=whole,
    )


def answering(oracle: InProcessOracle) -> list[str]:
    """The graphs that answer or perturb: those that have the policy's precision."""
    policy = oracle.pipeline.policy
    return [*policy.members, *([policy.perturb.graph] if policy.perturb else [])]


def noted(oracle: InProcessOracle) -> list[str]:
    """What the rule wrote into the graphs' metadata."""
    return [oracle.pipeline.graphs[name].metadata[ENTRY] for name in answering(oracle)]  # type: ignore[attr-defined]


def weight(oracle: InProcessOracle) -> float:
    """Megabytes of the graphs' files."""
    files = [Path(oracle.folder) / "graphs" / f"{name}.onnx" for name in answering(oracle)]
    return round(sum(path.stat().st_size for path in files) / 1e6, 3)


STUDY = Study(
    "quantised",
    "what a precision costs its users",
    study,
    policies="policies with a precision, and their float32 twins, whose archives are in the store",
    sections=("quantised",),
)
