"""A matrix of thefts without a server: the "attacks" rows of a report, for budgets that HTTP cannot reach.

    python -m evaluation.matrix RECIPE [--only NAME ...] [--over-http INSTANCE] --run reports/RECIPE

Every [evaluate.NAME] table of the recipe is one matrix: policies x attacks x adaptive forms x labels x budgets x seeds.
The archives answer in process, through the code that serves them. A theft is carried out once (evaluation/thefts.py)
and shared by all clones that are trained from it (evaluation/clones.py); a clone that was trained is not trained again,
so an interrupted run loses one theft or one clone a core at most. New archives, another key or other parameters make
new answers; after a change of the attacks' own code, delete the run's folder.

With --over-http the same thefts are carried out through Locust as well (loadtests/agreement.py), and must agree.

What the thief had before its first query is measured too: `no_query_accuracy` is the accuracy of the clone trained on
the thief's own labelled images alone, of the recipe that does best on what the thief held out of them; without such
images it is a guess, one class in K.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tqdm import tqdm

import recipes
from attacks import clone, metrics, registry
from attacks.clone import LABELS, Cloning
from attacks.service import Service
from evaluation import clones, thefts
from evaluation.clones import Cell, Exam, Score
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.thefts import Snapshot, Theft
from handlers.errors import LoadError
from loadtests.locust_run import TrafficError
from loadtests.target import TargetError
from loadtests.users.plan import parameters
from report.rows.clones import AttackRow
from report.schema import Report, ResultError, merge, run_info
from zoo import datasets

SEED = 0
# the recipe of a clone that its attack trained
OWN = "own"
PLAIN = "adamw"


@dataclass(frozen=True)
class Evaluation:
    """[evaluate.NAME]: which policies, under which attacks, how much of it.

    budgets: charged images at which clones are judged; the largest is stolen. attacks: tables [attacks.NAME].
    adaptive: forms of attacks.registry; none: the attacks as they are. labels: what the thief reads. seeds: of the
    clones; an attack that trains its own clone is carried out once a seed, of the others the thief's seed is the run's.
    clone: keys of [clone] that are different here; overrides: of [attacks.NAME]. called: the name of this form in
    reports, which tells it from the plain attack where either is different.
    """

    policies: tuple[str, ...]
    budgets: tuple[int, ...]
    attacks: tuple[str, ...] = ("knockoff",)
    adaptive: tuple[str, ...] = ()
    labels: tuple[str, ...] = LABELS
    seeds: tuple[int, ...] = (0,)
    clone: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    called: str | None = None

    def __post_init__(self) -> None:
        for name in ("policies", "budgets", "attacks", "labels", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, got none")
        if min(self.budgets) < 1:
            raise ValueError(f"budgets: expected at least 1 image, got {self.budgets}")
        for label in self.labels:
            if label not in LABELS:
                raise ValueError(f"labels: expected some of {', '.join(LABELS)}, got {label!r}")
        for name in self.attacks:
            registry.attack(name)
        for name in self.adaptive:
            registry.form(name)
        if "budget" in self.overrides:
            raise ValueError("overrides: expected no budget, that is what `budgets` is for")
        if self.overrides and self.called is None:
            raise ValueError(f"called: expected a name for the attack with {self.overrides}, got none")
        if self.called is not None and self.adaptive:
            raise ValueError(f"called: expected no other name of the form, got adaptive {self.adaptive} too")


@dataclass(frozen=True)
class Job:
    """The command line, read."""

    recipe: recipes.Recipe
    test: datasets.Images
    folder: Path
    store: Path
    data: Path | None

    @property
    def service(self) -> Service:
        """What any client knows of the recipe's policies."""
        _, channels, size, _ = self.test.pixels.shape
        return Service(channels, size, len(self.test.classes))

    def archive(self, policy: str) -> Path:
        return self.store / f"{self.recipe.name}-{policy}.mar"

    def parameters(self, attack: str, evaluation: Evaluation) -> Any:
        """[attacks.NAME] with the largest budget, and whatever else is different here. Raises RecipeError."""
        plain = parameters(self.recipe, attack)  # what is wrong with the table itself is said there
        table = self.recipe.tables["attacks"][attack]
        changed = {**table, **evaluation.overrides, "budget": max(evaluation.budgets)}
        return recipes.build(type(plain), changed, where=f"{self.recipe.path}: [evaluate]: overrides of {attack}")

    def cloning(self, evaluation: Evaluation) -> Cloning:
        """[clone] with what this evaluation has different."""
        table = {**self.recipe.tables.get("clone", {}), **evaluation.clone}
        return recipes.build(Cloning, table, where=f"{self.recipe.path}: [clone]")


@dataclass(frozen=True)
class Served:
    """A running instance, by its name and the folder of instances, and the clients that share a theft over HTTP."""

    instance: str
    run_folder: Path
    clients: int


@dataclass(frozen=True)
class Victim:
    """What there is to know of one policy before it is robbed.

    exam: its answers to the test split, and the file that holds them. identity, label_identity: hashes of what decides
    its probabilities, and its labels: graphs, policy, and (for the key and the code, which are neither) the answers to
    the exam. told: whether it tells probabilities.
    """

    policy: str
    exam: Exam
    path: Path
    identity: str
    label_identity: str
    told: bool

    @classmethod
    def meet(cls, job: Job, name: str) -> Victim:
        """Sit the exam of the policy `name`. Raises OracleError, LoadError."""
        with InProcessOracle(job.archive(name), seed=SEED, pay=True) as oracle:
            answers = oracle(job.test.pixels)
            assert job.test.labels is not None, "a recipe's data set is labelled"
            exam = Exam(job.test.pixels, job.test.labels, answers.labels)
            policy = oracle.pipeline.policy
            whole = _hash(policy, _graphs(oracle, policy.graphs), exam.served, answers.probabilities)
            deciding = [stage.graph for stage in (policy.route, policy.gate) if stage is not None]
            # where the response rule leaves labels alone, whatever it does to probabilities is nothing to a thief who
            # reads labels: policies that are equal but for such rules are robbed at once
            graphs = _graphs(oracle, [*policy.members, *deciding])
            labels = _hash(policy.input, policy.route, policy.gate, graphs, exam.served)
            keeps = policy.response.build().keeps_label
        path = job.folder / "transfer" / f"exam-{name}.npz"
        exam.save(path)
        return cls(name, exam, path, whole, labels if keeps else whole, answers.probabilities is not None)


@dataclass(frozen=True)
class Plan:
    """One theft and who it is for: the evaluation and the policy. Several plans may share a theft."""

    evaluation: Evaluation
    victim: Victim
    theft: Theft

    @property
    def adaptive(self) -> str | None:
        """The form's name in a report."""
        return self.theft.form or self.evaluation.called


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
        chosen = {name: matrix[name] for name in options.only or matrix}
        served = Served(options.over_http, options.run_folder, options.clients) if options.over_http else None
        run(Job(recipe, test, options.run, options.store, options.data), chosen, over_http=served)
    except (
        recipes.RecipeError,
        TargetError,
        TrafficError,
        OracleError,
        LoadError,
        ResultError,
        datasets.DatasetError,
    ) as error:
        sys.exit(f"evaluation.matrix: {error}")
    except KeyboardInterrupt:
        sys.exit("evaluation.matrix: interrupted; the same command continues where it was")


def run(job: Job, tables: Mapping[str, Evaluation], *, over_http: Served | None = None) -> None:
    """Steal, clone, and merge the rows into the run's report; then, if asked to, hold them against thefts over HTTP."""
    matrix = list(tables.values())
    if not matrix:
        raise recipes.RecipeError(f"{job.recipe.path}: no [evaluate.NAME] table; an evaluation needs one")
    started = datetime.now(timezone.utc)
    names = dict.fromkeys(policy for each in matrix for policy in each.policies)
    victims = {policy: Victim.meet(job, policy) for policy in tqdm(names, desc="exams", unit="policy")}
    planned = [plan for each in matrix for plan in plans(job, each, victims)]
    folders = thefts.finish([plan.theft for plan in planned], job.folder / "transfer", say=tqdm.write)
    found = tuple(rows(job, planned, folders))
    settings = {
        "dataset": job.recipe.tables["dataset"],
        "classes": len(job.test.classes),
        **{f"attacks.{name}": dataclasses.asdict(parameters(job.recipe, name)) for name in _attacks(matrix)},
        "clone": dataclasses.asdict(job.recipe.section("clone", Cloning)),
        **{f"evaluate.{name}": dataclasses.asdict(each) for name, each in tables.items()},
    }
    report = merge(
        job.folder / "report.json",
        Report(run_info(seed=SEED, started=started, settings=settings), attacks=found),
    )
    tqdm.write(f"{len(found)} clones in {job.folder / 'report.json'}, which holds {len(report.attacks)}")
    if over_http is not None:
        from loadtests import agreement  # it steals both ways, and so imports this module

        agreement.check(job, planned, folders, found, over_http)


def plans(job: Job, evaluation: Evaluation, victims: dict[str, Victim]) -> Iterator[Plan]:
    """Every theft of a matrix."""
    cloning = job.cloning(evaluation)
    for policy in evaluation.policies:
        for name in evaluation.attacks:
            for form in evaluation.adaptive or (None,):
                victim, entry = victims[policy], registry.attack(name)
                readings = [each for each in evaluation.labels if each in entry.readings and _told(victim, each)]
                learns = entry.learns or (form is not None and registry.form(form).learns)
                how = job.parameters(name, evaluation)
                for labels in readings if learns else ["both"]:
                    for seed in evaluation.seeds if entry.ends_with_clone else (SEED,):
                        theft = Theft(
                            archive=job.archive(policy),
                            identity=victim.label_identity if labels == "hard" else victim.identity,
                            service=job.service,
                            attack=name,
                            form=form,
                            labels=labels,
                            seed=seed,
                            how=how,
                            cloning=cloning,
                            budgets=tuple(sorted(evaluation.budgets)),
                            exam=victim.path,
                            root=job.data,
                        )
                        yield Plan(evaluation, victim, theft)


def rows(job: Job, planned: Sequence[Plan], folders: Mapping[str, Path]) -> list[AttackRow]:
    """Train what is left to train; every clone of the plans as a row. Raises RecipeError where two disagree.

    folders: of the thefts, by their names.
    """
    classes = len(job.test.classes)
    trained = [(plan, cell) for plan in planned for cell in _trained(plan, folders[plan.theft.name], classes)]
    before = {
        (number, budget): list(_alone(plan, folders[plan.theft.name], classes, budget))
        for number, plan in enumerate(planned)
        for budget in plan.evaluation.budgets
    }
    every = [cell for _, cell in trained] + [cell for each in before.values() for cell in each]
    scores = {cell.key: score for cell, score in clones.finish(every, job.folder / "cells", say=tqdm.write)}
    guess = 1 / classes
    no_query = {place: _best([scores[cell.key] for cell in each], each, guess) for place, each in before.items()}

    told: dict[tuple[object, ...], AttackRow] = {}
    for number, plan in enumerate(planned):
        folder = folders[plan.theft.name]
        found = [
            clones.row(
                job.recipe.name,
                cell,
                scores[cell.key],
                plan.victim.exam,
                no_query_accuracy=no_query[number, cell.budget],
            )
            for owner, cell in trained
            if owner is plan
        ]
        if registry.attack(plan.theft.attack).ends_with_clone:
            for budget in plan.evaluation.budgets:
                snapshot = Snapshot.load(folder / f"clone-{budget}.npz")
                found.append(_grown(job.recipe.name, plan, budget, snapshot, no_query[number, budget]))
        for row in found:
            place = (row.policy, row.attack, row.adaptive, row.labels, row.budget, row.seed, row.clone_recipe)
            if told.setdefault(place, row) != row:
                raise recipes.RecipeError(
                    f"{job.recipe.path}: two [evaluate] tables give different clones for {place}; "
                    "give one of them another budget, or a name of its own (called)"
                )
    return list(told.values())


def _trained(plan: Plan, folder: Path, classes: int) -> Iterator[Cell]:
    """The clones to train from a theft; none where the attack ended with its own."""
    if registry.attack(plan.theft.attack).ends_with_clone:
        return
    yield from clones.plan(
        folder / "transfer.npz",
        plan.victim.path,
        plan.theft.cloning,
        policy=plan.victim.policy,
        attack=plan.theft.attack,
        adaptive=plan.adaptive,
        classes=classes,
        budgets=plan.evaluation.budgets,
        seeds=plan.evaluation.seeds,
        labels=plan.evaluation.labels if plan.theft.labels == "both" else (plan.theft.labels,),
    )


def _alone(plan: Plan, folder: Path, classes: int, budget: int) -> Iterator[Cell]:
    """The clones to train on what the thief had before its first query; none where it had nothing labelled."""
    if not (folder / "own.npz").exists():
        return
    # its images have labels, no probabilities: a thief whose recipes need those falls back on the plain one
    readable = tuple(name for name in plan.theft.cloning.recipes if clone.recipe_reads(name, "hard"))
    yield from clones.plan(
        folder / "own.npz",
        plan.victim.path,
        dataclasses.replace(plan.theft.cloning, recipes=readable or (PLAIN,)),
        policy=plan.victim.policy,
        attack=f"{plan.theft.attack}, without a query",
        adaptive=None,
        classes=classes,
        budgets=[budget],
        seeds=plan.evaluation.seeds,
        labels=("hard",),
    )


def _best(scores: Sequence[Score], planned: Sequence[Cell], guess: float) -> float:
    """Mean accuracy of the recipe that the thief would choose; `guess` without any clone."""
    if not scores:
        return guess
    held_out, accuracy = defaultdict(list), defaultdict(list)
    for cell, score in zip(planned, scores, strict=True):
        held_out[cell.recipe].append(score.held_out)
        accuracy[cell.recipe].append(score.clone_accuracy)
    return mean(accuracy[clone.best(held_out)])


def _grown(recipe: str, plan: Plan, budget: int, snapshot: Snapshot, no_query: float) -> AttackRow:
    """The row of a clone that its attack trained."""
    exam = plan.victim.exam
    return AttackRow(
        recipe=recipe,
        policy=plan.victim.policy,
        attack=plan.theft.attack,
        adaptive=plan.adaptive,
        labels=plan.theft.labels,
        budget=budget,
        seed=plan.theft.seed,
        clone_recipe=OWN,
        clone_accuracy=metrics.accuracy(snapshot.labels, exam.truth),
        agreement=metrics.agreement(snapshot.labels, exam.served),
        held_out=snapshot.held_out,
        no_query_accuracy=no_query,
        victim_accuracy=metrics.accuracy(exam.served, exam.truth),
        queries=snapshot.queries,
        rejected=snapshot.rejected,
        pow_hashes=round(snapshot.work),
        seconds=snapshot.seconds,
    )


def _told(victim: Victim, labels: str) -> bool:
    return victim.told or labels == "hard"


def _graphs(oracle: InProcessOracle, names: Iterable[str]) -> list[str]:
    """Hashes of an archive's graphs."""
    files = (path for name in names for path in sorted((oracle.folder / "graphs").glob(f"{name}.*")))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def _hash(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.numpy().tobytes() if isinstance(part, torch.Tensor) else repr(part).encode())
    return digest.hexdigest()


def _attacks(matrix: Sequence[Evaluation]) -> list[str]:
    return list(dict.fromkeys(name for each in matrix for name in each.attacks))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m evaluation.matrix", description="steal in process, clone, report")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME", help="which [evaluate.NAME] (all)")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--over-http", metavar="INSTANCE", help="steal from this running instance too; both must agree")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--clients", type=int, default=10, help="that share a theft over HTTP (10)")
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)  # thefts and clones run in processes of one thread; the archives have their own
    main()
