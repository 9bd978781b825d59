"""A gate's graph in fewer bits: what it saves in time, and what detection loses: "gate_precision" of a report.

    python -m bench.costs precision RECIPE --policies same-observe --run reports/RECIPE

Each format of CONVERT is put into the archive's own pipeline in place of the float32 graph. Time is of
the graph alone, on one thread, all formats in turn round after round. AUROC is against the recipe's attackers
(evaluation/recordings.py), and the benign rows flagged are those above the archive's threshold, which was calibrated
with float32. A format that the runtime cannot open or run is reported with the reason; a format slower than
float32 is reported like any other.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime import quantization
from onnxruntime.transformers import float16

from bench.costs.gates import BATCHES, SECONDS, alone, gate_file
from bench.costs.timing import PARTS, timing
from bench.inprocess import Images, in_process
from bench.rounds import interleaved
from evaluation import recordings, roc
from evaluation.detectors import gate
from evaluation.matrix import Job
from evaluation.oracles import InProcessOracle
from evaluation.recordings import Stream
from evaluation.studies.study import Found, Study, Task
from handlers.backends import OnnxGraph
from report.format import ratio
from report.rows.gates import GatePrecisionRow
from zoo import datasets

FLOAT32 = "float32"
# benign images of the training split that ranges are taken from
CALIBRATION = 256
# of each traffic that is scored
ROWS = 4000
# what holds nearly all of the arithmetic; sums of squares and softmax would lose what a score is made of
OPERATORS = ["Conv", "ConvTranspose", "MatMul", "Gemm"]
CALIBRATION_BATCH = 32

Convert = Callable[[Path, Path, Images], None]
"""(from, to, benign images (N,C,H,W) to calibrate on)"""


@dataclass(frozen=True)
class Tried:
    """One format of one gate. path: its graph. auroc: by traffic; flagged: of benign rows. failed: why it has none."""

    format: str
    path: Path
    auroc: Mapping[str, float] = field(default_factory=dict)
    flagged: float | None = None
    failed: str | None = None


def study(task: Task, *, batches: Sequence[int], rounds: int, seconds: float) -> Iterator[Found]:
    """A row for each policy, size of batch and format."""
    yield Found(settings={"gate_precision.rounds": rounds, "gate_precision.calibration": CALIBRATION})
    job = task.job
    streams = recordings.recorded(job)
    training = task.recipe.section("dataset", datasets.Data).load("train", task.data)
    calibration = np.ascontiguousarray(training.pixels[:CALIBRATION].numpy())
    for _, oracle in task.oracles():
        rows: list[GatePrecisionRow] = []
        with tempfile.TemporaryDirectory() as folder:
            tried = list(formats(oracle, job, streams, calibration, Path(folder)))
            for batch in batches:
                rows += measure(oracle, job, tried, batch=batch, rounds=rounds, seconds=seconds)
        yield Found(rows, says=lines(rows))


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
    worn.graphs = {**own.graphs, oracle.gate_graph: OnnxGraph(path, threads=1, gpu=None)}
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
            call = alone(oracle, oracle.gate_graph)
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


def lines(rows: Sequence[GatePrecisionRow]) -> str:
    """A line a row."""
    return "\n".join(
        f"{row.policy}, {row.format}, batches of {row.batch}: "
        + (row.failed or f"{row.us:.0f} us a row, {row.times:.2f} times float32, AUROC {_short(row.auroc)}")
        for row in rows
    )


def _short(auroc: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in auroc.items())


def int8_dynamic(source: Path, target: Path, images: Images) -> None:
    """Weights in 8 bits, activations in 8 bits whose range is measured again in every call. `images` are not needed."""
    with tempfile.TemporaryDirectory() as folder:
        quantization.quantize_dynamic(
            _prepared(source, folder), target, weight_type=quantization.QuantType.QUInt8, op_types_to_quantize=OPERATORS
        )


def int8_static(source: Path, target: Path, images: Images) -> None:
    """Weights in 8 bits a channel, activations in 8 bits whose range is taken from `images`, as QuantizeLinear and
    DequantizeLinear around each operator (QDQ)."""
    with tempfile.TemporaryDirectory() as folder:
        quantization.quantize_static(
            _prepared(source, folder),
            target,
            _Reader(images, onnx.load(source).graph.input[0].name),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=OPERATORS,
        )


def half(source: Path, target: Path, images: Images) -> None:
    """float16 inside, float32 at the graph's inputs and outputs. `images` are not needed."""
    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def brain(source: Path, target: Path, images: Images) -> None:
    """The same in bfloat16: float32's range in 8 bits of fraction."""
    model = float16.convert_float_to_float16(onnx.load(source), keep_io_types=True)
    weights = {each.name: each for each in onnx.load(source).graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            exact = weights.get(tensor.name, tensor)
            _as_bfloat16(tensor, onnx.numpy_helper.to_array(exact).astype(np.float32))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            if attribute.t.data_type == TensorProto.FLOAT16:
                _as_bfloat16(attribute.t, onnx.numpy_helper.to_array(attribute.t).astype(np.float32))
    for value in model.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    onnx.save(model, target)


CONVERT: Mapping[str, Convert] = {
    "int8-dynamic": int8_dynamic,
    "int8-static": int8_static,
    "float16": half,
    "bfloat16": brain,
}


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Batches of images by the name of the graph's input, one for each call, then None."""

    def __init__(self, images: Images, name: str) -> None:
        self._batches: Iterator[dict[str, Images]] = (
            {name: images[first : first + CALIBRATION_BATCH]} for first in range(0, len(images), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, Images] | None:
        return next(self._batches, None)


def _prepared(source: Path, folder: str) -> Path:
    """The graph optimised and its shapes inferred, as the quantisers ask for, in `folder`."""
    path = Path(folder) / "prepared.onnx"
    quantization.quant_pre_process(source, path, skip_symbolic_shape=True)
    model = onnx.load(path)
    del model.graph.value_info[:]  # the quantisers turn weights around, and then trip over the shapes stated before
    onnx.save(model, path)
    return path


def _as_bfloat16(tensor: TensorProto, values: NDArray[np.float32]) -> None:
    """Rounds to the nearest; the tensor's name and shape stay."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    tensor.ClearField("int32_data")
    tensor.raw_data = rounded.tobytes()
    tensor.data_type = TensorProto.BFLOAT16


STUDY = Study(
    "precision",
    "gates in fewer bits",
    study,
    policies="policies with a gate",
    sections=("gate_precision",),
    options=timing(batches=BATCHES, seconds=SECONDS),
    one_thread=True,
)
