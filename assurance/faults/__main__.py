"""Fault injection: every fault on its own servers, in several rounds: results/faults.json.

    python -m assurance.faults RECIPE --store model_store --plain undefended --gated same-pow
    python -m assurance.faults RECIPE --parts hostile --runs 1 --output build/hostile.json      # one part of them alone

Nothing is mocked: workers are killed, disks are filled, Redis is stopped, the clock is moved. Prints a line for each
fault and, for each promise that was not kept, another; the exit code is 1 if there was one, and the file is written all
the same. Needs Debian's redis-server and faketime; the full disk needs the right to mount one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import recipes
from assurance.faults import plan
from assurance.faults.clients import FaultError
from assurance.faults.hostile_client import Pace
from assurance.faults.plan import Effort, Subjects
from loadtests import own_server
from loadtests.own_server import ServerError
from report.rows.faults import FaultRow
from report.schema import Report, run_info, write
from zoo import datasets

# enough for the answers of neighbours in a batch to differ
IMAGES = 24
SUSPECT = 100
# each on a server of its own, or on none
PARTS = ("server", "clock", "disk", "hostile", "start")


def main() -> None:
    """Run the command line; a fault that cannot be measured is a message and exit code 2."""
    options = _options()
    started = datetime.now(timezone.utc)
    rows: list[FaultRow] = []
    effort = Effort(options.clients, options.patience, options.settle)
    try:
        recipe = recipes.read(options.recipe)
        asked = subjects(recipe, options)
        for row in measured(asked, options.run_folder, effort, runs=options.runs, parts=options.parts):
            rows.append(row)
            print(line(row), flush=True)
            for broken in row.broken:
                print(f"  broken: {broken}", flush=True)
            # as it comes: what is measured so far survives whatever happens to the rest
            settings = {"effort": vars(effort), "runs": options.runs}
            facts = run_info(seed=0, started=started, settings=settings)
            write(options.output, Report(facts, faults=tuple(rows)))
    except (recipes.RecipeError, datasets.DatasetError, FaultError, ServerError) as error:
        print(f"assurance.faults: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("assurance.faults: interrupted; what was measured so far is in the file")
    lines = [each for row in rows for each in row.broken]
    kept = sum(len(row.bounds) for row in rows) - len(lines)
    print(f"{options.output}: {len(rows)} faults, {kept} promises kept, {len(lines)} broken")
    sys.exit(1 if lines else 0)


def subjects(recipe: recipes.Recipe, options: argparse.Namespace) -> Subjects:
    """The archives of a recipe, and images for them: its own test images, and an attacker's."""
    benign = recipe.section("dataset", datasets.Data).load("test", options.data).pixels[:IMAGES].numpy()
    foreign = datasets.load(options.surrogate, "train", root=options.data).pixels[:SUSPECT].numpy()
    if foreign.shape[1:] != benign.shape[1:]:
        raise FaultError(f"--surrogate: expected images {benign.shape[1:]} as {recipe.name}'s, got {foreign.shape[1:]}")
    store = options.store
    return Subjects(
        plain=store / f"{recipe.name}-{options.plain}.mar",
        gated=store / f"{recipe.name}-{options.gated}.mar",
        benign=benign,
        suspect=foreign,
        java=own_server.java(),
    )


def measured(
    subjects: Subjects, run_folder: Path, effort: Effort, *, runs: int, parts: Sequence[str] = PARTS
) -> Iterator[FaultRow]:
    """The rows of so many rounds, as they are measured. parts: those of PARTS that are wanted."""
    run_folder = run_folder.absolute()
    with (
        tempfile.TemporaryDirectory(prefix="torchwarden-") as folder,
        plan.stage(subjects, Path(folder), run_folder, effort) as start,
    ):
        for run in range(runs):
            if "server" in parts:
                yield from start().rows(run)
            if "clock" in parts:
                yield from plan.with_a_clock(subjects, run_folder, effort, run=run)
            if "disk" in parts:
                yield from plan.on_a_small_disk(subjects, run_folder, effort, run=run)
            if "hostile" in parts:
                yield from plan.with_a_hostile_client(subjects, run_folder, effort, Pace(), run=run)
            if "start" in parts:
                yield from plan.refused(subjects, run_folder, run=run)


def line(row: FaultRow) -> str:
    """A row in a line."""
    kept = sum(bound.met for bound in row.bounds)
    struck = row.struck
    seen = (
        ""
        if struck is None
        else f": {struck.sent} requests, {struck.right} right, {struck.others or 'no others'}, "
        f"back after {struck.back_s} s, longest gap {struck.gap_s} s"
    )
    return f"{row.fault} ({row.case}) {row.run}{seen}; {kept} of {len(row.bounds)} promises kept"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m assurance.faults", description="fault injection and its impact")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of the archives (model_store)")
    parser.add_argument("--plain", default="undefended", help="a policy without a gate (undefended)")
    parser.add_argument("--gated", default="same-pow", help="one whose gate asks for proof of work (same-pow)")
    parser.add_argument("--surrogate", default="flower", help="data set that the gate suspects (flower)")
    parser.add_argument("--runs", type=int, default=3, help="rounds (3)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured (all)")
    parser.add_argument("--clients", type=int, default=Effort.clients, help=f"of each model ({Effort.clients})")
    parser.add_argument(
        "--patience",
        type=float,
        default=Effort.patience_s,
        help=f"seconds for an answer ({Effort.patience_s:g})",
    )
    parser.add_argument(
        "--settle", type=float, default=Effort.settle_s, help=f"seconds before and after ({Effort.settle_s:g})"
    )
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--output", type=Path, default=Path("results/faults.json"), help="(results/faults.json)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
