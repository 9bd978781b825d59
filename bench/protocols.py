"""What the protocol costs in which a row is asked: results/protocols.json.

    python -m bench.protocols bench-conv3

One server with the undefended archive, whose graph is small, so that little hides what goes around it. The same rows
take turns as raw float32, PNG, KServe's version 1, and the Open Inference Protocol's version 2: binary and JSON over
HTTP, and gRPC past deploy.grpc_front, at a unix socket as behind a gateway. Each form is asked by one client and by as
many as saturate the server. Before anything is timed, all forms must get a row's one answer.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import orjson
import psutil
from numpy.typing import NDArray

import recipes
from bench import closedloop, grpcloop, inprocess, overhttp
from bench.closedloop import ClientError, Driven
from bench.overhttp import BenchError, Server
from bench.rounds import Probe, Sample, interleaved
from deploy.grpc_front.messages import message
from evaluation.oracles import CHECKOUT
from handlers import oip, wire
from loadtests.own_server import ServerError
from loadtests.target import Target, TargetError
from report.headline import UNDEFENDED
from report.rows.bench import PROTOCOLS, BenchRow
from report.schema import Report, run_info, write

SATURATION = 64
ROUNDS = 7
SECONDS = 2.0
WARM_S = 12.0
ROWS = 64
# between answers to one row that differ by the batch that it was in
TOLERANCE = 1e-4

Images = NDArray[np.float32]
Told = tuple[int, NDArray[np.float32]]
"""A row's label and probabilities."""


@dataclass(frozen=True, eq=False)
class Form:
    """A row's form. length: of a request's body or message. drive: so many clients that ask for so many seconds.
    answers: of each row, once."""

    length: int
    drive: Callable[[int, float], Driven]
    answers: Callable[[], list[Told]]


def main() -> None:
    """Run the command line; what cannot be measured is a message and exit code 1, and nothing is written."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        archive = options.store / f"{recipe.name}-{UNDEFENDED}.mar"
        images = inprocess.shuffled(recipe, options.data)[:ROWS]
        rows, lengths = measured(archive, images, recipe.architecture, rounds=options.rounds, seconds=options.seconds)
    except (recipes.RecipeError, BenchError, ClientError, ServerError, TargetError, OSError) as error:
        sys.exit(f"bench.protocols: {error}")
    settings = {"archive": archive.stem, "rounds": options.rounds, "seconds": options.seconds, "bytes": lengths}
    write(options.output, Report(run_info(seed=inprocess.SEED, started=started, settings=settings), bench=tuple(rows)))
    print(options.output)


def measured(
    archive: Path, images: Images, architecture: str, *, rounds: int, seconds: float
) -> tuple[list[BenchRow], dict[str, int]]:
    """A row of each form for one client and for many, and the bytes of a request's body or message, by form.

    Raises BenchError, ClientError, ServerError."""
    with (
        tempfile.TemporaryDirectory(prefix="protocols-") as temporary,
        overhttp.server([archive], run_folder=Path(temporary) / "run") as running,
        front(running.target, Path(temporary)) as (address, process),
    ):
        forms = forms_of(running.target, archive.stem, images, address)
        check(forms)
        overhttp.warm(running, images, seconds=WARM_S)
        probes = [
            probe(running, archive, name, form, process, clients=clients, seconds=seconds, architecture=architecture)
            for clients in (1, SATURATION)
            for name, form in forms.items()
        ]
        rows = interleaved(probes, rounds=rounds, name="protocols")
        return rows, {name: form.length for name, form in forms.items()}


@contextlib.contextmanager
def front(target: Target, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """gRPC before a server: its address and its process, ended whatever happens."""
    address, log = f"unix:{folder}/grpc", folder / "front.log"
    words = ("--listen", address, "--to", target.inference, "--health")
    with (
        log.open("wb") as file,
        subprocess.Popen([sys.executable, "-m", "deploy.grpc_front", *words], cwd=CHECKOUT, stderr=file) as process,
    ):
        try:
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()


def forms_of(target: Target, model: str, images: Images, address: str) -> dict[str, Form]:
    """The forms by the names of PROTOCOLS."""
    rows = [image[np.newaxis] for image in images]
    ours, first, second = None, f"/v1/models/{model}:predict", target.inference_path(model)
    asked: dict[str, tuple[str | None, str, Callable[[Images], tuple[bytes, dict[str, str]]]]] = {
        "raw float32": (ours, wire.RAW, lambda row: (wire.encode_rows(row, wire.RAW), {})),
        "PNG": (ours, wire.PNG, lambda row: (wire.encode_rows(row, wire.PNG), {})),
        "KServe v1, JSON": (first, wire.JSON, lambda row: (wire.encode_rows(row, wire.JSON), {})),
        "OIP v2, binary": (second, wire.RAW, oip.encode_rows),
        "OIP v2, JSON": (second, wire.JSON, lambda row: (listed(row), {})),
    }
    forms = {
        name: over_http(target, model, [body(row) for row in rows], path, kind)
        for name, (path, kind, body) in asked.items()
    }
    return {**forms, "OIP v2, gRPC": over_grpc(target, model, rows, address)}


def over_http(
    target: Target, model: str, bodies: Sequence[tuple[bytes, Mapping[str, str]]], path: str | None, content_type: str
) -> Form:
    """A form whose requests are bodies with headers of their own."""
    requests = [closedloop.request(target, model, body, content_type, path=path, **headers) for body, headers in bodies]
    read = oip.decode_answers if path == target.inference_path(model) else wire.decode_answers

    def answers() -> list[Told]:
        return [told(*read(closedloop.ask(target, request))[:2]) for request in requests]

    def drive(clients: int, seconds: float) -> Driven:
        return closedloop.drive(target, requests, clients=clients, seconds=seconds)

    return Form(len(bodies[0][0]), drive, answers)


def over_grpc(target: Target, model: str, rows: Sequence[Images], address: str) -> Form:
    """The form whose requests are messages of gRPC."""
    metadata = {name.lower(): value for name, value in target.authorization.items()}
    messages = []
    for row in rows:
        request = message("ModelInferRequest")(model_name=model)
        request.inputs.add(name="images", datatype="FP32", shape=row.shape)
        request.raw_input_contents.append(np.ascontiguousarray(row, "<f4").tobytes())
        messages.append(request.SerializeToString())

    def answer(sent: bytes) -> Told:
        found = message("ModelInferResponse").FromString(grpcloop.ask(address, sent, metadata))
        packed = {out.name: raw for out, raw in zip(found.outputs, found.raw_output_contents, strict=True)}
        return told(np.frombuffer(packed["label"], "<i8"), np.frombuffer(packed["probabilities"], "<f4").reshape(1, -1))

    def drive(clients: int, seconds: float) -> Driven:
        return grpcloop.drive(address, messages, metadata, clients=clients, seconds=seconds)

    return Form(len(messages[0]), drive, lambda: [answer(sent) for sent in messages])


def listed(row: Images) -> bytes:
    """A tensor as numbers in its JSON text."""
    tensor = {"name": "images", "datatype": "FP32", "shape": list(row.shape), "data": np.ascontiguousarray(row.ravel())}
    return orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)


def told(labels: NDArray[np.int64], probabilities: NDArray[np.float32] | None) -> Told:
    """The one row of an answer. Raises BenchError where it has no probabilities."""
    if probabilities is None:
        raise BenchError("expected an archive whose policy shows probabilities")
    return int(labels[0]), probabilities[0]


def check(forms: Mapping[str, Form]) -> None:
    """Raise BenchError unless all forms of a row get its one answer."""
    expected = forms[PROTOCOLS[0]].answers()
    for name, form in forms.items():
        for row, (mine, plain) in enumerate(zip(form.answers(), expected, strict=True)):
            if mine[0] != plain[0] or np.abs(mine[1] - plain[1]).max() > TOLERANCE:
                raise BenchError(f"row {row} as {name}: {mine}, as {PROTOCOLS[0]}: {plain}: expected equal answers")


def probe(
    running: Server,
    archive: Path,
    name: str,
    form: Form,
    front: psutil.Process,
    *,
    clients: int,
    seconds: float,
    architecture: str,
) -> Probe:
    """A form asked by so many clients."""
    grpc = name.endswith("gRPC")
    found = overhttp.driving(
        running,
        archive,
        lambda duration: form.drive(clients, duration),
        clients=clients,
        body=name,
        seconds=seconds,
        path="grpc" if grpc else "http",
        study="protocols",
        policy=UNDEFENDED,
        architecture=architecture,
    )
    return with_front(found, front) if grpc else found


def with_front(plain: Probe, front: psutil.Process) -> Probe:
    """The same, with what the front spends."""

    def measure(duration: float) -> Sample:
        before = overhttp.spent(front)
        sample = plain.measure(duration)
        answered = len(sample.latencies_ms)
        cpu = {**sample.cpu_ms, "front": 1000 * (overhttp.spent(front) - before) / answered}
        return dataclasses.replace(sample, cpu_ms=cpu)

    return dataclasses.replace(plain, measure=measure)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.protocols", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help="whose undefended archive is built, such as bench-conv3")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"({ROUNDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"of a cell ({SECONDS:g})")
    parser.add_argument("--store", type=Path, default=Path("model_store"), metavar="FOLDER", help="(model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--output", type=Path, default=Path("results/protocols.json"), metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    # so that a measurement that is terminated stops its servers, as it does at Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
