"""Every other server around the same classifier, attested by its target file, and held against the same in process.

    python -m attest.examples.peers [fastapi litserve kserve kserve-v1 pytriton torchserve] [--budget 1000]

A server runs in a venv of its own with the packages named here, below build/peers (fastapi and torchserve: in this
one). The figures of each thief are compared point by point with those of the campaign in process, with the same model,
images and seeds, and have to agree within `--spread`. A server that does not start is named with the last line of its
log, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from attest.asking import judged
from attest.campaign import order
from attest.campaign.order import Campaign, Options
from attest.examples import classifier, in_process, in_process_stock
from attest.ledger import LedgerError
from attest.measured import Measured
from attest.target import check, table
from attest.target.encoding import encode, pictures
from attest.target.reading import Reader
from attest.target.table import Target
from attest.target.wires import wire
from report.atomic import write_json

VENVS, REPORTS = Path("build/peers"), Path("reports/peers")
KEY = "EXAMPLE_KEY"
READY_S = 240.0
RUNTIME = "onnxruntime==1.23.2"
PILLOW = "pillow==12.0.0"
KSERVE = ("kserve==0.21.0", RUNTIME, PILLOW)
# TorchServe's handlers import it, and no package of TorchServe's asks for it
CAPTUM = "captum==0.9.0"


@dataclass(frozen=True)
class Peer:
    """packages: of its venv, pinned; (): it runs in ours. server: a script of this folder. target: of targets/. port:
    as the target file has it. stock: it sees pictures through TorchServe's stock handler. beside: a package that our
    venv lacks, without what that one depends on."""

    packages: tuple[str, ...]
    server: str
    target: str
    port: int
    stock: bool = False
    beside: str = ""


PEERS = {
    "fastapi": Peer((), "fastapi_server", "digits-fastapi", 8100),
    "litserve": Peer(("litserve==0.2.19", RUNTIME, PILLOW), "litserve_server", "digits-litserve", 8110),
    "kserve": Peer(KSERVE, "kserve_server", "digits-kserve", 8120),
    "kserve-v1": Peer(KSERVE, "kserve_server", "digits-kserve-v1", 8120),
    "tf-serving": Peer(KSERVE, "kserve_server", "digits-tf-serving", 8120),
    "pytriton": Peer(("nvidia-pytriton==0.7.0", RUNTIME), "pytriton_server", "digits-pytriton", 8130),
    "torchserve": Peer((), "torchserve_server", "digits-torchserve", 8140, stock=True, beside=CAPTUM),
}


MISTAKES = (order.CampaignError, LedgerError)


class PeerError(RuntimeError):
    """A server that does not start; the message has the end of its log."""


def python(peer: Peer) -> Path:
    """The interpreter of the peer's venv, made where it is missing. Raises PeerError."""
    if not peer.packages:
        return Path(sys.executable)
    folder = VENVS / peer.server
    made, installed, packages = folder / "bin/python", folder / ".installed", "\n".join(peer.packages)
    uv = [sys.executable, "-m", "uv"]
    try:
        if not installed.exists() or installed.read_text() != packages:
            subprocess.run([*uv, "venv", "--quiet", "--clear", str(folder)], check=True, capture_output=True)
            install = [*uv, "pip", "install", "--quiet", "--python", str(made), *peer.packages]
            subprocess.run(install, check=True, capture_output=True)
            installed.write_text(packages)
    except subprocess.CalledProcessError as error:
        raise PeerError(error.stderr.decode("utf-8", "replace").strip() or str(error)) from None
    return made.absolute()


def environment(peer: Peer) -> dict[str, str]:
    """The environment of its server, with what it needs beside our own venv, installed where it is missing. Raises
    PeerError."""
    if not peer.beside:
        return dict(os.environ)
    folder = VENVS / peer.beside
    if not folder.is_dir():
        install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        try:
            subprocess.run([*install, peer.beside], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            raise PeerError(error.stderr.decode("utf-8", "replace").strip()) from None
    # our own rooms are named too: TorchServe hands its variables to workers that run elsewhere
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder.absolute()), str(Path.cwd())])}


@contextmanager
def serving(name: str, model: Path, target: Target) -> Iterator[None]:
    """The peer's server, until the block ends. Raises PeerError."""
    peer, log = PEERS[name], VENVS / f"{name}.log"
    if peer.packages:
        command = [str(python(peer)), f"attest/examples/{peer.server}.py", str(model), str(peer.port)]
    else:
        port = ["--port"] if name == "fastapi" else []
        command = [sys.executable, "-m", f"attest.examples.{peer.server}", str(model), *port, str(peer.port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment(peer)) as process,
    ):
        try:
            _until_ready(process, target, log)
            yield
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server and all that it has started; it may have ended by itself."""
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in family:
            each.terminate()
        for each in psutil.wait_procs(family, timeout=10)[1]:
            each.kill()


def _until_ready(process: subprocess.Popen[bytes], target: Target, log: Path) -> None:
    """Ask until it answers. Raises PeerError."""
    image = check.load("digits", target, "test").pixels[:1]
    asked = encode(target, pictures(target, image.numpy()))
    reader, sending, end = Reader(target), wire(target), time.monotonic() + READY_S
    try:
        while judged(reply := sending.send(asked), reader, 1)[0] != "answered":
            if process.poll() is not None or time.monotonic() > end:
                last = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()][-1:]
                raise PeerError(
                    f"no answer ({reply.status} {reply.body[:80]!r}); {''.join(last) or 'its log is empty'}"
                )
            time.sleep(0.5)
    finally:
        sending.close()


def attest(name: str, options: Options, *, budget: int, models: Path, reports: Path) -> Measured:
    """The campaign against one peer. Raises PeerError."""
    peer = PEERS[name]
    path = table.path_of(peer.target)
    target = dataclasses.replace(table.read(path), budget=budget)
    model = models / ("digits.ts.pt" if peer.stock else "digits.onnx")
    campaign = Campaign(target, peer.target, table.digest(path), reports / f"attest-{peer.target}", options)
    with serving(name, model.absolute(), target):
        return order.run(campaign, wire(target))


def expected(peer: Peer, options: Options, *, budget: int, models: Path, reports: Path) -> Measured:
    """The same campaign without a server."""
    if peer.stock:
        made = in_process_stock.Stock(models / "digits.ts.pt")
        return in_process.attest(made, "digits-torchserve", options, budget=budget, reports=reports)
    return in_process.attest(
        in_process.InProcess(models / "digits.onnx"), "digits-fastapi", options, budget=budget, reports=reports
    )


def furthest(found: Measured, other: Measured) -> float:
    """The largest difference between two campaigns, of the service's accuracy and of any thief's at any point."""
    differences = [abs(found.utility.accuracy - other.utility.accuracy)]
    others = {curve.thief: curve for curve in other.curves}
    for curve in found.curves:
        pairs = zip(curve.points, others[curve.thief].points, strict=True)
        differences += [abs(one.accuracy - two.accuracy) for one, two in pairs]
    return max(differences)


def main() -> None:
    """Attest the peers of the command line, and compare."""
    options = _options()
    try:
        sys.exit(int(compared(options)))
    except MISTAKES as error:
        sys.exit(f"attest.examples.peers: {error}")


def compared(options: argparse.Namespace) -> bool:
    """Attest every peer and the same in process, print and write the figures; whether something is wrong."""
    os.environ.setdefault(KEY, "sesame")
    torch.set_num_threads(1)
    if not (options.models / "digits.onnx").exists():
        classifier.write(classifier.train(), options.models)
    asked = Options("digits", tuple(options.thieves), epochs=options.epochs, workers=0)
    rows: dict[str, dict[str, object]] = {}
    failed = False
    for name in options.names:
        where = {"budget": options.budget, "models": options.models, "reports": options.reports}
        try:
            found, other = attest(name, asked, **where), expected(PEERS[name], asked, **where)
        except PeerError as error:
            print(f"{name}: not attested: {error}", flush=True)
            rows[name], failed = {"error": str(error)}, True
            continue
        apart = furthest(found, other)
        failed |= apart > options.spread
        best = {curve.thief: curve.last.accuracy for curve in found.curves if curve.last is not None}
        rows[name] = {"accuracy": found.utility.accuracy, "clones": best, "verdict": found.verdict.word, "apart": apart}
        clones = ", ".join(f"{thief} {accuracy:.3f}" for thief, accuracy in best.items())
        print(
            f"{name}: service {found.utility.accuracy:.3f}, {clones}; {found.verdict.word}; at most {apart:.4f} from "
            "the same in process",
            flush=True,
        )
    write_json(options.reports / "peers.json", rows)
    return failed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m attest.examples.peers", description="attest servers that are not ours"
    )
    parser.add_argument("names", nargs="*", default=list(PEERS), help=f"of {', '.join(PEERS)} (all)")
    parser.add_argument("--budget", type=int, default=1000, help="queries to each (1000)")
    parser.add_argument("--thieves", nargs="+", default=["knockoff", "in-distribution"], help="of the battery (two)")
    parser.add_argument("--epochs", type=int, default=0, help="of a clone (more for fewer queries)")
    parser.add_argument("--spread", type=float, default=0.02, help="by which accuracies may differ (0.02)")
    parser.add_argument(
        "--models", type=Path, default=classifier.FOLDER, help=f"folder of the model's files ({classifier.FOLDER})"
    )
    parser.add_argument("--reports", type=Path, default=REPORTS, help=f"folder of the results ({REPORTS})")
    found = parser.parse_args()
    for name in found.names:
        if name not in PEERS:
            parser.error(f"expected some of {', '.join(PEERS)}, got {name}")
    return found


if __name__ == "__main__":
    main()
