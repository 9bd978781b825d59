"""A matrix of thefts without a server: the "attacks" rows of a report, for budgets that HTTP cannot reach.

    python -m loadtests.evaluate RECIPE [--only NAME ...] --run reports/RECIPE

Every [evaluate.NAME] table of the recipe is one matrix: policies x budgets x seeds under one attack, plain or in an
adaptive form, both readings of the answers, every clone recipe of [clone]. The archives answer in process, through the
code that serves them. Answers are kept under the run's folder and shared by all clones that are trained from them; a
clone that was trained is not trained again, so an interrupted run loses one clone a core at most. New archives,
another key or other parameters make new answers.
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

import torch
from tqdm import tqdm

import recipes
from attacks.clone import Cloning
from attacks.oracle import Ledger
from attacks.registry import adaptive, attack
from attacks.service import Service
from attacks.thief import steal
from handlers.errors import LoadError
from loadtests import cells
from loadtests.cells import Cell, Exam
from loadtests.oracles import InProcessOracle, OracleError
from loadtests.results import Report, ResultError, merge, run_info
from loadtests.users.plan import parameters
from zoo import datasets

SEED = 0


@dataclass(frozen=True)
class Evaluation:
    """[evaluate.NAME]: which policies, under which attack, how much of it.

    budgets: charged images at which clones are trained; the largest is stolen. adaptive: a form of attacks.registry,
    or the plain attack. seeds: of the clones; the thief's own is the run's.
    """

    policies: tuple[str, ...]
    budgets: tuple[int, ...]
    attack: str = "knockoff"
    adaptive: str | None = None
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.policies or not self.budgets or not self.seeds:
            raise ValueError(f"expected at least one of policies, budgets and seeds, got {self}")
        if min(self.budgets) < 1:
            raise ValueError(f"budgets: expected at least 1 image, got {self.budgets}")
        attack(self.attack)
        if self.adaptive is not None:
            adaptive(self.adaptive)


@dataclass(frozen=True)
class Job:
    """The command line, read."""

    recipe: recipes.Recipe
    test: datasets.Images
    folder: Path
    store: Path
    data: Path | None

    def archive(self, policy: str) -> Path:
        return self.store / f"{self.recipe.name}-{policy}.mar"


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    try:
        recipe = recipes.read(options.recipe)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        matrix = recipe.family("evaluate", Evaluation)
        for name in options.only or matrix:
            if name not in matrix:
                raise recipes.RecipeError(f"{recipe.path}: no [evaluate.{name}]; it has {', '.join(matrix) or 'none'}")
        chosen = [matrix[name] for name in options.only or matrix]
        run(Job(recipe, test, options.run, options.store, options.data), chosen)
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"loadtests.evaluate: {error}")
    except KeyboardInterrupt:
        sys.exit("loadtests.evaluate: interrupted; the same command continues with the next clone")


def run(job: Job, matrix: list[Evaluation]) -> None:
    """Steal, clone, and merge the rows into the run's report."""
    if not matrix:
        raise recipes.RecipeError(f"{job.recipe.path}: no [evaluate.NAME] table; an evaluation needs one")
    started = datetime.now(timezone.utc)
    cloning = job.recipe.section("clone", Cloning)
    # two matrices may share cells
    planned = list({str(cell): cell for each in matrix for cell in _cells(job, each, cloning)}.values())
    exams = {cell.policy: Exam.load(cell.exam) for cell in planned}
    scored = cells.finish(planned, job.folder / "cells", say=tqdm.write)
    rows = tuple(cells.row(job.recipe.name, cell, score, exams[cell.policy]) for cell, score in scored)
    settings = {
        "dataset": job.recipe.tables["dataset"],
        "classes": len(job.test.classes),
        **{f"attacks.{each.attack}": job.recipe.tables["attacks"][each.attack] for each in matrix},
        "clone": dataclasses.asdict(cloning),
    }
    report = merge(
        job.folder / "report.json",
        Report(run_info(seed=SEED, started=started, settings=settings), attacks=rows),
    )
    tqdm.write(f"{len(rows)} clones in {job.folder / 'report.json'}, which holds {len(report.attacks)}")


def _cells(job: Job, evaluation: Evaluation, cloning: Cloning) -> Iterator[Cell]:
    """Steal from each policy, then every clone to be trained from that."""
    for policy in evaluation.policies:
        with InProcessOracle(job.archive(policy)) as oracle:
            exam = Exam.sit(oracle, job.test)
            theft = _steal(job, policy, evaluation, oracle, exam)
        exam_path = job.folder / "transfer" / f"exam-{policy}.npz"
        exam.save(exam_path)
        yield from cells.plan(
            theft,
            exam_path,
            cloning,
            policy=policy,
            attack=evaluation.attack,
            adaptive=evaluation.adaptive,
            classes=len(job.test.classes),
            budgets=evaluation.budgets,
            seeds=evaluation.seeds,
        )


def _steal(job: Job, policy: str, evaluation: Evaluation, oracle: InProcessOracle, exam: Exam) -> Path:
    """The transfer set of one attack on one policy: kept from an earlier run, else stolen now."""
    how = dataclasses.replace(parameters(job.recipe, evaluation.attack), budget=max(evaluation.budgets))
    facts = [dataclasses.asdict(how), SEED, _identity(job.archive(policy), exam)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    form = f"-{evaluation.adaptive}" if evaluation.adaptive else ""
    path = job.folder / "transfer" / f"{evaluation.attack}{form}-{policy}-{digest}.npz"
    if path.exists():
        return path
    _, channels, size, _ = job.test.pixels.shape
    service = Service(channels, size, len(job.test.classes))
    thief = attack(evaluation.attack).prepare(
        how, service, cloning=job.recipe.section("clone", Cloning), seed=SEED, root=job.data
    )
    if evaluation.adaptive is not None:
        thief = adaptive(evaluation.adaptive)(thief, seed=SEED)
    ledger = Ledger(oracle, how.budget)
    with tqdm(total=how.budget, desc=f"{policy}: {evaluation.attack}{form}", unit="image") as bar:
        for queries in steal(thief, ledger, rows=oracle.pipeline.policy.max_rows):
            bar.update(queries - bar.n)
    thief.transfer_set().save(path)
    return path


def _identity(archive: Path, exam: Exam) -> str:
    """What decides a policy's answers: its archive, and the key, which shows in what it serves."""
    return hashlib.sha256(archive.read_bytes() + exam.served.numpy().tobytes()).hexdigest()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.evaluate", description="steal in process, clone, report")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME", help="which [evaluate.NAME] (all)")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)  # clones train in processes of one thread; the archives have their own
    main()
