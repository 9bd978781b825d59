"""The paths to an answer without a server: ONNX Runtime on the bare graph, and the archive's own pipeline.

    a row's time in the pipeline = graphs + Python
    a stage's own Python         = Python of a policy that has it - Python of `undefended`

The router's own, say, is the hash values, the table and the grouping of rows, without the hash graph.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import perf_counter, process_time, time
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from bench.overhttp import BenchError
from bench.rounds import Probe, Sample
from evaluation.oracles import InProcessOracle
from handlers.key import read_key
from recipes import Recipe
from zoo import datasets
from zoo.images import size_of

Images = NDArray[np.float32]
# Wall seconds by stage of one call.
Call = Callable[[Images], Mapping[str, float]]

OF_A_KIND = 250
ROWS_A_MEMBER = 32
# a row that a smaller share of benign images outdoes is left out: a threshold may be near
ORDINARY = 0.1
SEED = 0


def candidates(data: datasets.Data, root: Path | None) -> torch.Tensor:
    """Images of several kinds at the recipe's geometry, float32 (N,C,H,W), multiples of 1/255 as in a PNG file."""
    test = data.load("test", root)
    channels, size = test.stored.shape[1], size_of(test.stored)
    crops = [datasets.load(name, "test", size=size, channels=channels).pixels for name in ("flower", "china")]
    noise = torch.rand(OF_A_KIND, *test.pixels.shape[1:], generator=torch.Generator().manual_seed(SEED))
    kinds = [test.pixels, *crops, noise]
    return torch.cat([kind[:OF_A_KIND] for kind in kinds]).mul(255).round().div(255)


def shuffled(recipe: Recipe, root: Path | None) -> Images:
    """A recipe's candidates (N,C,H,W) in an order drawn once, so that any first part has every kind."""
    images = candidates(recipe.section("dataset", datasets.Data), root).numpy()
    drawn: Images = images[np.random.default_rng(SEED).permutation(len(images))]
    return drawn


def unsuspected(oracles: Iterable[InProcessOracle], images: torch.Tensor) -> torch.Tensor:
    """Those of `images` (N,C,H,W) that no gate of the archives finds remarkable. Raises BenchError if none are left."""
    judged = set()
    for oracle in oracles:
        gate = oracle.pipeline.policy.gate
        # gates that differ in what becomes of a suspect alone score alike
        if gate is None or (score := (gate.graph, gate.form, gate.alpha)) in judged:
            continue
        judged.add(score)
        tails = [_tails(oracle, part.numpy()) for part in images.split(oracle.pipeline.policy.max_rows)]
        images = images[torch.from_numpy(np.concatenate(tails) > ORDINARY)]
        if not len(images):
            policy = oracle.pipeline.policy.policy
            raise BenchError(f"{policy}: its gate finds every image remarkable; calibrate it again")
    return images


def _tails(oracle: InProcessOracle, images: Images) -> NDArray[np.float64]:
    scores = oracle.pipeline(images).scores
    assert scores is not None, "a gate scores every row that nobody paid for"
    return scores.tail


def spread(images: torch.Tensor, members: torch.Tensor) -> Images:
    """Rows that go to every member in turn, (rows,C,H,W): the worst case for a router, whose batches split evenly.

    members: (N,) int64, who answers each image; a member that answers none is left out, one that answers few is
    asked the same again.
    """
    groups = [torch.nonzero(members == member).flatten().tolist() for member in members.unique().tolist()]
    turns = zip(*(itertools.islice(itertools.cycle(group), ROWS_A_MEMBER) for group in groups), strict=True)
    return np.ascontiguousarray(images[list(itertools.chain.from_iterable(turns))].numpy())


def in_process(call: Call, rows: Images, *, batch: int, seconds: float, **facts: Any) -> Probe:
    """A probe of `call` on batches of `rows`; a first, unmeasured call opens each measurement."""
    parts = [rows[first : first + batch] for first in range(0, len(rows) - batch + 1, batch)]

    def measure(duration: float) -> Sample:
        call(parts[0])
        latencies: list[float] = []
        stages: dict[str, float] = defaultdict(float)
        cpu, begun = process_time(), perf_counter()
        now = begun
        for part in itertools.cycle(parts):
            started = now
            spent_by_stage = call(part)
            now = perf_counter()
            latencies.append(1000 * (now - started))
            for name, spent in spent_by_stage.items():
                stages[name] += spent
            if now - begun >= duration:
                break
        answered = batch * len(latencies)
        return Sample(
            np.array(latencies),
            rows_per_s=answered / (now - begun),
            cpu_ms={"process": 1000 * (process_time() - cpu) / answered},
            stages_ms={name: 1000 * total / answered for name, total in stages.items()},
        )

    return Probe({"batch": batch, "clients": 1, "body": None, **facts}, measure, seconds)


def bare(graph: Path, *, threads: int, spinning: bool) -> Call:
    """ONNX Runtime on a graph's file, with nothing of ours around it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def call(images: Images) -> Mapping[str, float]:
        session.run(None, {"images": images})
        return {}

    return call


def pipeline(oracle: InProcessOracle) -> Call:
    """The archive's pipeline; stages as it times them itself."""
    return lambda images: oracle.pipeline(images).seconds


def clocked(oracle: InProcessOracle) -> Call:
    """The archive's pipeline with a clock around every graph: seconds in "hash", "members", "others" and "python"."""
    policy = oracle.pipeline.policy
    spent: dict[str, float] = defaultdict(float)

    def clock(name: str, graph: Callable[..., Any]) -> Callable[..., Any]:
        routes = policy.route is not None and name == policy.route.graph
        where = "members" if name in policy.members else "hash" if routes else "others"

        def timed(*inputs: Images) -> Any:
            started = perf_counter()
            outputs = graph(*inputs)
            spent[where] += perf_counter() - started
            return outputs

        return timed

    graphs = {name: clock(name, graph) for name, graph in oracle.pipeline.graphs.items()}
    key = read_key(policy.key_env, os.environ) if policy.needs_key and policy.key_env else None
    random = np.random.default_rng(0)
    watched = type(oracle.pipeline)(
        policy, graphs, key=key, now=perf_counter, clock=time, random=random, entropy=os.urandom
    )

    def call(images: Images) -> Mapping[str, float]:
        spent.clear()
        started = perf_counter()
        watched(images)
        whole = perf_counter() - started
        return {**spent, "python": whole - sum(spent.values())}

    return call
