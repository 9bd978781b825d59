"""How fast the attacks themselves are, and whether their memory grows: results/bench-attacks.json.

    python -m bench.attacks RECIPE --run results

The recipe's undefended archive answers in this process. Measured are:

    knockoff    seconds to query a surrogate set, once each image, and of one epoch of training a clone on the answers
    dfme        queries a second of the whole loop, the attacker's learning included, once it has warmed up
    dfme, maze  by how much the process grows between two points of a run, beyond what the first of them has built

Knockoff's clone is the recipe's. The data-free attackers, at their defaults, are after a LeNet5, whose training costs
little compared with their generator's. Knockoff grows by its transfer set.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil
import torch

import recipes
from attacks import dfme, knockoff, maze
from attacks.clone import RECIPES, Cloning, fit, here, untrained
from attacks.oracle import Ledger, Oracle
from attacks.service import Service
from attacks.thief import Thief, steal
from evaluation.oracles import InProcessOracle, OracleError
from handlers.errors import LoadError
from report.rows.attack_speeds import AttackSpeedRow
from report.schema import Report, ResultError, run_info, write
from zoo import datasets
from zoo.images import size_of

SEED = 0
POLICY = "undefended"
LENET5 = Cloning("lenet5", epochs=1)


@dataclass(frozen=True)
class Meter:
    """Where a process stood at one moment: clock, processor time, resident memory in MB."""

    clock: float
    cpu: float
    resident_mb: float

    @classmethod
    def read(cls) -> Meter:
        """Now."""
        return cls(time.perf_counter(), time.process_time(), psutil.Process().memory_info().rss / 2**20)


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    torch.set_num_threads(options.threads)
    try:
        recipe = recipes.read(options.recipe)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        channels, size = test.stored.shape[1], size_of(test.stored)
        service = Service(channels, size, len(test.classes))
        surrogate = datasets.load(options.surrogate, "train", root=options.data, size=size, channels=channels).pixels
        cloning = recipe.section("clone", Cloning)
        rows = []
        with InProcessOracle(options.store / f"{recipe.name}-{POLICY}.mar") as oracle:
            rows.append(queried(oracle, surrogate[: options.images], service, cloning, recipe=recipe.name))
            print(rows[-1], flush=True)
            for attack in ("dfme", "maze"):
                rows.append(
                    learnt(
                        oracle,
                        attack,
                        service,
                        warm_up=options.warm_up,
                        queries=options.queries,
                        recipe=recipe.name,
                    )
                )
                print(rows[-1], flush=True)
        settings = {"surrogate": options.surrogate, "warm_up": options.warm_up, "queries": options.queries}
        run = run_info(seed=SEED, started=started, settings=settings)
        write(options.run / "bench-attacks.json", Report(run, attack_speeds=tuple(rows)))
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"bench.attacks: {error}")


def queried(
    oracle: InProcessOracle, surrogate: torch.Tensor, service: Service, cloning: Cloning, *, recipe: str
) -> AttackSpeedRow:
    """Knockoff: `surrogate` float32 (N, C, H, W) asked about once, then one epoch of a clone on the answers."""
    rows = oracle.pipeline.policy.max_rows
    oracle(surrogate[:rows])  # warm, and each image is still asked about once
    thief = knockoff.KnockoffThief(surrogate, seed=SEED)
    spent = measured(thief, oracle, warm_up=0, budget=len(surrogate), rows=rows)
    epoch = epoch_seconds(thief, service, cloning)
    return AttackSpeedRow(recipe, POLICY, "knockoff", cloning.architecture, *spent, epoch_seconds=epoch)


def learnt(
    oracle: InProcessOracle, attack: str, service: Service, *, warm_up: int, queries: int, recipe: str
) -> AttackSpeedRow:
    """A data-free attack, at its defaults, over `queries` images after `warm_up`."""
    budget = warm_up + queries
    thief = (
        dfme.prepare(dfme.DFME(budget=budget), service, cloning=LENET5, seed=SEED)
        if attack == "dfme"
        else maze.prepare(maze.MAZE(budget=budget), service, cloning=LENET5, seed=SEED)
    )
    spent = measured(thief, oracle, warm_up=warm_up, budget=budget, rows=oracle.pipeline.policy.max_rows)
    return AttackSpeedRow(recipe, POLICY, attack, LENET5.architecture, *spent, epoch_seconds=None)


def measured(
    thief: Thief, oracle: Oracle, *, warm_up: int, budget: int, rows: int
) -> tuple[int, int, int, float, float, float]:
    """Threads, warm-up, queries after it, and what these took: seconds, CPU seconds and grown MB."""
    ledger = Ledger(oracle, budget)
    marks = []
    for stop in (warm_up, budget):
        ledger.budget = stop
        for _ in steal(thief, ledger, rows=rows):
            pass
        marks.append(Meter.read())
    before, after = marks
    return (
        torch.get_num_threads(),
        warm_up,
        budget - warm_up,
        round(after.clock - before.clock, 3),
        round(after.cpu - before.cpu, 3),
        round(after.resident_mb - before.resident_mb, 1),
    )


def epoch_seconds(thief: Thief, service: Service, cloning: Cloning) -> float:
    """Of one epoch of training a clone on what `thief` was answered, by this project's recipe "sgd"."""
    answered = thief.transfer_set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = untrained(cloning, service).to(memory_format=torch.channels_last).to(here())
    images = answered.images.to(here(), memory_format=torch.channels_last)
    targets = answered.soft_targets().to(here())
    start = time.perf_counter()
    fit(
        network,
        images,
        targets,
        RECIPES["sgd"],
        epochs=1,
        batch_size=cloning.batch_size,
        generator=torch.Generator().manual_seed(SEED),
    )
    return round(time.perf_counter() - start, 3)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description="speed of the attacks")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--run", type=Path, required=True, help="folder of bench-attacks.json, such as results")
    parser.add_argument("--surrogate", default="fashionmnist", help="Knockoff's images, as zoo.datasets spells them")
    parser.add_argument("--images", type=int, default=50_000, help="of the surrogate set (50000)")
    parser.add_argument("--warm-up", type=int, default=20_000, help="queries before DFME and MAZE are timed (20000)")
    parser.add_argument("--queries", type=int, default=60_000, help="queries that are timed (60000)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch (one a core)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    options = parser.parse_args()
    for name in ("images", "warm_up", "queries", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(options, name)}")
    return options


if __name__ == "__main__":
    main()
