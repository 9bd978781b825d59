"""What a precision saves, in process: policies NAME-int8 or NAME-fp16 beside NAME, in interleaved rounds.

    python -m bench.twins RECIPE --policies undefended-int8 [--run reports/RECIPE]

On CUDA where the installed onnxruntime has it, on the CPU elsewhere; a policy in fp16 needs CUDA (handlers/loading.py).
Both archives answer the same test images through their pipelines, with the key in the environment. Before anything is
timed, the share of equal labels is counted. A run of one pair takes under a minute: 4 batch sizes, 5 rounds, half a
second each, and as much for its twin. Whoever has a GPU for eight minutes builds the archives first.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import numpy as np

import recipes
import recipes.policies
from bench.inprocess import SEED, in_process, pipeline
from bench.overhttp import BenchError
from bench.rounds import interleaved
from evaluation.oracles import InProcessOracle, OracleError
from handlers.errors import LoadError
from report.format import ratios
from report.schema import Report, ResultError, merge, run_info, vnni
from zoo import datasets

BATCHES = (1, 8, 32, 256)
ROUNDS = 5
SECONDS = 0.5
ROWS = 2048


def twin(recipe: recipes.Recipe, policy: str) -> str:
    """The float32 policy that one is a variant of, by its name. Raises BenchError."""
    policies = recipe.tables["policies"]
    if policy not in policies:
        raise BenchError(f"{recipe.path}: no [policies.{policy}]; it has {', '.join(policies)}")
    plain = recipes.policies.twin(policy, policies)
    if plain is None:
        raise BenchError(
            f"[policies.{policy}]: expected the name NAME-PRECISION, and [policies.NAME] beside it, got none"
        )
    return plain


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.twins", description="a precision beside float32, in process")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--policies", nargs="+", required=True, help="policies NAME-int8 or NAME-fp16")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of the archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--run", type=Path, default=None, help="folder whose report.json takes the rows")
    options = parser.parse_args(arguments)
    started, rows = datetime.now(timezone.utc), []
    try:
        recipe = recipes.read(options.recipe)
        pairs = [(policy, twin(recipe, policy)) for policy in options.policies]
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        images = np.ascontiguousarray(test.pixels[:ROWS].numpy())
        for policy, plain in pairs:
            archives = [options.store / f"{recipe.name}-{name}.mar" for name in (plain, policy)]
            with InProcessOracle(archives[0], seed=SEED) as full, InProcessOracle(archives[1], seed=SEED) as narrow:
                most = min(full.pipeline.policy.max_rows, len(images))
                labels = [each.pipeline(images[:most]).labels for each in (full, narrow)]
                print(f"{policy}: labels equal on {float((labels[0] == labels[1]).mean()):.4f} of {most} images")
                probes = [
                    in_process(
                        pipeline(oracle),
                        images,
                        batch=batch,
                        seconds=SECONDS,
                        study="load",
                        path="pipeline",
                        policy=name,
                        architecture=recipe.architecture,
                        threads=oracle.pipeline.policy.threads,
                    )
                    for batch in BATCHES
                    if batch <= most
                    for name, oracle in ((plain, full), (policy, narrow))
                ]
                found = interleaved(probes, rounds=ROUNDS, name=policy)
            for one, other in zip(found[::2], found[1::2], strict=True):
                gains = ratios(other.rate_rounds, one.rate_rounds)
                print(
                    f"  batch {one.batch}: {median(gains):.2f} times the rows/s ({min(gains):.2f} to {max(gains):.2f})"
                )
            rows += found
        if options.run is not None:
            run = run_info(seed=SEED, started=started, settings={"vnni": vnni()})
            merge(options.run / "report.json", Report(run, bench=tuple(rows)))
    except (recipes.RecipeError, BenchError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"bench.twins: {error}")


if __name__ == "__main__":
    main()
