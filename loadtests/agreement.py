"""The same attacks over HTTP: an evaluation in process stands for the service only if the service says the same.

    python -m loadtests.agreement RECIPE --instance default --only NAME --run reports/RECIPE

Every attack of the evaluation is carried out in process (evaluation/matrix.py), and once more by a campaign of clients
against the running server; its clones are trained by the same code. Both are set side by side: the images asked about,
the answers, the clones. Answers of a deterministic policy differ by what batches do to float32 at most; where an
attacker learns from them, even that leads it to other images in the end, and a randomised policy draws again for each
answer. What has to agree is the clone's accuracy: within two standard deviations of the in-process clones over seeds,
and within `LEAST` where those are closer together than that or where there is one seed.

Forms that ask for copies are left out, which ask otherwise the more clients there are; and so is what the other side of
an attack does not know, for it reads [attacks] and [clone] of the recipe (loadtests/attack_process.py): attacks whose
parameters an evaluation changes, and learning attackers under clone settings of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import stdev

import torch

import recipes
from attacks.clone import LABELS, Cloning
from attacks.transfer import TransferSet
from evaluation import matrix, tables
from evaluation.matrix import Evaluated, Plan
from evaluation.thefts import FITTED
from evaluation.truth import test_images
from loadtests import attack, target
from report.rows.clones import AgreementRow, AttackRow
from report.schema import Report, merge, run_info

LEAST = 0.02


@dataclasses.dataclass(frozen=True)
class Compared:
    """Two transfer sets of what should be one attack, over the rows both have; see AgreementRow."""

    same_images: float
    label_differences: int
    largest_difference: float | None


def main() -> None:
    """Run the command line; a clone that disagrees, or a mistake of the user's, is a message and exit code 1."""
    options = _options()
    try:
        recipe = recipes.read(options.recipe)
        test = test_images(recipe, options.data, options.store)
        job = matrix.Job(recipe, test, options.run, options.store, options.data)
        asked = tables.evaluations(recipe, options.only)
        over = _over_http(job, options.instance, options.run_folder, clients=options.clients)
        agreement = check(job, matrix.run(job, asked), over)
    except attack.MISTAKES as error:
        sys.exit(f"loadtests.agreement: {error}")
    except KeyboardInterrupt:
        sys.exit("loadtests.agreement: interrupted; the same command continues where it was")
    if not all(row.agrees for row in agreement):
        sys.exit("loadtests.agreement: attacks in process and over HTTP disagree; see the lines above")


def check(job: matrix.Job, done: Evaluated, over: attack.Job) -> tuple[AgreementRow, ...]:
    """Carry out the same attacks over HTTP, compare, and merge the rows into the run's report.

    done: the attacks in process, and their results.
    """
    started = datetime.now(timezone.utc)
    plain = [plan for plan in done.plans if _travels(plan, tables.cloning(job.recipe))]
    print(f"{len(plain)} of {len(done.plans)} attacks go over HTTP too", flush=True)
    there = [attack.served(over, plan) for plan in plain]
    stolen = {plan.theft.name: attack.steal(over, plan) for plan in there}
    impacts = tuple(row for plan in there for row in attack.impact(over, plan))
    agreement: tuple[AgreementRow, ...] = ()
    for plan, other, rows in zip(plain, there, matrix.rows_by_plan(over.work, there, stolen), strict=True):
        folders = done.folders[plan.theft.name], stolen[other.theft.name]
        compared = compare(*(TransferSet.load(folder / "transfer.npz") for folder in folders))
        agreement += tuple(paired(done.rows, rows, compared, clients=over.clients))
    merge(
        job.folder / "report.json",
        Report(run_info(seed=0, started=started, settings={}), agreement=agreement, felt=impacts),
    )
    for row in agreement:
        print(
            f"{row.policy} {row.thief} {row.budget} queries, {row.labels} labels, {row.clone_recipe}, "
            f"seed {row.seed}: in process {row.in_process:.3f}, over HTTP {row.over_http:.3f}, "
            f"{row.same_images:.1%} of the images the same, {'agrees' if row.agrees else 'DISAGREES'}"
        )
    return agreement


def compare(first: TransferSet, second: TransferSet) -> Compared:
    """What two attacks have in common."""
    rows = min(len(first), len(second))
    same = (first.images[:rows] == second.images[:rows]).flatten(1).all(dim=1)
    difference = None
    if first.probabilities is not None and second.probabilities is not None and same.any():
        difference = (first.probabilities[:rows][same] - second.probabilities[:rows][same]).abs().max().item()
    return Compared(
        same_images=int(same.sum()) / max(len(first), len(second)),
        label_differences=int((first.labels[:rows] != second.labels[:rows])[same].sum()),
        largest_difference=difference,
    )


def paired(
    in_process: Sequence[AttackRow], over_http: Sequence[AttackRow], compared: Compared, *, clients: int
) -> list[AgreementRow]:
    """Each clone of an attack over HTTP with its twin in process. compared: what the two attacks have in common."""
    known = {_place(row): row for row in in_process}
    rows = []
    for row in over_http:
        twin = known[_place(row)]
        kin = [each.clone_accuracy for place, each in known.items() if place[:-1] == _place(row)[:-1]]
        rows.append(
            AgreementRow(
                recipe=row.recipe,
                policy=row.policy,
                attack=row.attack,
                adaptive=row.adaptive,
                labels=row.labels,
                budget=row.budget,
                clone_recipe=row.clone_recipe,
                seed=row.seed,
                clients=clients,
                **dataclasses.asdict(compared),
                in_process=twin.clone_accuracy,
                over_http=row.clone_accuracy,
                allowed=max(LEAST, 2 * stdev(kin) if len(kin) > 1 else 0.0),
            )
        )
    return rows


def _place(row: AttackRow) -> tuple[str, str, str | None, str, int, str, int]:
    return row.policy, row.attack, row.adaptive, row.labels, row.budget, row.clone_recipe, row.seed


def _travels(plan: Plan, cloning: Cloning) -> bool:
    """Whether an attack can be carried out over HTTP as it was in process."""
    known = all(getattr(plan.theft.cloning, name) == getattr(cloning, name) for name in FITTED)
    asks_alike = plan.theft.form is None or plan.theft.form in attack.ADAPTIVE
    return asks_alike and not plan.evaluation.overrides and (known or not plan.theft.learns)


def _over_http(job: matrix.Job, instance: str, run_folder: Path, *, clients: int) -> attack.Job:
    """The same job in a folder of its own, through a running server. Raises TargetError."""
    return attack.Job(
        work=dataclasses.replace(job, folder=job.folder / "over-http"),
        server=target.read(instance, run_folder=run_folder),
        instance=instance,
        run_folder=run_folder,
        policies=(),
        attacks=(),
        labels=LABELS,
        seed=matrix.SEED,
        clients=clients,
        dilution=0,
        quiet_s=1.0,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.agreement", description="the same attacks in process and over HTTP"
    )
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME", help="which [evaluate.NAME] (all)")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--instance", default="default", help="the running instance (default)")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--clients", type=attack.at_least_one, default=10, help="that share an attack over HTTP (10)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)  # attacks and clones run in processes of one thread; the archives have their own
    main()
