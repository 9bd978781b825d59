"""Benign and hostile users against the running server: the "bench" rows (path "http") of report.json.

    python -m loadtests.load RECIPE --instance default --seconds 20 --policies undefended edm --run reports/RECIPE

Benign users take the policies in turn and check every answer; hostile users send what must be refused, to the same
workers at the same time. Exits with 1, naming the threshold, if one of [loadtest] was not met. rows_per_s is what
these users asked for, pauses included, not what the server could do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import recipes
from loadtests import locust_run, target
from loadtests.locust_run import TrafficError
from loadtests.target import TargetError
from loadtests.users import plan
from report.rows.bench import BenchRow
from report.schema import Report, ResultError, merge, run_info


def main() -> None:
    """Run the command line; a broken threshold or a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        limits = plan.limits(recipe)
        server = target.read(options.instance, run_folder=options.run_folder)
        for policy in options.policies:
            server.path(f"{recipe.name}-{policy}")
        benign = max(limits.benign, len(options.policies))
        print(
            f"{benign} benign and {limits.hostile} hostile users on {', '.join(options.policies)} "
            f"for {options.seconds:.0f} s",
            flush=True,
        )
        result = locust_run.run(
            {"BenignUser": benign, "HostileUser": limits.hostile},
            {
                "recipe": recipe.spec,
                "policies": ",".join(options.policies),
                "instance": options.instance,
                "run_folder": options.run_folder,
                "data": options.data,
            },
            summary=options.run / f"load-{'-'.join(options.policies)}.json",
            seconds=options.seconds,
        )
        rows = bench(result, recipe, clients=benign)
        run = run_info(seed=0, started=started, settings={"loadtest": vars(limits)})
        merge(options.run / "report.json", Report(run, bench=rows))
        print_summary(result)
    except (recipes.RecipeError, TargetError, TrafficError, ResultError) as error:
        sys.exit(f"loadtests.load: {error}")
    except KeyboardInterrupt:
        sys.exit("loadtests.load: interrupted")


def bench(result: Mapping[str, Any], recipe: recipes.Recipe, *, clients: int) -> tuple[BenchRow, ...]:
    """One row for each kind of benign request that was timed."""
    return tuple(
        BenchRow(
            policy=kind["model"].removeprefix(f"{recipe.name}-"),
            architecture=recipe.architecture,
            path="http",
            batch=kind["rows"],
            clients=clients,
            p50_ms=kind["p50_ms"],
            p99_ms=kind["p99_ms"],
            rows_per_s=kind["rows_per_s"],
            rss_mb=None,
        )
        for kind in result["kinds"]
        if kind["role"] == "benign" and kind["p50_ms"] is not None
    )


def print_summary(result: Mapping[str, Any]) -> None:
    """A line for each kind of benign request, one for all hostile ones, one for each model's accuracy."""
    for kind in result["kinds"]:
        if kind["role"] == "benign" and kind["p50_ms"] is not None:
            print(
                f"{kind['model']:<24} {kind['what']:<26} {kind['rows']:>3} rows  {kind['requests']:>6} requests  "
                f"p50 {kind['p50_ms']:7.1f} ms  p99 {kind['p99_ms']:7.1f} ms"
            )
    hostile = [kind for kind in result["kinds"] if kind["role"] == "hostile"]
    if hostile:
        cases, requests = len({kind["what"] for kind in hostile}), sum(kind["requests"] for kind in hostile)
        print(f"{requests} hostile requests of {cases} kinds, each answered as it must be")
    for model, accuracy in result["accuracy"].items():
        print(f"{model}: accuracy {accuracy:.4f} as the benign users saw it")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.load", description="benign and hostile traffic")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--policies", nargs="+", required=True, help="policies that the instance serves")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/digits")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long (20)")
    parser.add_argument("--instance", default="default", help="the running instance (default)")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    main()
