"""What grows with members and with a week's traffic: results/growth.json.

    python -m bench.growth bench-conv3 bench-resnet18 [--quick]

EDM's ensembles of 2 to 20 members, from each recipe's archives `edm` and `undefended` (bench/growth/members.py); the
stores, by the number of accounts (bench/growth/stores.py). Needs redis-server. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import torch

import recipes
from bench.growth import members, stores
from bench.inprocess import SEED
from bench.overhttp import BenchError
from defenses.memory import StoreError
from evaluation.oracles import OracleError
from handlers.errors import LoadError
from loadtests.own_server import ServerError
from report.rows.growth import MemberGrowthRow, StoreGrowthRow
from report.schema import Report, run_info, write

RECIPES = ("bench-conv3", "bench-resnet18")
OUTPUT = Path("results/growth.json")
# what a quick run writes is no result
QUICK_OUTPUT = Path("build/growth-quick.json")


@dataclass(frozen=True)
class Effort:
    """rounds, seconds: of the ensembles' cells. days, redis_days: of traffic, of so many accounts."""

    rounds: int = 7
    seconds: float = 0.5
    days: int = 7
    redis_days: int = 3
    accounts: tuple[int, ...] = (1000, 10_000)


QUICK = Effort(rounds=2, seconds=0.1, days=3, redis_days=2, accounts=(100, 1000))


def main() -> None:
    """Run the command line; what cannot be measured is a message and exit code 1, and nothing is written."""
    options = _options()
    effort = QUICK if options.quick else Effort()
    output = options.output or (QUICK_OUTPUT if options.quick else OUTPUT)
    torch.set_num_threads(1)
    started = datetime.now(timezone.utc)
    ensembles: list[MemberGrowthRow] = []
    kept: list[StoreGrowthRow] = []
    try:
        for name in options.recipes:
            recipe = recipes.read(name)
            ensembles += members.measure(
                recipe, store=options.store, data=options.data, rounds=effort.rounds, seconds=effort.seconds
            )
        for accounts in effort.accounts:
            for kind in stores.KINDS:
                kept.append(stores.sqlite(kind, accounts, days=effort.days))
            kept.append(stores.redis(accounts, days=effort.redis_days))
    except (recipes.RecipeError, OracleError, LoadError, BenchError, ServerError, StoreError) as error:
        sys.exit(f"bench.growth: {error}")
    settings = {"rounds": effort.rounds, "seconds": effort.seconds}
    run = run_info(seed=SEED, started=started, settings=settings)
    write(output, Report(run, ensemble_growth=tuple(ensembles), store_growth=tuple(kept)))
    for line in (*grown(ensembles), *filled(kept)):
        print(line)
    print(output)


def grown(rows: Iterable[MemberGrowthRow]) -> Iterator[str]:
    """A line for each ensemble: its times over those of the smallest of its architecture, and its memory."""
    least: dict[str, MemberGrowthRow] = {}
    for row in rows:
        first = least.setdefault(row.architecture, row)
        one, batch = row.row_times(first), row.batch_times(first)
        yield (
            f"{row.architecture}, {row.members} members: one row {median(row.row_ms_rounds):.3f} ms, {median(one):.3f} "
            f"times ({min(one):.3f} to {max(one):.3f}); {row.batch} rows {median(batch):.3f} times; weights "
            f"{row.weights_mb:.1f} MiB, held {'-' if row.held_mb is None else f'{row.held_mb:.1f}'} MiB"
        )


def filled(rows: Iterable[StoreGrowthRow]) -> Iterator[str]:
    """A line for each store: its size by days, and what it cannot exceed."""
    for row in rows:
        days = ", ".join(f"{mb:.1f}" for mb in row.mb)
        yield (
            f"{row.store}, {row.kept}, {row.accounts} accounts: {days} MiB, at most {row.peak_mb:.1f} of "
            f"{row.bound_mb:.1f}; {row.operations} operations; {'bounded' if row.bounded else 'NOT bounded'}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=RECIPES, metavar="RECIPE", help=f"({' '.join(RECIPES)})")
    parser.add_argument("--quick", action="store_true", help=f"a smoke test: moments, to {QUICK_OUTPUT}")
    parser.add_argument("--store", type=Path, default=Path("model_store"), metavar="FOLDER", help="(model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"({OUTPUT})")
    return parser.parse_args()
