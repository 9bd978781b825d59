"""What a gate adds to an answer's time: the "gate_costs" rows of a report.

    python -m bench.costs gates RECIPE --policies same-observe same-small same-large --run reports/RECIPE

In one process, on one thread, round after round (bench/rounds.py): the graph of the predictor alone, the
gate's alone, the whole gated pipeline and, once for all policies, the undefended one. Policies whose gates differ in
size draw a frontier: what detection costs (evaluation/studies/detection.py measures what it brings).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from bench.costs.timing import PARTS, timing
from bench.inprocess import Call, Images, in_process, pipeline
from bench.rounds import Probe, interleaved
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.study import Found, Study, Task
from report.format import ratio
from report.headline import UNDEFENDED
from report.rows.bench import BenchRow
from report.rows.gates import GateCostRow

BATCHES = (1, 32)
SECONDS = 0.3


def study(task: Task, *, batches: Sequence[int], rounds: int, seconds: float) -> Iterator[Found]:
    """A row for each gated policy and size of batch; all archives are open at once, to take turns."""
    yield Found(settings={"gate_costs.rounds": rounds, "gate_costs.seconds": seconds})
    with ExitStack() as opened:
        oracles = {
            name: opened.enter_context(InProcessOracle(task.archive(name)))
            for name in dict.fromkeys((UNDEFENDED, *task.policies))
        }
        for batch in batches:
            images = np.ascontiguousarray(task.test.pixels[: PARTS * batch].numpy())
            for row in measure(oracles, images, batch=batch, rounds=rounds, seconds=seconds):
                yield Found([row], says=line(row))


def measure(
    oracles: Mapping[str, InProcessOracle], images: Images, *, batch: int, rounds: int, seconds: float
) -> Iterator[GateCostRow]:
    """A row for each gated policy of `oracles`, which holds `undefended` too, on `images` in batches of `batch`.

    Raises OracleError where a policy has no gate, or more threads than one.
    """
    gated = {name: oracle for name, oracle in oracles.items() if name != UNDEFENDED}
    probes = [_probe(pipeline(oracles[UNDEFENDED]), images, UNDEFENDED, batch, seconds)]
    for name, oracle in gated.items():
        probes += [_probe(call, images, name, batch, seconds) for call in _calls(oracle)]
    undefended, *timed = interleaved(probes, rounds=rounds, name=f"batches of {batch}")
    for number, (name, oracle) in enumerate(gated.items()):
        predictor, gate, policy = timed[3 * number : 3 * number + 3]
        parameters, size = weighed(gate_file(oracle))
        yield GateCostRow(
            recipe=oracle.pipeline.policy.recipe,
            policy=name,
            batch=batch,
            predictor_us=_a_row(predictor, batch),
            gate_us=_a_row(gate, batch),
            policy_us=_a_row(policy, batch),
            undefended_us=_a_row(undefended, batch),
            ratio=round(ratio(policy.p50_rounds, undefended.p50_rounds), 3),
            rounds=rounds,
            ratio_rounds=tuple(round(a / b, 3) for a, b in zip(policy.p50_rounds, undefended.p50_rounds, strict=True)),
            parameters=parameters,
            graph_bytes=size,
        )


def gate_file(oracle: InProcessOracle) -> Path:
    """The ONNX file of the gate's graph. Raises OracleError where the archive has it in another form."""
    path = oracle.folder / "graphs" / f"{oracle.gate_graph}.onnx"
    if not path.is_file():
        policy = oracle.pipeline.policy
        raise OracleError(f"{policy.recipe}-{policy.policy}: expected the backend onnxruntime, got {policy.backend!r}")
    return path


def alone(oracle: InProcessOracle, name: str) -> Call:
    """One graph of an archive, with nothing of the pipeline around it."""
    graph = oracle.pipeline.graphs[name]

    def call(images: Images) -> Mapping[str, float]:
        graph(images)
        return {}

    return call


def weighed(path: Path) -> tuple[int, int]:
    """How many numbers an ONNX file's weights hold, whole ones left out (shapes, axes), and its size in bytes."""
    whole = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    weights = onnx.load(path).graph.initializer
    return sum(math.prod(each.dims) for each in weights if each.data_type not in whole), path.stat().st_size


def _calls(oracle: InProcessOracle) -> Sequence[Call]:
    """The predictor, the gate, and all of it. Raises OracleError."""
    policy = oracle.pipeline.policy
    if policy.threads != 1:
        raise OracleError(f"{policy.recipe}-{policy.policy}: expected a policy of one thread, got {policy.threads}")
    return alone(oracle, policy.members[0]), alone(oracle, oracle.gate_graph), pipeline(oracle)


def _probe(call: Call, images: Images, policy: str, batch: int, seconds: float) -> Probe:
    return in_process(call, images, batch=batch, seconds=seconds, policy=policy, architecture="-", path="pipeline")


def _a_row(timed: BenchRow, batch: int) -> float:
    """Microseconds a row: median of the rounds' median batches."""
    return round(1000 * median(timed.p50_rounds) / batch, 2)


def line(row: GateCostRow) -> str:
    """A row's line on the terminal."""
    return (
        f"{row.policy}, batches of {row.batch}: predictor {row.predictor_us:.0f}, gate {row.gate_us:.0f}, all "
        f"{row.policy_us:.0f}, undefended {row.undefended_us:.0f} us a row, {row.ratio:.2f} times; "
        f"{row.parameters:,} parameters"
    )


STUDY = Study(
    "gates",
    "time that gates add",
    study,
    policies="policies with a gate",
    sections=("gate_costs",),
    options=timing(batches=BATCHES, seconds=SECONDS),
)
