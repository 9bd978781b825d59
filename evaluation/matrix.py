"""A matrix of attacks without a server: the "attacks" rows of a report, for budgets that HTTP cannot reach.

    python -m evaluation.matrix RECIPE [--only NAME ...] --run reports/RECIPE

Every [evaluate.NAME] table of the recipe is one matrix: policies x attacks x adaptive forms x labels x budgets x seeds.
The archives answer in process, through the code that serves them. An attack is carried out once (evaluation/thefts.py)
and shared by all clones that are trained from it (evaluation/clones.py); a clone that was trained is not trained again,
so an interrupted run loses one attack or one clone a core at most. New archives, another key or other parameters make
new responses; after a change of the attacks' own code, delete the run's folder.

The baseline without a query is measured too: `no_query_accuracy` is the accuracy of the clone trained on the attacker's
seed set alone, with the training recipe that does best on its held-out part; without a seed set it is a guess, one
class in K. An attack that varies its seed set varies it here too (attacks/unasked.py), and any other does so where its
table says `own_strength`. Each seed of the clones has its own baseline.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from tqdm import tqdm

import recipes
from attacks import clone, metrics, registry
from attacks.clone import LABELS
from attacks.service import Service
from defenses.budget import PRICE, REFUSE
from evaluation import clones, tables, thefts
from evaluation.clones import Cell, Exam, Score
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.tables import Evaluation
from evaluation.thefts import Snapshot, Theft
from evaluation.truth import test_images
from handlers.errors import LoadError
from report.rows.clones import IN_PROCESS, AttackRow
from report.schema import Report, ResultError, merge, run_info
from zoo import datasets
from zoo.images import size_of

SEED = 0
# the recipe of a clone that its attack trained
OWN = "own"
PLAIN = "adamw"
# mistakes of the user's, whose message is all that he needs
MISTAKES = (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError)


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
        channels, size = self.test.stored.shape[1], size_of(self.test.stored)
        return Service(channels, size, len(self.test.classes))

    def archive(self, policy: str) -> Path:
        return self.store / f"{self.recipe.name}-{policy}.mar"


@dataclass(frozen=True)
class Victim:
    """What there is to know of one policy before it is attacked.

    exam: its answers to the test split, and the file that holds them. identity, label_identity: hashes of what decides
    its probabilities, and its labels: graphs, policy, and (for the key and the code, which are neither) the answers to
    the exam. soft: whether its answers have probabilities.
    """

    policy: str
    exam: Exam
    path: Path
    identity: str
    label_identity: str
    soft: bool

    @classmethod
    def evaluate(cls, job: Job, name: str) -> Victim:
        """Ask the policy `name` about the test split. Raises OracleError, LoadError."""
        with InProcessOracle(job.archive(name), seed=SEED, pay=True) as oracle:
            answers = oracle(job.test.pixels)
            assert job.test.labels is not None, "a recipe's data set is labelled"
            exam = Exam(job.test.pixels, job.test.labels, answers.labels)
            policy = oracle.pipeline.policy
            whole = _hash(policy, _graphs(oracle, policy.graphs), exam.served, answers.probabilities)
            deciding = [stage.graph for stage in (policy.route, policy.gate) if stage is not None]
            # where the response rule leaves labels alone, whatever it does to probabilities is nothing to an attacker
            # who reads labels: policies that are equal but for such rules share an attack
            graphs = _graphs(oracle, [*policy.members, *deciding])
            # labels are what is left of a budget that leaves labels
            counts = [policy.budget] if policy.budget is not None and policy.budget.then in (REFUSE, PRICE) else []
            labels = _hash(policy.input, policy.route, policy.gate, graphs, exam.served, *counts)
            keeps = policy.response.build().keeps_label
        path = job.folder / "transfer" / f"exam-{name}.npz"
        exam.save(path)
        return cls(name, exam, path, whole, labels if keeps else whole, answers.probabilities is not None)


@dataclass(frozen=True)
class Plan:
    """One attack and who it is for: the evaluation and the policy. Several plans may share an attack."""

    evaluation: Evaluation
    victim: Victim
    theft: Theft

    @property
    def adaptive(self) -> str | None:
        """The form's name in a report."""
        return self.theft.form or self.evaluation.called


@dataclass(frozen=True)
class Outcome:
    """The files of an attack for one of its plans, and the clones to train from them.

    trained: on the answers; none where the attack trained a clone itself, which is `own`, by budget. baseline: on what
    the attacker had before its first query, by budget; none where it had nothing labelled.
    """

    plan: Plan
    trained: tuple[Cell, ...]
    own: Mapping[int, Snapshot]
    baseline: Mapping[int, tuple[Cell, ...]]

    @property
    def cells(self) -> Iterator[Cell]:
        """Every clone to train."""
        return itertools.chain(self.trained, *self.baseline.values())


@dataclass(frozen=True)
class Evaluated:
    """The results of some evaluations: the attacks, their folders by name, and a row for each clone."""

    plans: tuple[Plan, ...]
    folders: Mapping[str, Path]
    rows: tuple[AttackRow, ...]


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    try:
        recipe = recipes.read(options.recipe)
        test = test_images(recipe, options.data, options.store)
        job = Job(recipe, test, options.run, options.store, options.data)
        run(job, tables.evaluations(recipe, options.only))
    except MISTAKES as error:
        sys.exit(f"evaluation.matrix: {error}")
    except KeyboardInterrupt:
        sys.exit("evaluation.matrix: interrupted; the same command continues where it was")


def run(job: Job, asked: Mapping[str, Evaluation]) -> Evaluated:
    """Steal, train the clones, and merge their rows into the run's report. asked: by the names of their tables."""
    started = datetime.now(timezone.utc)
    matrix = list(asked.values())
    names = dict.fromkeys(policy for each in matrix for policy in each.policies)
    victims = {policy: Victim.evaluate(job, policy) for policy in tqdm(names, desc="exams", unit="policy")}
    planned = tuple(plan for each in matrix for plan in plans(job, each, victims))
    folders = thefts.finish([plan.theft for plan in planned], job.folder / "transfer", say=tqdm.write)
    found = tuple(dataclasses.replace(row, path=IN_PROCESS) for row in rows(job, planned, folders))
    attacks = dict.fromkeys(name for each in matrix for name in each.attacks)
    settings = {
        "dataset": job.recipe.tables["dataset"],
        "classes": len(job.test.classes),
        **{f"attacks.{name}": dataclasses.asdict(tables.parameters(job.recipe, name)) for name in attacks},
        "clone": dataclasses.asdict(tables.cloning(job.recipe)),
        **{f"evaluate.{name}": dataclasses.asdict(each) for name, each in asked.items()},
        **job.recipe.captions(names),
    }
    report = merge(
        job.folder / "report.json",
        Report(run_info(seed=SEED, started=started, settings=settings), attacks=found),
    )
    tqdm.write(f"{len(found)} clones in {job.folder / 'report.json'}, which holds {len(report.attacks)}")
    return Evaluated(planned, folders, found)


def plans(job: Job, evaluation: Evaluation, victims: dict[str, Victim]) -> Iterator[Plan]:
    """Every attack of a matrix."""
    cloning = tables.cloning(job.recipe, evaluation.clone)
    for policy in evaluation.policies:
        for name in evaluation.attacks:
            for form in evaluation.adaptive or (None,):
                victim, entry = victims[policy], registry.attack(name)
                shown = LABELS if victim.soft else ("hard",)
                readings = [each for each in evaluation.labels if each in entry.readings and each in shown]
                learns = entry.learns or (form is not None and registry.form(form).learns)
                config = evaluation.parameters(job.recipe, name)
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
                            how=config,
                            cloning=cloning,
                            budgets=tuple(sorted(evaluation.budgets)),
                            exam=victim.path,
                            root=job.data,
                        )
                        yield Plan(evaluation, victim, theft)


def rows(job: Job, planned: Sequence[Plan], folders: Mapping[str, Path]) -> list[AttackRow]:
    """Train what is left to train; every clone of the plans as a row, once. Raises RecipeError where two disagree.

    folders: of the attacks, by their names.
    """
    found: dict[tuple[object, ...], AttackRow] = {}
    for row in itertools.chain.from_iterable(rows_by_plan(job, planned, folders)):
        place = (row.policy, row.attack, row.adaptive, row.labels, row.budget, row.seed, row.clone_recipe)
        if found.setdefault(place, row) != row:
            raise recipes.RecipeError(
                f"{job.recipe.path}: two [evaluate] tables give different clones for {place}; "
                "give one of them another budget, or a name of its own (called)"
            )
    return list(found.values())


def rows_by_plan(job: Job, planned: Sequence[Plan], folders: Mapping[str, Path]) -> list[list[AttackRow]]:
    """Train what is left to train, of all plans together; the rows of each plan. folders: as of `rows`."""
    classes = len(job.test.classes)
    truth = job.folder / "transfer" / "exam-truth.npz"
    assert job.test.labels is not None, "a recipe's data set is labelled"
    Exam(job.test.pixels, job.test.labels, job.test.labels).save(truth)
    outcomes = [_outcome(plan, folders[plan.theft.name], classes, truth) for plan in planned]
    cells = [cell for outcome in outcomes for cell in outcome.cells]
    scores = {cell.key: score for cell, score in clones.finish(cells, job.folder / "cells", say=tqdm.write)}
    return [list(_rows(job, outcome, scores)) for outcome in outcomes]


def _outcome(plan: Plan, folder: Path, classes: int, truth: Path) -> Outcome:
    """What lies in the folder of a plan's attack. truth: the exam of clones that asked nobody."""
    budgets = dict.fromkeys(plan.evaluation.budgets)
    ends_with_clone = registry.attack(plan.theft.attack).ends_with_clone
    return Outcome(
        plan,
        trained=() if ends_with_clone else tuple(_trained(plan, folder, classes)),
        own={budget: Snapshot.load(folder / f"clone-{budget}.npz") for budget in budgets} if ends_with_clone else {},
        baseline={budget: tuple(_baseline(plan, folder, classes, budget, truth)) for budget in budgets},
    )


def _trained(plan: Plan, folder: Path, classes: int) -> Iterator[Cell]:
    """The clones to train on an attack's answers."""
    return clones.plan(
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


def _baseline(plan: Plan, folder: Path, classes: int, budget: int, truth: Path) -> Iterator[Cell]:
    """The clones to train on the attacker's seed set; none where it has none. They do not depend on the policy: the
    exam `truth` is judged by the right labels alone, and attacks on all policies share them."""
    if not (folder / "own.npz").exists():
        return
    # its images have labels, no probabilities: an attacker whose recipes need those falls back on the plain one
    readable = tuple(name for name in plan.theft.cloning.recipes if clone.recipe_reads(name, "hard"))
    # varied and as they are: the better one on the held-out part counts, the first where a few images cannot decide
    for variation in plan.evaluation.variations(plan.theft.how):
        yield from clones.plan(
            folder / "own.npz",
            truth,
            dataclasses.replace(plan.theft.cloning, recipes=readable or (PLAIN,), apart=()),
            policy=plan.victim.policy,
            attack=f"{plan.theft.attack}, without a query",
            adaptive=None,
            classes=classes,
            budgets=[budget],
            seeds=plan.evaluation.seeds,
            labels=("hard",),
            variation=variation,
        )


def _rows(job: Job, outcome: Outcome, scores: Mapping[str, Score]) -> Iterator[AttackRow]:
    """A row for each clone of an outcome. scores: by the keys of the cells."""
    plan, name = outcome.plan, job.recipe.name
    guess = 1 / len(job.test.classes)
    no_query = {
        budget: _best([(cell, scores[cell.key]) for cell in cells], guess) for budget, cells in outcome.baseline.items()
    }
    for cell in outcome.trained:
        before = no_query[cell.budget]
        yield clones.row(name, cell, scores[cell.key], plan.victim.exam, no_query_accuracy=before[cell.seed])
    for budget, snapshot in outcome.own.items():
        yield _own(name, plan, budget, snapshot, no_query[budget][plan.theft.seed])


def _best(trained: Sequence[tuple[Cell, Score]], guess: float) -> Mapping[int, float]:
    """Accuracy of the recipe that the attacker would choose, by seed; `guess` without any clone."""
    if not trained:
        return defaultdict(lambda: guess)
    held_out, accuracy = defaultdict(list), defaultdict[str, dict[int, float]](dict)
    for cell, score in trained:
        held_out[cell.recipe_name].append(score.held_out)
        accuracy[cell.recipe_name][cell.seed] = score.clone_accuracy
    return accuracy[clone.best(held_out)]


def _own(recipe: str, plan: Plan, budget: int, snapshot: Snapshot, no_query: float) -> AttackRow:
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


def _graphs(oracle: InProcessOracle, names: Iterable[str]) -> list[str]:
    """Hashes of an archive's graphs."""
    files = (path for name in names for path in sorted((oracle.folder / "graphs").glob(f"{name}.*")))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def _hash(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.numpy().tobytes() if isinstance(part, torch.Tensor) else repr(part).encode())
    return digest.hexdigest()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m evaluation.matrix", description="steal in process, clone, report")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME", help="which [evaluate.NAME] (all)")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)  # attacks and clones run in processes of one thread; the archives have their own
    main()
