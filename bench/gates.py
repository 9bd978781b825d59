"""What a gate adds to an answer's time: the "gate_costs" rows of a report.

    python -m bench.gates RECIPE --policies same-observe same-small same-large --run reports/RECIPE

In one process, on one thread, round after round (bench/rounds.py): the graph of the predictor alone, the
gate's alone, the whole gated pipeline and, once for all policies, the undefended one. Policies whose gates differ in
size draw a frontier: what detection costs (evaluation/studies/detection.py tells what it brings).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import numpy as np
import onnx

import recipes
from bench.inprocess import Call, Images, in_process, pipeline
from bench.rounds import Probe, interleaved
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.traffic import SEED
from handlers.errors import LoadError
from report.format import ratio
from report.headline import UNDEFENDED
from report.rows.bench import BenchRow
from report.rows.gates import GateCostRow
from report.schema import Report, ResultError, merge, run_info
from zoo import datasets

BATCHES = (1, 32)
ROUNDS = 7
SECONDS = 0.3
# different batches that are answered in turn
PARTS = 4


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = command_line("gate_costs", "time that gates add")
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        names = [UNDEFENDED, *(name for name in dict.fromkeys(options.policies) if name != UNDEFENDED)]
        rows = []
        with ExitStack() as opened:
            oracles = {
                name: opened.enter_context(InProcessOracle(options.store / f"{recipe.name}-{name}.mar"))
                for name in names
            }
            for batch in options.batches:
                images = np.ascontiguousarray(test.pixels[: PARTS * batch].numpy())
                for row in measure(oracles, images, batch=batch, rounds=options.rounds, seconds=options.seconds):
                    rows.append(row)
                    print(told(row), flush=True)
        settings = {"gate_costs.rounds": options.rounds, "gate_costs.seconds": options.seconds}
        facts = run_info(seed=SEED, started=started, settings=settings)
        merge(options.run / "report.json", Report(facts, gate_costs=tuple(rows)))
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"bench.gates: {error}")


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


def graph_of(oracle: InProcessOracle) -> str:
    """The name of the gate's graph. Raises OracleError where the archive has none."""
    policy = oracle.pipeline.policy
    if policy.gate is None:
        raise OracleError(f"{policy.recipe}-{policy.policy}: expected a policy with a gate, got none")
    return policy.gate.graph


def gate_file(oracle: InProcessOracle) -> Path:
    """The ONNX file of the gate's graph. Raises OracleError where the archive has it in another form."""
    path = oracle.folder / "graphs" / f"{graph_of(oracle)}.onnx"
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
    return alone(oracle, policy.members[0]), alone(oracle, graph_of(oracle)), pipeline(oracle)


def _probe(call: Call, images: Images, policy: str, batch: int, seconds: float) -> Probe:
    return in_process(call, images, batch=batch, seconds=seconds, policy=policy, architecture="-", path="pipeline")


def _a_row(timed: BenchRow, batch: int) -> float:
    """Microseconds a row: median of the rounds' median batches."""
    return round(1000 * median(timed.p50_rounds) / batch, 2)


def told(row: GateCostRow) -> str:
    return (
        f"{row.policy}, batches of {row.batch}: predictor {row.predictor_us:.0f}, gate {row.gate_us:.0f}, all "
        f"{row.policy_us:.0f}, undefended {row.undefended_us:.0f} us a row, {row.ratio:.2f} times; "
        f"{row.parameters:,} parameters"
    )


def command_line(program: str, description: str) -> argparse.Namespace:
    """The command line of a program that times gates: of this one, and of bench.precision."""
    parser = argparse.ArgumentParser(prog=f"python -m loadtests.{program}", description=description)
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", required=True, help="policies with a gate")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="rows a call (1 32)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of measurements ({ROUNDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of one measurement ({SECONDS})")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    options = parser.parse_args()
    if min(*options.batches, options.rounds) < 1:
        parser.error(f"expected batches and rounds of at least 1, got {options.batches} and {options.rounds}")
    return options


if __name__ == "__main__":
    main()
