"""Every other server around the same classifier, attested by its target file, and held against the same in process.

    python -m attest.examples.peers [fastapi litserve kserve kserve-v1 tf-serving pytriton torchserve] [--budget 1000]

A server runs in a venv of its own (attest/examples/servers.py; fastapi and torchserve: in this one). The figures of
each thief are compared point by point with those of the campaign in process, with the same model, images and seeds, and
have to agree within `--spread`. A server that does not start is named with the last line of its log, and the exit code
is 1.
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

import torch

from attest.asking import judged
from attest.campaign import order
from attest.campaign.order import Campaign, Options
from attest.examples import classifier, in_process, in_process_stock, servers
from attest.examples.servers import Peer, PeerError
from attest.ledger import LedgerError
from attest.measured import Measured
from attest.target import check, table
from attest.target.encoding import encode, pictures
from attest.target.reading import Reader
from attest.target.table import Target
from attest.target.wires import wire
from report.atomic import write_json

REPORTS = Path("reports/peers")
KEY = "EXAMPLE_KEY"
READY_S = 240.0


@dataclass(frozen=True)
class Attested:
    """A server, and its file in targets/, whose port it serves at. stock: it sees pictures through TorchServe's stock
    handler."""

    server: Peer
    target: str
    port: int
    stock: bool = False


PEERS = {
    "fastapi": Attested(servers.FASTAPI, "digits-fastapi", 8100),
    "litserve": Attested(servers.LITSERVE, "digits-litserve", 8110),
    "kserve": Attested(servers.KSERVE, "digits-kserve", 8120),
    "kserve-v1": Attested(servers.KSERVE, "digits-kserve-v1", 8120),
    "tf-serving": Attested(servers.KSERVE, "digits-tf-serving", 8120),
    "pytriton": Attested(servers.PYTRITON, "digits-pytriton", 8130),
    "torchserve": Attested(servers.TORCHSERVE, "digits-torchserve", 8140, stock=True),
}


MISTAKES = (order.CampaignError, LedgerError)


@contextmanager
def serving(name: str, model: Path, target: Target) -> Iterator[None]:
    """The peer's server, until the block ends. Raises PeerError."""
    peer, log = PEERS[name], servers.VENVS / f"{name}.log"
    with servers.started(peer.server, [str(model), "--port", str(peer.port)], log=log) as process:
        _until_ready(process, target, log)
        yield


def _until_ready(process: subprocess.Popen[bytes], target: Target, log: Path) -> None:
    """Ask until it answers. Raises PeerError."""
    image = check.load("digits", target, "test").pixels[:1]
    asked = encode(target, pictures(target, image.numpy()))
    reader, sending, end = Reader(target), wire(target), time.monotonic() + READY_S
    try:
        while judged(reply := sending.send(asked), reader, 1)[0] != "answered":
            if process.poll() is not None or time.monotonic() > end:
                raise PeerError(f"no answer ({reply.status} {reply.body[:80]!r}); {servers.last_line(log)}")
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


def expected(peer: Attested, options: Options, *, budget: int, models: Path, reports: Path) -> Measured:
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
