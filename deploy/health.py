"""Liveness and readiness of an instance over HTTP, as KServe's two protocols ask for them, and for Prometheus.

    python -m deploy.health [--instance NAME] [--run-folder FOLDER] [--listen HOST:PORT]
    python -m deploy.health --once live|ready      one look, for exec probes: exit code 0 yes, 1 no, 2 refused

    GET or HEAD                             200 where it is so, else 503
    /  /v2/health/live                      alive (deploy/watch.py defines what that is)
    /v2/health/ready                        every model ready
    /v1/models/NAME                         the model ready; 404 where no such model ought to be served
    /v2/models/NAME/ready  /v2/models/NAME/versions/VERSION/ready
    /v1/models  /v2                         the models' names; the server's metadata (always 200)
    /v2/models/NAME  /v2/models/NAME/versions/VERSION
                                            what the model takes and gives; 404 where it ought not to be served
    /metrics                                gauges in Prometheus' text format (always 200)

An answer gives names and yes or no, never why: that is what `python -m deploy.server status` prints. Strangers may
ask: nothing they send is kept or logged, a connection ends after one answer or some seconds, and there are never more
than a few at once. Listen where the prober is, not where clients are.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import signal
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from deploy import ports, settings
from deploy.archive import Archive
from deploy.errors import DeployError, RefusedError
from deploy.instance import Instance
from deploy.watch import OUTCOMES, Timing, Watch

ROOT = Path(__file__).absolute().parent.parent
VERSION = "0.1.0"
CONNECTIONS = 32
# for the whole of a request's head to arrive, and for the answer to leave
SECONDS = 3.0
LONGEST_HEAD = 8192
MODEL = re.compile(r"/v1/models/([^/]+)|/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready)?")
# metric -> its labels, and what it means
METRICS = {
    "torchwarden_live": ((), "Whether Java runs and every model answers."),
    "torchwarden_ready": (("model",), "Whether the model's workers are READY and its golden prediction is right."),
    "torchwarden_workers": (("model", "state"), "Workers by the state that TorchServe gives them."),
    "torchwarden_workers_expected": (("model",), "Workers that the archive starts with."),
    "torchwarden_members": (("model",), "Graphs that may answer, by the archive."),
    "torchwarden_calibrated_rate": (("model",), "Share of benign images that the gate acts upon, by the archive."),
    "torchwarden_probe_seconds": (
        ("model",),
        "Seconds that the last golden prediction took, its time in the queue included.",
    ),
    "torchwarden_probes_total": (("model", "outcome"), "Looks at the model: right, busy, wrong, or none (no answer)."),
    "torchwarden_token_expiry_seconds": (("token",), "When TorchServe's token ends, in seconds since the epoch."),
}


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or look once; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        instance = Instance(options.run_folder, options.instance)
        watch = Watch(instance, Timing(options.every, options.timeout, options.silent, options.starting))
        return once(watch, options.once) if options.once else serve(watch, options.listen or listen_at())
    except DeployError as error:
        print(f"health: {error}", file=sys.stderr)
        return error.exit_code


def once(watch: Watch, question: str) -> int:
    """Look at every model now; 0 if the instance is `question`, "live" or "ready"."""
    for looking in watch.look():
        looking.join()
    for served, look, _ in watch.seen():
        if look is not None and look.why is not None:
            print(f"{served.name}: {look.why}", file=sys.stderr)
    yes = watch.live() if question == "live" else watch.ready()
    print(f"{question}: {'yes' if yes else 'no'}")
    return 0 if yes else 1


def serve(watch: Watch, listen: str) -> int:
    """Answer at `listen`, HOST:PORT, until a signal ends it. Raises `RefusedError`."""
    stop = threading.Event()
    with HealthServer(watch, _address(listen)) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        looking = threading.Thread(target=watch.run, args=(stop,))
        answering = threading.Thread(target=server.serve_forever, args=(0.1,))
        looking.start()
        answering.start()
        print(f"health of instance: http://{server.address}", file=sys.stderr, flush=True)
        stop.wait()
        server.shutdown()
        answering.join()
        looking.join()
    return 0


def answer(watch: Watch, path: str) -> tuple[int, dict[str, Any] | str]:
    """Status and body for a path: a JSON object, or Prometheus' text."""
    if path in ("/", "/v2/health/live"):
        live = watch.live()
        return _yes(live), {"status": "alive" if live else "dead"} if path == "/" else {"live": live}
    if path == "/v2/health/ready":
        ready = watch.ready()
        return _yes(ready), {"ready": ready}
    if path == "/v1/models":
        return HTTPStatus.OK, {"models": sorted(watch.versions())}
    if path == "/v2":
        return HTTPStatus.OK, {"name": "torchwarden", "version": VERSION, "extensions": ["binary_tensor_data"]}
    if path == "/metrics":
        return HTTPStatus.OK, metrics(watch)
    asked = MODEL.fullmatch(path)
    if asked is None:
        return HTTPStatus.NOT_FOUND, {"error": "no such path"}
    name, version = asked[1] or asked[2], asked[3]
    known = {served.name: served for served, _, _ in watch.seen()}
    if name not in known or version not in (None, known[name].version):
        return HTTPStatus.NOT_FOUND, {"error": "no such model is served"}
    if asked[2] and not asked[4]:
        return HTTPStatus.OK, metadata(known[name])
    ready = watch.ready(name)
    return _yes(ready), {"name": name, "ready": ready}


def metadata(served: Archive) -> dict[str, Any]:
    """What a model takes and gives, as the Open Inference Protocol has it; handlers/oip.py reads and writes it. The
    platform is this product's: what runs its graphs is nobody's business."""
    outputs = [tensor("label", "INT64", -1), tensor("name", "BYTES", -1)]
    if served.probabilities:
        outputs.insert(0, tensor("probabilities", "FP32", -1, len(served.classes)))
    return {
        "name": served.name,
        "versions": [served.version],
        "platform": "torchwarden",
        "inputs": [tensor("images", "FP32", -1, *served.shape), tensor("image", "BYTES", -1)],
        "outputs": outputs,
        "parameters": {"classes": list(served.classes)},
    }


def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    """A tensor as metadata has it; -1: any number."""
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def metrics(watch: Watch) -> str:
    """What was seen, in Prometheus' text format."""
    found: dict[str, list[tuple[tuple[str, ...], float]]] = {name: [] for name in METRICS}
    found["torchwarden_live"] = [((), watch.live())]
    for served, look, outcomes in watch.seen():
        model = (served.name,)
        states = [] if look is None else list(look.workers.states or ())
        found["torchwarden_ready"].append((model, watch.ready(served.name)))
        found["torchwarden_workers"] += [
            ((served.name, state), states.count(state)) for state in sorted({"READY", *states})
        ]
        found["torchwarden_workers_expected"].append((model, served.workers))
        found["torchwarden_members"].append((model, served.members))
        found["torchwarden_probes_total"] += [((served.name, outcome), outcomes[outcome]) for outcome in OUTCOMES]
        if served.suspects is not None:
            found["torchwarden_calibrated_rate"].append((model, served.suspects))
        if look is not None and look.seconds is not None:
            found["torchwarden_probe_seconds"].append((model, look.seconds))
    found["torchwarden_token_expiry_seconds"] = [((kind,), at) for kind, at in sorted(watch.expiries().items())]
    lines = []
    for name, (labels, what) in METRICS.items():
        lines += [f"# HELP {name} {what}", f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"]
        lines += [f"{name}{_labels(labels, values)} {float(value)!r}" for values, value in found[name]]
    return "\n".join(lines) + "\n"


class HealthServer(ThreadingHTTPServer):
    """A thread a connection, at most CONNECTIONS of them; one more is closed unheard."""

    daemon_threads = True
    # where more wait to be accepted, the kernel drops them, and they come again seconds later
    request_queue_size = 2 * CONNECTIONS

    def __init__(self, watch: Watch, address: tuple[str, int]) -> None:
        self.watch = watch
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise RefusedError(
                f"--listen {address[0]}:{address[1]}: {error.strerror or error}; choose another address"
            ) from error

    @property
    def address(self) -> str:
        """HOST:PORT as it is bound."""
        return "{}:{}".format(*self.server_address[:2])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread where there is one."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread has begun that would make room again
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no event; of anything else, only its kind is logged and nothing that it sent."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(f"health: {type(error).__name__} while answering", file=sys.stderr, flush=True)


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer."""

    server: HealthServer
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float | None] = SECONDS

    def setup(self) -> None:
        super().setup()
        # the standard library would wait again for every byte
        self.rfile = io.BytesIO(_head(self.connection))

    def do_GET(self) -> None:
        status, body = answer(self.server.watch, self.path.partition("?")[0])
        if isinstance(body, str):
            self._send(status, body, "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._send(status, json.dumps(body), "application/json")

    do_HEAD = do_GET  # noqa: N815 - the standard library's name

    def version_string(self) -> str:
        return "torchwarden"

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The standard library's refusals without its page, which repeats what the client sent."""
        del message, explain
        self._send(code, json.dumps({"error": "expected GET or HEAD"}), "application/json")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Say nothing: a line a probe is noise, and a client's text in it is the client's."""

    def _send(self, status: int, body: str, content_type: str) -> None:
        encoded = body.encode()
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(encoded)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(encoded)


def _head(connection: socket.socket) -> bytes:
    """A request's head, or as much as came of it in time and in LONGEST_HEAD bytes."""
    head, deadline = b"", time.monotonic() + SECONDS
    while b"\r\n\r\n" not in head and len(head) < LONGEST_HEAD:
        left = deadline - time.monotonic()
        if left <= 0:
            return b""
        connection.settimeout(left)
        try:
            part = connection.recv(LONGEST_HEAD - len(head))
        except TimeoutError:
            return b""
        if not part:
            break
        head += part
    connection.settimeout(SECONDS)
    return head


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Labels as Prometheus writes them; models' names and TorchServe's words need no escape."""
    inside = ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True))
    return f"{{{inside}}}" if inside else ""


def listen_at() -> str:
    """Where config.properties has it listen, HOST:PORT. Raises `RefusedError`."""
    return ports.read_gateway(settings.read(ROOT / "config.properties"))["health"].address


def _yes(so: bool) -> HTTPStatus:
    return HTTPStatus.OK if so else HTTPStatus.SERVICE_UNAVAILABLE


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise RefusedError(f"--listen: expected HOST:PORT, got {listen!r}")
    return host, int(port)


def _parser() -> argparse.ArgumentParser:
    timing = Timing()
    parser = argparse.ArgumentParser(prog="python -m deploy.health", description=__doc__.splitlines()[0])
    parser.add_argument("--instance", default="default", metavar="NAME", help="default: default")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), metavar="FOLDER", help="default: run")
    parser.add_argument("--listen", metavar="HOST:PORT", help="default: config.properties' health_address")
    parser.add_argument("--once", choices=("live", "ready"), help="look once instead of serving")
    for name, value, help_ in (
        ("every", timing.every, "between two looks"),
        ("timeout", timing.answer, "to wait for an answer of TorchServe"),
        ("silent", timing.silent, "without any answer until it counts as dead"),
        ("starting", timing.starting, "from its start until it must have answered"),
    ):
        parser.add_argument(
            f"--{name}", type=float, default=value, metavar="SECONDS", help=f"{help_}; default: {value:g}"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
