"""A policy's graphs as one: hash, router, members on their rows and the gate in a single ONNX file. Does it pay?

    python -m bench.fusing bench-conv3 bench-resnet18 [--policies edm same-reject] [--gpu]

One graph saves the hops between them: numpy that groups rows, calls into the runtime, on a GPU the way to the host and
back. In it

    value   = the leaf of the hyperplanes' tree that a row's projections fall into     (defenses/routing.py: Projection)
    member  = table[value]
    answers = each member's graph on the rows where member = i, put back in their places

The table depends on the deployment's key, so it is an input that the caller feeds: no file holds it. A member that no
row goes to runs on a batch of none. A gate's graph adds its outputs to the answers.

Timed are the archive's pipeline and the one graph alone, without the Python that a policy would still need around it
(its checks, the gate's score, the response), in interleaved rounds: the one graph is flattered. Before, both must agree
to `BOUND` on every batch size from 1 to `MOST_ROWS`, and on the members exactly. Writes results/fusing.json.

--gpu: on CUDA, where the installed onnxruntime has it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import recipes
from bench import overhttp, studies
from bench.inprocess import in_process, pipeline
from bench.overhttp import BenchError
from bench.rounds import interleaved
from bench.studies import Subject
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.traffic import SEED
from handlers.errors import LoadError
from loadtests.own_server import ServerError
from report.headline import UNDEFENDED
from report.rows.fusing import FusingRow
from report.schema import Report, run_info, write

POLICIES = ("edm", "same-reject")
BATCHES = (1, 8, 32)
THREADS = (1, 2)
ROUNDS = 5
SECONDS = 0.3
MOST_ROWS = 33
BOUND = 1e-6

IMAGES, TABLE = "images", "table"


class FusingError(RuntimeError):
    """A policy whose graphs cannot be one, or one that answers otherwise."""


class Fused:
    """The one graph of an archive: images (N,C,H,W) to its outputs by name, `member` (N,) int64 among them where the
    policy routes. Raises FusingError where its graphs cannot be one."""

    def __init__(self, oracle: InProcessOracle, *, gpu: bool = False) -> None:
        policy = oracle.pipeline.policy
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = policy.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [*(["CUDAExecutionProvider"] if gpu else []), "CPUExecutionProvider"]
        model = fused(oracle).SerializeToString()
        self._session = onnxruntime.InferenceSession(model, options, providers=providers)
        self._names = [output.name for output in self._session.get_outputs()]
        self._given = {} if policy.route is None else {TABLE: table(oracle)}

    def __call__(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        outputs = self._session.run(self._names, {IMAGES: images, **self._given})
        return dict(zip(self._names, outputs, strict=True))


def table(oracle: InProcessOracle) -> NDArray[np.int64]:
    """The member of each hash value, as the deployment's key has it: the pipeline's own, which is secret."""
    router = oracle.pipeline._router  # what a member table is, nobody else may know
    assert router is not None, "a policy that routes has a router"
    return router.table


def fused(oracle: InProcessOracle) -> onnx.ModelProto:
    """The one graph of an archive's policy. Raises FusingError."""
    policy = oracle.pipeline.policy
    unknown = [name for name in ("perturb", "average") if getattr(policy, name)]
    if policy.backend != "onnxruntime" or unknown or policy.consulted:
        raise FusingError(f"{policy.policy}: expected ONNX graphs that route, answer or judge, and no others")
    if policy.route is not None and policy.route.hash != "projection":
        raise FusingError(f"{policy.policy}: expected the hash 'projection', got {policy.route.hash!r}")
    graphs = oracle.folder / "graphs"
    classes = len(policy.class_names)
    whole = _Graph()
    if policy.route is None:
        whole.add(graphs / f"{policy.members[0]}.onnx", IMAGES, {"probabilities": "probabilities"})
    else:
        whole.add(graphs / f"{policy.route.graph}.onnx", IMAGES, {"projections": "projections"})
        whole.route(policy.route.options["depth"])
        for number, member in enumerate(policy.members):
            whole.select(number)
            whole.add(graphs / f"{member}.onnx", f"images-{number}", {"probabilities": f"answers-{number}"})
        whole.gather(len(policy.members))
    outputs = {"probabilities": classes}
    if policy.gate is not None:
        judged = policy.gate.reads(classes)
        whole.add(graphs / f"{policy.gate.graph}.onnx", IMAGES, {name: name for name in judged})
        outputs |= judged
    return whole.model(policy.input.shape, outputs, routed=policy.route is not None)


class _Graph:
    """An ONNX graph that grows: nodes and weights of other files, under names of their own, and nodes between them."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._functions: list[onnx.FunctionProto] = []
        self._opsets: dict[str, int] = {}
        self._parts = 0
        self._ir_version = 0

    def add(self, path: Path, images: str, outputs: Mapping[str, str]) -> None:
        """Another file's graph on the tensor `images`. outputs: of those that are used, the names they get here."""
        part = onnx.compose.add_prefix(onnx.load(path), f"part{self._parts}/")
        prefix, self._parts = f"part{self._parts}/", self._parts + 1
        self.node("Identity", [images], part.graph.input[0].name)
        self._nodes += part.graph.node
        self._weights += part.graph.initializer
        self._functions += part.functions
        self._ir_version = max(self._ir_version, part.ir_version)
        for opset in part.opset_import:
            self._opsets[opset.domain] = max(opset.version, self._opsets.get(opset.domain, 0))
        for theirs, ours in outputs.items():
            self.node("Identity", [f"{prefix}{theirs}"], ours)

    def route(self, depth: int) -> None:
        """From `projections` (N,P) to `member` (N,): down a tree whose node p has the children 2p + 1 and 2p + 2."""
        self.weight("zero", np.float32(0))
        self.weight("two", np.int64(2))
        self.weight("leaves", np.int64(2**depth - 1))
        self.weight("column", np.array([1], np.int64))
        self.node("Greater", ["projections", "zero"], "above")
        self.node("Cast", ["above"], "right", to=TensorProto.INT64)
        self.weight("one", np.int64(1))
        self.node("Add", ["right", "one"], "step")
        self.node("Slice", ["right", "first", "last", "column"], "any")
        self.weight("first", np.array([0], np.int64))
        self.weight("last", np.array([1], np.int64))
        self.node("Sub", ["any", "any"], "node-0")  # (N,1) of zeros
        for level in range(depth):
            self.node("GatherElements", ["step", f"node-{level}"], f"step-{level}", axis=1)
            self.node("Mul", [f"node-{level}", "two"], f"left-{level}")
            self.node("Add", [f"left-{level}", f"step-{level}"], f"node-{level + 1}")
        self.node("Sub", [f"node-{depth}", "leaves"], "leaf")
        self.node("Squeeze", ["leaf", "column"], "value")
        self.node("Gather", [TABLE, "value"], "member")

    def select(self, number: int) -> None:
        """`images-NUMBER`, those of member NUMBER, and `rows-NUMBER` (n,1), where they stand."""
        self.weight(f"number-{number}", np.int64(number))
        self.node("Equal", ["member", f"number-{number}"], f"mine-{number}")
        self.node("NonZero", [f"mine-{number}"], f"found-{number}")
        self.node("Transpose", [f"found-{number}"], f"rows-{number}", perm=[1, 0])
        self.node("Squeeze", [f"rows-{number}", "column"], f"flat-{number}")
        self.node("Gather", [IMAGES, f"flat-{number}"], f"images-{number}", axis=0)

    def gather(self, members: int) -> None:
        """`probabilities` (N,K): what the members answered, each row in its place."""
        self.node("Concat", [f"rows-{number}" for number in range(members)], "rows", axis=0)
        self.node("Concat", [f"answers-{number}" for number in range(members)], "answers", axis=0)
        # every row is one member's, so all of what is written over is written over
        self.node("ScatterND", ["answers", "rows", "answers"], "probabilities")

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))

    def weight(self, name: str, value: Any) -> None:
        self._weights.append(numpy_helper.from_array(np.asarray(value), name))

    def model(self, shape: tuple[int, ...], columns: Mapping[str, int], *, routed: bool) -> onnx.ModelProto:
        """The graph on images of a shape (C,H,W). columns: of its float outputs, by name."""
        inputs = [helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, ["n", *shape])]
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", count]) for name, count in columns.items()
        ]
        if routed:
            inputs.append(helper.make_tensor_value_info(TABLE, TensorProto.INT64, ["values"]))
            outputs.append(helper.make_tensor_value_info("member", TensorProto.INT64, ["n"]))
        graph = helper.make_graph(self._nodes, "fused", inputs, outputs, self._weights)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        model = helper.make_model(graph, opset_imports=opsets, functions=self._functions, ir_version=self._ir_version)
        onnx.checker.check_model(model)
        return model


def parity(oracle: InProcessOracle, one: Fused, rows: NDArray[np.float32]) -> float:
    """The largest difference of a probability, over all batch sizes and batches of one member. Raises FusingError."""
    policy = oracle.pipeline.policy
    members = oracle.pipeline(rows).members
    batches = [rows[:count] for count in range(1, min(MOST_ROWS, len(rows)) + 1)]
    batches += [rows[members == member] for member in np.unique(members)]
    largest = 0.0
    for images in batches:
        answers, outputs = oracle.pipeline(np.ascontiguousarray(images)), one(np.ascontiguousarray(images))
        assert answers.probabilities is not None, "a policy that is fused shows its probabilities"
        difference = float(np.abs(outputs["probabilities"] - answers.probabilities).max())
        if not difference <= BOUND or ("member" in outputs and (outputs["member"] != answers.members).any()):
            raise FusingError(
                f"{policy.recipe}-{policy.policy}: expected one graph to answer {len(images)} rows as the separate "
                f"ones do, to {BOUND:.0e} and by the same members, got a difference of {difference:.1e}"
            )
        largest = max(largest, difference)
    return largest


def measure(
    subject: Subject, policy: str, *, threads: int, rounds: int, seconds: float, gpu: bool = False
) -> Iterator[FusingRow]:
    """A row for each of BATCHES. Raises FusingError."""
    rows = subject.rows[policy]
    with _opened(subject.onnx[policy], threads) as oracle:
        one = Fused(oracle, gpu=gpu)
        difference = parity(oracle, one, rows)

        def alone(images: NDArray[np.float32]) -> Mapping[str, float]:
            one(images)
            return {}

        named: dict[str, Any] = {"policy": policy, "architecture": subject.architecture, "path": "pipeline"}
        for batch in BATCHES:
            probes = [
                in_process(call, rows, batch=batch, seconds=seconds, **named) for call in (pipeline(oracle), alone)
            ]
            separate, whole = interleaved(probes, rounds=rounds, name=f"{policy}, {threads} threads, {batch} rows")
            yield FusingRow(
                subject.architecture, policy, threads, batch, separate.p50_rounds, whole.p50_rounds, difference
            )


@contextmanager
def _opened(archive: Path, threads: int) -> Iterator[InProcessOracle]:
    """An archive with so many threads."""
    as_served = dataclasses.replace(overhttp.serving(archive), threads=threads)
    with (
        tempfile.TemporaryDirectory(prefix="torchwarden-fusing-") as private,
        InProcessOracle(overhttp.reserve(archive, as_served, Path(private), archive.stem)) as oracle,
    ):
        yield oracle


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot be measured is a message and exit code 1, and nothing is written."""
    options = _parser().parse_args(arguments)
    started = datetime.now(timezone.utc)
    rows: list[FusingRow] = []
    try:
        if options.gpu and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise FusingError("--gpu: the installed onnxruntime has no CUDA; `make setup GPU=1` installs one that does")
        for name in options.recipes:
            wanted = [UNDEFENDED, studies.EDM, *options.policies]
            subject = studies.prepare(recipes.read(name), policies=wanted, store=options.store, data=options.data)
            for policy in options.policies:
                for threads in options.threads if policy in subject.onnx else ():
                    rows += measure(
                        subject, policy, threads=threads, rounds=options.rounds, seconds=SECONDS, gpu=options.gpu
                    )
    except (recipes.RecipeError, OracleError, LoadError, BenchError, ServerError, FusingError) as error:
        sys.exit(f"bench.fusing: {error}")
    run = run_info(seed=SEED, started=started, settings={"rounds": options.rounds, "seconds": SECONDS})
    run = dataclasses.replace(run, gpu=run.gpu if options.gpu else None)
    write(options.output, Report(run, fusing=tuple(rows)))
    print(options.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.fusing", description="a policy's graphs as one")
    parser.add_argument("recipes", nargs="+", help="recipes whose archives are built, such as bench-conv3")
    parser.add_argument("--policies", nargs="+", default=POLICIES, help="those of them that a recipe has")
    parser.add_argument("--threads", nargs="+", type=int, default=THREADS, help="(1 2)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"({ROUNDS})")
    parser.add_argument("--gpu", action="store_true", help="on CUDA")
    parser.add_argument("--output", type=Path, default=Path("results/fusing.json"), help="(results/fusing.json)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="holds the archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser


if __name__ == "__main__":
    main()
