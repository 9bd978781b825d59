"""A gate's graph in fewer bits: what it saves in time, and what detection loses: "gate_precision" of a report.

    python -m bench.precision RECIPE --policies same-observe --run reports/RECIPE

Each format of bench/number_formats.py is put into the archive's own pipeline in place of the float32 graph. Time is of
the graph alone, on one thread, all formats in turn round after round. AUROC is against the recipe's thieves
(evaluation/recordings.py), and the benign rows flagged are those above the archive's threshold, which was calibrated
with float32. A format that the runtime cannot open or run is told with the reason; the last digits of a format that
runs slower than float32 are told like any other's.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

import recipes
from bench.gates import PARTS, alone, command_line, gate_file, graph_of
from bench.inprocess import Images, in_process
from bench.number_formats import CONVERT
from bench.rounds import interleaved
from evaluation import recordings, roc
from evaluation.detectors import gate
from evaluation.matrix import Job
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.recordings import Stream
from evaluation.traffic import SEED
from handlers.backends import OnnxGraph
from handlers.errors import LoadError
from report.format import ratio
from report.rows.gates import GatePrecisionRow
from report.schema import Report, ResultError, merge, run_info
from zoo import datasets

FLOAT32 = "float32"
# benign images of the training split that ranges are taken from
CALIBRATION = 256
# of each traffic that is scored
ROWS = 4000


@dataclass(frozen=True)
class Tried:
    """One format of one gate. path: its graph. auroc: by traffic; flagged: of benign rows. failed: why it has none."""

    format: str
    path: Path
    auroc: Mapping[str, float] = field(default_factory=dict)
    flagged: float | None = None
    failed: str | None = None


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = command_line("gate_precision", "gates in fewer bits")
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        data = recipe.section("dataset", datasets.Data)
        job = Job(recipe, data.load("test", options.data), options.run, options.store, options.data)
        streams = recordings.recorded(job)
        calibration = np.ascontiguousarray(data.load("train", options.data).pixels[:CALIBRATION].numpy())
        rows: list[GatePrecisionRow] = []
        for policy in options.policies:
            with InProcessOracle(job.archive(policy)) as oracle, tempfile.TemporaryDirectory() as folder:
                tried = list(formats(oracle, job, streams, calibration, Path(folder)))
                for batch in options.batches:
                    rows += measure(oracle, job, tried, batch=batch, rounds=options.rounds, seconds=options.seconds)
            print(told([row for row in rows if row.policy == policy]), flush=True)
        settings = {"gate_precision.rounds": options.rounds, "gate_precision.calibration": CALIBRATION}
        facts = run_info(seed=SEED, started=started, settings=settings)
        merge(options.run / "report.json", Report(facts, gate_precision=tuple(rows)))
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"bench.precision: {error}")


def formats(
    oracle: InProcessOracle, job: Job, streams: Sequence[Stream], calibration: Images, folder: Path
) -> Iterator[Tried]:
    """Every format of an archive's gate, float32 first, in files of `folder`. Raises OracleError."""
    source = gate_file(oracle)
    yield _judged(oracle, job, streams, FLOAT32, source)
    for name, convert in CONVERT.items():
        path = folder / f"{name}.onnx"
        try:
            convert(source, path, calibration)
            with wearing(oracle, path):
                yield _judged(oracle, job, streams, name, path)
        except MemoryError:
            raise
        except Exception as error:  # converters and the runtime have their own for what they cannot do
            yield Tried(name, path, failed=reason(error, folder))


def _judged(oracle: InProcessOracle, job: Job, streams: Sequence[Stream], name: str, path: Path) -> Tried:
    """The figures of the gate as the oracle wears it."""
    policy = oracle.pipeline.policy
    assert policy.gate is not None, "gate_file has seen one"
    benign = gate(oracle, job.test.pixels[:ROWS])
    auroc = {
        part.traffic: roc.figures(benign, gate(oracle, stream.images[part.rows][:ROWS])).auroc
        for stream in streams
        for part in stream.whole
    }
    return Tried(name, path, auroc, flagged=float((benign > policy.gate.threshold).mean()))


@contextmanager
def wearing(oracle: InProcessOracle, path: Path) -> Iterator[None]:
    """The archive with another graph, the ONNX file at `path`, for its gate's; on one thread."""
    own = oracle.pipeline
    worn = copy.copy(own)
    worn.graphs = {**own.graphs, graph_of(oracle): OnnxGraph(path, threads=1, gpu=None)}
    oracle.pipeline = worn
    try:
        yield
    finally:
        oracle.pipeline = own


def measure(
    oracle: InProcessOracle, job: Job, tried: Sequence[Tried], *, batch: int, rounds: int, seconds: float
) -> Iterator[GatePrecisionRow]:
    """A row for each format in batches of `batch`, those that failed too."""
    images = np.ascontiguousarray(job.test.pixels[: PARTS * batch].numpy())
    works = [each for each in tried if each.failed is None]
    probes = []
    for each in works:
        with wearing(oracle, each.path):
            call = alone(oracle, graph_of(oracle))
        probes.append(
            in_process(
                call, images, batch=batch, seconds=seconds, policy=each.format, architecture="-", path="onnxruntime"
            )
        )
    timed = dict(zip((each.format for each in works), interleaved(probes, rounds=rounds, name="formats"), strict=True))
    for each in tried:
        row = timed.get(each.format)
        yield GatePrecisionRow(
            recipe=job.recipe.name,
            policy=oracle.pipeline.policy.policy,
            format=each.format,
            batch=batch,
            us=round(1000 * row.p50_ms / batch, 2) if row else None,
            times=round(ratio(row.p50_rounds, timed[FLOAT32].p50_rounds), 3) if row else None,
            graph_bytes=each.path.stat().st_size if row else None,
            flagged=each.flagged,
            failed=each.failed,
            auroc=dict(each.auroc),
        )


def reason(error: Exception, folder: Path) -> str:
    """Why a format failed, in a line without this machine's folders."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
    return f"{type(error).__name__}: {first.replace(str(folder), '')}"[:300]


def told(rows: Sequence[GatePrecisionRow]) -> str:
    """A line a row."""
    return "\n".join(
        f"{row.policy}, {row.format}, batches of {row.batch}: "
        + (row.failed or f"{row.us:.0f} us a row, {row.times:.2f} times float32, AUROC {_short(row.auroc)}")
        for row in rows
    )


def _short(auroc: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in auroc.items())


if __name__ == "__main__":
    torch.set_num_threads(1)  # as evaluation.studies.detection does, which made or makes the same recordings
    main()
