"""Attack the running server over HTTP, then train clones from what it told: the "attacks" rows of report.json.

    python -m loadtests.attack RECIPE --instance default --policies undefended edm --run reports/RECIPE

For each policy and each [attacks.NAME] of the recipe a headless Locust run sends one thief, and a few benign users
beside it, until the thief's budget is spent. Afterwards, with nothing left to disturb, clones are trained here: for
every recipe of [clone], seed, share of the budget, and both readings of the same answers, soft and hard. They are
judged on the victim's test split, which no thief has seen; the policy's own answers on it come from its archive, in
process.

An interrupted run continues: answers already paid for are kept if the service still gives the same ones, and a clone
that was trained is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests
import torch

import recipes
from attacks.clone import Cloning
from attacks.transfer import TransferSet
from handlers.errors import LoadError
from loadtests import cells, target, traffic
from loadtests.cells import Cell, Exam
from loadtests.oracles import HttpOracle, InProcessOracle, OracleError
from loadtests.results import Report, ResultError, merge, run_info
from loadtests.target import Target, TargetError
from loadtests.traffic import TrafficError
from loadtests.users.plan import parameters
from zoo import datasets

BENIGN_BESIDE = 2
TIMEOUT_S = (5, 30)
# answers that are equal but for the batches they were computed in
SAME = 1e-4


@dataclass(frozen=True)
class Job:
    """The command line, read: recipe, server, folders."""

    recipe: recipes.Recipe
    server: Target
    instance: str
    policies: tuple[str, ...]
    folder: Path
    run_folder: Path
    store: Path
    data: Path | None
    seed: int

    def archive(self, policy: str) -> Path:
        return self.store / f"{self.recipe.name}-{policy}.mar"


def main() -> None:
    """Run the command line; a mistake of the user's or a broken threshold is a message and exit code 1."""
    options = _options()
    try:
        job = Job(
            recipe=recipes.read(options.recipe),
            server=target.read(options.instance, run_folder=options.run_folder),
            instance=options.instance,
            policies=tuple(options.policies),
            folder=options.run,
            run_folder=options.run_folder,
            store=options.store,
            data=options.data,
            seed=options.seed,
        )
        run(job)
    except (
        recipes.RecipeError,
        TargetError,
        TrafficError,
        OracleError,
        LoadError,
        ResultError,
        datasets.DatasetError,
    ) as error:
        sys.exit(f"loadtests.attack: {error}")
    except KeyboardInterrupt:
        sys.exit("loadtests.attack: interrupted; the same command continues with the next clone")


def run(job: Job) -> None:
    """Steal from every policy with every attack of the recipe, train the clones, merge their rows into the report."""
    started = datetime.now(timezone.utc)
    cloning = job.recipe.section("clone", Cloning)
    names = tuple(job.recipe.tables.get("attacks", {}))
    if not names:
        raise recipes.RecipeError(f"{job.recipe.path}: no [attacks.NAME] table; an attack needs one")
    thefts = {name: parameters(job.recipe, name) for name in names}
    planned = [
        cell
        for policy in job.policies
        for name, how in thefts.items()
        for cell in _cells(job, policy, name, how, cloning)
    ]
    exams = {cell.policy: Exam.load(cell.exam) for cell in planned}
    scored = cells.finish(planned, job.folder / "cells", say=_say)
    rows = tuple(cells.row(job.recipe.name, cell, score, exams[cell.policy]) for cell, score in scored)
    settings = {
        "dataset": job.recipe.tables["dataset"],
        "classes": planned[0].classes,
        **{f"attacks.{name}": dataclasses.asdict(how) for name, how in thefts.items()},
        "clone": dataclasses.asdict(cloning),
    }
    facts = run_info(seed=job.seed, started=started, settings=settings)
    merge(job.folder / "report.json", Report(facts, attacks=rows))
    _say(f"{len(rows)} rows in {job.folder / 'report.json'}")


def _cells(job: Job, policy: str, name: str, how: Any, cloning: Cloning) -> Iterator[Cell]:
    """Steal from one policy with one attack; then every clone to be trained from that."""
    path = _steal(job, policy, name, how)
    exam_path = job.folder / "transfer" / f"exam-{policy}.npz"
    exam, classes = _examine(job, policy)
    exam.save(exam_path)
    charged = TransferSet.load(path).charged
    yield from cells.plan(
        path,
        exam_path,
        cloning,
        policy=policy,
        attack=name,
        adaptive=None,
        classes=classes,
        budgets=[round(fraction * charged) for fraction in cloning.fractions],
        seeds=cloning.seeds,
    )


def _steal(job: Job, policy: str, name: str, how: Any) -> Path:
    """The transfer set of one attack on one policy: kept from an earlier run if still true, else stolen now."""
    facts = json.dumps([job.recipe.name, name, dataclasses.asdict(how), job.seed], sort_keys=True)
    digest = hashlib.sha256(facts.encode()).hexdigest()[:8]
    path = job.folder / "transfer" / f"{name}-{policy}-{digest}.npz"
    model = f"{job.recipe.name}-{policy}"
    if path.exists() and _still_true(TransferSet.load(path), job.server, model, rows=how.rows):
        _say(f"{model}: the service still gives the answers of {path.name}; not stolen again")
        return path
    _say(f"{model}: {name} steals {how.budget} answers over HTTP")
    result = traffic.run(
        {"ThiefUser": 1, "BenignUser": BENIGN_BESIDE},
        {
            "recipe": job.recipe.spec,
            "policies": policy,
            "instance": job.instance,
            "run_folder": job.run_folder,
            "data": job.data,
            "attack": name,
            "seed": job.seed,
            "transfer": path,
        },
        summary=job.folder / f"attack-{name}-{policy}.json",
    )
    _say(f"{model}: done in {result['seconds']:.1f} s beside {BENIGN_BESIDE} benign users")
    return path


def _still_true(transfer: TransferSet, server: Target, model: str, *, rows: int) -> bool:
    """Whether the service answers the first `rows` images as it did when they were stolen.

    A new key, archive or a service that answers at random make this false.
    """
    with requests.Session() as session:

        def post(body: bytes, content_type: str) -> tuple[int, bytes]:
            headers = {**server.authorization, "Content-Type": content_type}
            url = server.inference + server.path(model)
            try:
                response = session.post(url, data=body, headers=headers, timeout=TIMEOUT_S)
            except requests.RequestException as error:
                raise TargetError(f"{url}: no answer ({type(error).__name__}); is it running? (make status)") from error
            return response.status_code, response.content

        now = HttpOracle(post, rows=rows)(transfer.images[:rows])
    if not torch.equal(now.labels, transfer.labels[:rows]):
        return False
    if now.probabilities is None or transfer.probabilities is None:
        return now.probabilities is transfer.probabilities
    return torch.allclose(now.probabilities, transfer.probabilities[:rows], rtol=0, atol=SAME)


def _examine(job: Job, policy: str) -> tuple[Exam, int]:
    """The test split with the policy's own answers, and the number of classes."""
    test = job.recipe.section("dataset", datasets.Data).load("test", job.data)
    with InProcessOracle(job.archive(policy)) as oracle:
        return Exam.sit(oracle, test), len(test.classes)


def _say(line: str) -> None:
    print(line, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.attack", description="steal, clone, report")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--policies", nargs="+", required=True, help="policies that the instance serves")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/digits")
    parser.add_argument("--instance", default="default", help="the running instance (default)")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--seed", type=int, default=0, help="of the thief's choices (0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
