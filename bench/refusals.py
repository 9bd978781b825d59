"""What a refused request costs behind the gateway, at saturation: results/refusals.json.

    python -m bench.refusals digits-undefended

TorchServe closes the connection after every status from 400 on, so a handler that answers with it costs the gateway a
new connection; the gateway asks for refusals in another form, which costs none (handlers/refusal.py). Three ways take
turns in each round: every request answered, half of them refused, and half of them refused behind a gateway that does
not ask. Clients keep their connections to it. One server stands behind both gateways, whose limits of requests a second
are lifted; rows that are refused are of a wrong length.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from bench import closedloop, overhttp
from bench.closedloop import ClientError
from bench.overhttp import BenchError, Server
from evaluation.oracles import CHECKOUT
from handlers import wire
from handlers.refusal import ASKED
from loadtests.own_server import ServerError
from loadtests.target import Target, TargetError
from report.rows.refusals import PROCESSES, WAYS, RefusalRow
from report.schema import Report, run_info, write

CLIENTS = 16
ROUNDS = 7
SECONDS = 5.0
# of the round that is not counted, in which Java is cold
COLD_SECONDS = 4.0
RELOAD_S = 15.0
# rows that are asked for in turn, every second of them refused
ROWS = 64
RATE = re.compile(r"rate=\d+r/s")


@dataclass(frozen=True)
class Gateway:
    """One that runs. trust: of its certificate. authorization: of its one client."""

    target: Target
    trust: ssl.SSLContext
    authorization: str
    master: psutil.Process

    def cpu(self) -> float:
        """Seconds so far of nginx's workers."""
        return sum(sum(worker.cpu_times()[:2]) for worker in self.master.children())


@dataclass(frozen=True, eq=False)
class Way:
    """requests: in turn, to a gateway. statuses: that they get."""

    gateway: Gateway
    requests: Sequence[bytes]
    statuses: tuple[int, ...]


def main() -> None:
    """Run the command line; what cannot be measured is a message and exit code 1, and nothing is written."""
    options = _options()
    started = datetime.now(timezone.utc)
    settings = {"archive": options.archive, "rounds": options.rounds, "seconds": options.seconds}
    try:
        with tempfile.TemporaryDirectory(prefix="refusals-") as temporary:
            archive = options.store / f"{options.archive}.mar"
            rows = measured(archive, Path(temporary), rounds=options.rounds, seconds=options.seconds)
    except (BenchError, ClientError, ServerError, TargetError, OSError) as error:
        sys.exit(f"bench.refusals: {error}")
    write(options.output, Report(run_info(seed=0, started=started, settings=settings), refusals=rows))
    for row in rows:
        opened = np.median(row.connections_rounds)
        print(f"{row.way}: {np.median(row.rate_rounds):.0f} requests/s, {opened:.3f} connections a request")
    print(options.output)


def measured(archive: Path, folder: Path, *, rounds: int, seconds: float) -> tuple[RefusalRow, ...]:
    """A row for each way. Raises BenchError, ClientError, ServerError."""
    runs = folder / "run"
    with (
        overhttp.server([archive], run_folder=runs) as running,
        gateway(running, folder, "asks") as asking,
        gateway(running, folder, "asks-not") as silent,
    ):
        change(asking, runs / "asks.gateway", unlimited)
        change(silent, runs / "asks-not.gateway", lambda text: without(unlimited(text), f"proxy_set_header {ASKED} "))
        good, mixed = bodies(archive)
        ways = {
            name: Way(front, [message(front, archive.stem, body) for body in sent], statuses)
            for name, front, sent, statuses in zip(
                WAYS, (asking, asking, silent), (good, mixed, mixed), ((200,), (200, 400), (200, 400)), strict=True
            )
        }
        return tuple(_rows(running, archive.stem, ways, rounds=rounds, seconds=seconds))


def _rows(running: Server, model: str, ways: Mapping[str, Way], *, rounds: int, seconds: float) -> Iterator[RefusalRow]:
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with tqdm(total=(1 + rounds) * len(ways), desc="refusals", unit="cell") as bar:
        for number in range(1 + rounds):
            for name, way in ways.items():
                sample = _sample(running, model, way, seconds if number else COLD_SECONDS)
                if number:
                    samples[name].append(sample)
                bar.update()
    for name, found in samples.items():
        rounds_of = {key: tuple(round(each[key], 5) for each in found) for key in found[0]}
        yield RefusalRow(
            name,
            refused=round(float(np.mean(rounds_of["refused"])), 4),
            clients=CLIENTS,
            rate_rounds=rounds_of["rate"],
            connections_rounds=rounds_of["connections"],
            cpu_ms_rounds={process: rounds_of[process] for process in PROCESSES},
        )


def _sample(running: Server, model: str, way: Way, seconds: float) -> dict[str, float]:
    def spent() -> dict[str, float]:
        return {"nginx": way.gateway.cpu(), **running.cpu(model)}

    before, opened = spent(), connections_opened()
    driven = closedloop.drive(
        way.gateway.target,
        way.requests,
        clients=CLIENTS,
        seconds=seconds,
        trust=way.gateway.trust,
        expected=way.statuses,
    )
    count = len(driven.latencies_ms)
    return {
        "rate": count / driven.seconds,
        "refused": driven.statuses.get(400, 0) / count,
        # the clients' own are as many as they are
        "connections": (connections_opened() - opened - CLIENTS) / count,
        **{name: 1000 * (after - before[name]) / count for name, after in spent().items()},
    }


def connections_opened() -> int:
    """TCP connections that this machine has asked for since its start."""
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("ActiveOpens")])


def bodies(archive: Path) -> tuple[list[bytes], list[bytes]]:
    """Raw rows of noise, all good, and every second one of them a pixel short."""
    with zipfile.ZipFile(archive) as packed:
        golden = json.loads(packed.read("golden.json"))
    size = len(base64.b64decode(golden["image"])) // 4
    good = [row.astype("<f4").tobytes() for row in np.random.default_rng(0).random((ROWS, size), np.float32)]
    return good, [body[:-4] if place % 2 else body for place, body in enumerate(good)]


def message(front: Gateway, model: str, body: bytes) -> bytes:
    """One request of the gateway's client."""
    return closedloop.request(front.target, model, body, wire.RAW, Authorization=front.authorization)


@contextlib.contextmanager
def gateway(running: Server, folder: Path, name: str) -> Iterator[Gateway]:
    """A gateway in front of the server, with one client, stopped at the end whatever happens. Raises BenchError."""
    runs, secrets = running.instance.run_folder, folder / "secrets"
    place = ("--instance", name, "--run-folder", str(runs))
    _deploy("start", *place, "--secrets", str(secrets), "--free-ports", "--upstreams", running.instance.name)
    try:
        login = _deploy("add", "client", *place, "--secrets", str(secrets)).strip()
        facts = json.loads((runs / f"{name}.gateway" / "gateway.json").read_text("utf-8"))
        yield Gateway(
            replace(running.target, inference=facts["url"]),
            ssl.create_default_context(cafile=facts["certificate"]),
            "Basic " + base64.b64encode(login.encode()).decode(),
            psutil.Process(facts["pid"]),
        )
    finally:
        _deploy("stop", *place, "--quiet", "0")


def unlimited(text: str) -> str:
    """nginx's settings with limits that no client reaches: of requests a second, and of requests on one connection,
    which nginx closes after a thousand."""
    return RATE.sub("rate=1000000r/s", text).replace("http {\n", "http {\n    keepalive_requests 1000000000;\n", 1)


def without(text: str, what: str) -> str:
    """nginx's settings less the one line that begins so. Raises BenchError."""
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not line.lstrip().startswith(what)]
    if len(kept) != len(lines) - 1:
        raise BenchError(f"nginx.conf: expected one line {what!r}, found {len(lines) - len(kept)}")
    return "".join(kept)


def change(front: Gateway, folder: Path, changed: Callable[[str], str]) -> None:
    """Have a gateway work by other settings. Raises BenchError."""
    settings = folder.resolve() / "nginx.conf"
    settings.write_text(changed(settings.read_text("utf-8")), "utf-8")
    before = {worker.pid for worker in front.master.children()}
    front.master.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + RELOAD_S
    while before & {worker.pid for worker in front.master.children()}:
        if time.monotonic() > deadline:
            raise BenchError(f"nginx (pid {front.master.pid}) has not taken its new settings in {RELOAD_S:g} s")
        time.sleep(0.05)


def _deploy(*words: str) -> str:
    """What `python -m deploy.gateway` prints. Raises BenchError."""
    command = [sys.executable, "-m", "deploy.gateway", *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"`python -m deploy.gateway {words[0]}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.refusals", description=__doc__.splitlines()[0])
    parser.add_argument("archive", metavar="NAME", help="of the store, without a gate and limits")
    parser.add_argument("--store", type=Path, default=Path("model_store"), metavar="FOLDER", help="(model_store)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"({ROUNDS})")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="S", help=f"of each way, a round ({SECONDS:g})"
    )
    parser.add_argument("--output", type=Path, default=Path("results/refusals.json"), metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    # So that a study that is terminated stops its servers, as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
