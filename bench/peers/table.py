"""The servers that are compared: how each is started with its file and settings, asked for a picture, and read.

Each has two workers of one thread, and batches as its documentation recommends: at most as many rows as half the
clients, so that both workers have some. What else is set stands in `about`.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import orjson
import psutil
from numpy.typing import NDArray

from attest.examples import servers
from attest.examples.servers import Peer, PeerError
from bench import closedloop, overhttp
from bench.closedloop import ClientError
from bench.overhttp import Serving
from handlers import oip, wire
from loadtests.target import Target
from report.rows.peers import OURS, TRITON

READY_S = 120.0
# pytriton's second worker gives up where its first is not ready within a second
ATTEMPTS = 5
# that a server listens on, one after the other
PORTS = 5
MODEL = "digits"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """One file of a network: its graph as the peers serve it, and the archive that has the same graph."""

    network: str
    file: str
    graph: Path
    archive: Path

    @property
    def sha256(self) -> str:
        """Of the graph's file."""
        return hashlib.sha256(self.graph.read_bytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Running:
    """A server that answers. requests: one for each picture, as it goes over the wire. read: an answer's body to its
    probabilities (K,); raises ValueError or LookupError. root: the process that started all others of it."""

    target: Target
    requests: Sequence[bytes]
    read: Callable[[bytes], Floats]
    root: psutil.Process


@dataclass(frozen=True)
class Entry:
    """A server of the table. sends: how a picture travels. start: the running server, with requests for pictures (N,C,
    H,W) float32, multiples of 1/255; raises PeerError and what our own server's start raises."""

    name: str
    version: str
    sends: str
    settings: Serving
    about: str
    start: Callable[[Entry, Model, Floats], AbstractContextManager[Running]]


@dataclass(frozen=True)
class Dialect:
    """How a peer is asked. path: of its predictions; ahead: its port beyond the first; body: of one picture (C,H,W),
    and headers; read: as `Running` has it."""

    path: str
    content_type: str
    body: Callable[[Floats], tuple[bytes, dict[str, str]]]
    read: Callable[[bytes], Floats]
    ahead: int = 0


def png(picture: Floats) -> bytes:
    """A picture's file."""
    return wire.encode_rows(picture[np.newaxis], wire.PNG)


def file_itself(picture: Floats) -> tuple[bytes, dict[str, str]]:
    """The PNG is the body."""
    return png(picture), {}


def base64_in_json(picture: Floats) -> tuple[bytes, dict[str, str]]:
    """{"image": the PNG}."""
    return json.dumps({"image": base64.b64encode(png(picture)).decode()}).encode(), {}


def tensor_of_bytes(picture: Floats) -> tuple[bytes, dict[str, str]]:
    """The Open Inference Protocol's binary tensor, UINT8, which Triton answers in JSON."""
    pixels = (picture[np.newaxis] * 255).round().astype(np.uint8)
    given = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape)}
    text = orjson.dumps({"inputs": [{**given, "parameters": {"binary_data_size": pixels.nbytes}}]})
    return text + pixels.tobytes(), {oip.LENGTH: str(len(text))}


def own_answer(body: bytes) -> Floats:
    """Of our own server. Raises ValueError, LookupError."""
    found = wire.decode_answers(body).probabilities
    if found is None:
        raise ValueError(f"expected probabilities, got {body[:80]!a}")
    row: Floats = found[0]
    return row


def listed(body: bytes) -> Floats:
    """A JSON list of numbers. Raises ValueError."""
    return np.asarray(orjson.loads(body), np.float32)


def named(name: str) -> Callable[[bytes], Floats]:
    """The list of that name in a JSON object."""

    def read(body: bytes) -> Floats:
        return np.asarray(orjson.loads(body)[name], np.float32)

    return read


@contextlib.contextmanager
def ours(entry: Entry, model: Model, pictures: Floats) -> Iterator[Running]:
    """The archive as `make serve` serves it, with the entry's settings, asked without a gateway."""
    with tempfile.TemporaryDirectory(prefix="peers-") as temporary:
        folder = Path(temporary)
        archive = overhttp.reserve(model.archive, entry.settings, folder, model.archive.stem)
        with overhttp.server([archive], run_folder=folder / "run") as running:
            requests = [overhttp.message(running, archive.stem, png(each), wire.PNG) for each in pictures]
            yield Running(running.target, requests, own_answer, running.java)


def theirs(peer: Peer, dialect: Dialect) -> Callable[[Entry, Model, Floats], AbstractContextManager[Running]]:
    """What starts a peer, which is told its settings on its command line."""

    @contextlib.contextmanager
    def start(entry: Entry, model: Model, pictures: Floats) -> Iterator[Running]:
        port, set_ = free_ports(PORTS), entry.settings
        words = [str(model.graph.absolute()), "--port", str(port), "--workers", str(set_.workers)]
        words += ["--batch", str(set_.batch_size), "--delay-ms", str(set_.max_batch_delay_ms)]
        target = Target(f"http://127.0.0.1:{port + dialect.ahead}", (MODEL,), 1 << 20, token="none")
        requests = [
            closedloop.request(target, MODEL, body, dialect.content_type, path=dialect.path, **headers)
            for body, headers in map(dialect.body, pictures)
        ]
        log = servers.VENVS / "logs" / f"{entry.name}.log"
        with contextlib.ExitStack() as opened:
            for attempt in range(1, ATTEMPTS + 1):
                process = opened.enter_context(servers.started(peer, words, log=log))
                running = Running(target, requests, dialect.read, psutil.Process(process.pid))
                try:
                    until_it_answers(running, log)
                    break
                except PeerError:
                    opened.close()
                    if attempt == ATTEMPTS:
                        raise
            yield running

    return start


def until_it_answers(running: Running, log: Path) -> None:
    """Wait for an answer that can be read. Raises PeerError where the server ends, or gives none in READY_S."""
    end = time.monotonic() + READY_S
    while True:
        try:
            running.read(closedloop.ask(running.target, running.requests[0]))
            return
        except (ClientError, OSError, ValueError, LookupError) as error:
            ended = not running.root.is_running() or running.root.status() == psutil.STATUS_ZOMBIE
            if ended or time.monotonic() > end:
                what = "it ended" if ended else f"no answer in {READY_S:g} s ({error})"
                raise PeerError(f"{what}; the last line of its log: {servers.last_line(log)}") from None
        time.sleep(0.2)


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free now. Raises PeerError."""
    for _ in range(100):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError, OverflowError):
            first = held.enter_context(_bound(0)).getsockname()[1]
            for place in range(1, count):
                held.enter_context(_bound(first + place))
            return int(first)
    raise PeerError(f"expected {count} free ports in a row on 127.0.0.1, found none")


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", port))
    return made


def _versions(peer: Peer) -> str:
    """Of the packages that a venv is made with."""
    return ", ".join(each.replace("==", " ") for each in peer.packages)


FASTAPI = dataclasses.replace(
    servers.FASTAPI,
    packages=("fastapi==0.165.0", "uvicorn[standard]==0.54.0", "python-multipart==0.0.34", *servers.COMMON),
)
# ours waits for no batch to fill (deploy/batching.py); the others' examples wait two milliseconds
FREE, BATCHED, PLAIN = Serving(2, 1, 16, 0), Serving(2, 1, 16, 2), Serving(2, 1, 1, 0)

ENTRIES = (
    Entry(OURS, "", "PNG", FREE, "workers without torch, as `make serve`; no gateway in front", ours),
    Entry(
        "LitServe",
        _versions(servers.LITSERVE),
        "PNG in base64 in JSON",
        BATCHED,
        "an HTTP process for each worker",
        theirs(servers.LITSERVE, Dialect("/predict", wire.JSON, base64_in_json, named("probabilities"))),
    ),
    Entry(
        "FastAPI + ONNX Runtime",
        _versions(FASTAPI),
        "PNG",
        PLAIN,
        "uvicorn with uvloop and httptools; an endpoint that computes on its process' only thread",
        theirs(FASTAPI, Dialect("/predict", wire.PNG, file_itself, named("scores"))),
    ),
    Entry(
        TRITON,
        _versions(servers.PYTRITON),
        "tensor of uint8, which nothing has to decode",
        BATCHED,
        "two callables in one process; DynamicBatcher; the Open Inference Protocol over HTTP",
        theirs(
            servers.PYTRITON,
            Dialect(
                f"/v2/models/{MODEL}/infer",
                wire.RAW,
                tensor_of_bytes,
                lambda body: oip.outputs(body, {})["probabilities"][0],
                ahead=1,
            ),
        ),
    ),
    Entry(
        "TorchServe",
        f"torchserve {metadata.version('torchserve')}",
        "PNG",
        BATCHED,
        "the stock VisionHandler, but for `inference` and the session, which cannot run an ONNX file",
        theirs(servers.TORCHSERVE, Dialect(f"/predictions/{MODEL}", wire.PNG, file_itself, listed)),
    ),
)
