"""What waiting for a batch to fill costs one client, a few and many: results/delays.json.

    python -m bench.delays digits [--policy undefended] [--rounds 11]

One archive on one server with the delays DELAYS_MS, which take turns: 0 is the default (deploy/batching.py), the first
what it was before. Printed is, for each number of clients, a delay's rows/s over those of the first, the median of the
rounds' ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

import recipes
from bench import inprocess, overhttp
from bench.closedloop import ClientError
from bench.overhttp import BenchError
from bench.rounds import interleaved
from handlers import wire
from loadtests.own_server import ServerError
from loadtests.target import TargetError
from report.format import ratio, ratios
from report.headline import UNDEFENDED
from report.rows.bench import BenchRow
from report.schema import Report, run_info, write

DELAYS_MS = (2, 1, 0)
CLIENTS = (1, 8, 64)
ROUNDS = 11
SECONDS = 2.0
WARM_S = 24.0
ROWS = 64


def main() -> None:
    """Run the command line; what cannot be measured is a message and exit code 1, and nothing is written."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        archive = options.store / f"{recipe.name}-{options.policy}.mar"
        images = inprocess.shuffled(recipe, options.data)[:ROWS]
        facts = {"policy": options.policy, "architecture": recipe.architecture}
        rows = measured(archive, images, rounds=options.rounds, seconds=options.seconds, **facts)
    except (recipes.RecipeError, BenchError, ClientError, ServerError, TargetError, OSError) as error:
        sys.exit(f"bench.delays: {error}")
    settings = {"archive": archive.stem, "rounds": options.rounds, "seconds": options.seconds}
    write(options.output, Report(run_info(seed=inprocess.SEED, started=started, settings=settings), bench=tuple(rows)))
    for line in compared(rows):
        print(line)
    print(options.output)


def measured(
    archive: Path, images: NDArray[np.float32], *, rounds: int, seconds: float, **facts: str
) -> list[BenchRow]:
    """A row of each delay for each number of clients. Raises BenchError, ClientError, ServerError."""
    served = overhttp.serving(archive)
    with tempfile.TemporaryDirectory(prefix="delays-") as temporary:
        folder = Path(temporary)
        archives = [
            overhttp.reserve(archive, dataclasses.replace(served, max_batch_delay_ms=delay), folder, f"delay-{delay}")
            for delay in DELAYS_MS
        ]
        with overhttp.server(archives, run_folder=folder / "run") as running:
            probes = [
                overhttp.over_http(
                    running, each, images, clients=clients, body=wire.RAW, seconds=seconds, study="settings", **facts
                )
                for clients in CLIENTS
                for each in archives
            ]
            overhttp.warm(running, images, seconds=WARM_S)
            return interleaved(probes, rounds=rounds, name="delays")


def compared(rows: Sequence[BenchRow]) -> Iterator[str]:
    """A line for each row: its rate and latency over those of the first delay, for as many clients."""
    first = {row.clients: row for row in rows if row.max_batch_delay_ms == DELAYS_MS[0]}
    for row in rows:
        before = first[row.clients]
        rates = ratios(row.rate_rounds, before.rate_rounds)
        yield (
            f"{row.clients} clients, {row.max_batch_delay_ms} ms: {row.rows_per_s:.0f} rows/s, "
            f"{median(rates):.3f} times ({min(rates):.3f} to {max(rates):.3f}); p50 {row.p50_ms:.2f} ms, "
            f"{ratio(row.p50_rounds, before.p50_rounds):.3f} times"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.delays", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--policy", default=UNDEFENDED, help=f"whose archive ({UNDEFENDED})")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="where archives are (model_store)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"({ROUNDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"of a cell ({SECONDS:g})")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--output", type=Path, default=Path("results/delays.json"), metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    # so that a measurement that is terminated stops its server and removes its folder, as it does at Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
