"""The cells of an evaluation: one trained and judged clone each, done once.

A cell's file is named by the hash of everything that decides its result, so an interrupted run continues where it
stopped, and a changed answer, recipe or test set makes a new cell. Cells are independent: on a CPU each core trains
its own with one thread (two threads on one small network lose more than they gain), on a GPU one goes after another.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from attacks import clone, metrics, unasked
from attacks.clone import LABELS, Cloning
from attacks.names import in_form
from attacks.oracle import Oracle
from attacks.transfer import TransferSet
from evaluation import pool
from report.atomic import replacing, write_json
from report.rows.clones import AttackRow, spent
from zoo.augment import Variation
from zoo.datasets import Images


@dataclass(frozen=True)
class Exam:
    """What clones of one policy are judged on: the victim's test split and what the policy says of it.

    images: float32 (N, C, H, W). truth, served: int64 (N,); served is REFUSED where the policy gave no answer.
    """

    images: torch.Tensor
    truth: torch.Tensor
    served: torch.Tensor

    @classmethod
    def sit(cls, oracle: Oracle, test: Images) -> Exam:
        """The exam that `oracle`'s policy sets: its answers to the labelled test split."""
        assert test.labels is not None, "a recipe's data set is labelled"
        return cls(test.pixels, test.labels, oracle(test.pixels).labels)

    def save(self, path: Path) -> None:
        """Write an .npz for the processes that train cells."""
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **{name: tensor.numpy() for name, tensor in vars(self).items()})

    @classmethod
    def load(cls, path: Path) -> Exam:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: torch.from_numpy(file[name]) for name in file.files})


@dataclass(frozen=True)
class Cell:
    """One clone to train: on the first `budget` queries of a transfer set, with one reading, recipe and seed.

    variation: of what an attacker has without a query, which is then trained on as attacks.unasked says, with `budget`
    copies in an epoch; None: the images as they are.
    """

    policy: str
    attack: str
    adaptive: str | None
    transfer: Path
    exam: Path
    classes: int
    labels: str
    budget: int
    recipe: str
    seed: int
    cloning: Cloning
    variation: Variation | None = None

    def __str__(self) -> str:
        thief = in_form(self.attack, self.adaptive)
        return (
            f"{self.policy} {thief}, budget {self.budget}, {self.labels} labels, {self.recipe_name}, seed {self.seed}"
        )

    @property
    def recipe_name(self) -> str:
        """Of the recipe, and whether it trains on copies."""
        return self.recipe if self.variation is None else f"{self.recipe}, augmented"

    @property
    def key(self) -> str:
        """Hash of everything that decides the result, whatever files and folders are called.

        Of the responses only what the clone is shown: cells of policies that return the same labels share a file, as
        do cells of a small attack and of the same queries at the beginning of a larger one.
        """
        fit = {
            name: getattr(self.cloning, name) for name in ("architecture", "options", "start", "epochs", "batch_size")
        }
        facts = {
            "answers": _shown(self.transfer, self.transfer.stat().st_mtime_ns, self.budget, self.labels),
            "exam": _digest(self.exam, self.exam.stat().st_mtime_ns),
            "recipe": dataclasses.asdict(clone.clone_recipe(self.recipe)),
            "fit": {name: getattr(self.cloning, name) for name in fit},
            **{name: getattr(self, name) for name in ("classes", "labels", "seed")},
        }
        if self.variation is not None:
            facts["unasked"] = [repr(self.variation), self.budget]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Score:
    """What became of a cell; see report.rows.clones.AttackRow for the terms. queries, rejected: of its prefix."""

    clone_accuracy: float
    agreement: float
    held_out: float
    queries: int
    rejected: int
    seconds: float


def row(recipe: str, cell: Cell, score: Score, exam: Exam, *, no_query_accuracy: float) -> AttackRow:
    """What a report says of a finished cell; `exam` is the one of its policy."""
    known = _transfer(cell.transfer).first(cell.budget)
    return AttackRow(
        recipe=recipe,
        policy=cell.policy,
        attack=cell.attack,
        adaptive=cell.adaptive,
        labels=cell.labels,
        budget=cell.budget,
        seed=cell.seed,
        clone_recipe=cell.recipe,
        clone_accuracy=score.clone_accuracy,
        agreement=score.agreement,
        held_out=score.held_out,
        no_query_accuracy=no_query_accuracy,
        victim_accuracy=metrics.accuracy(exam.served, exam.truth),
        # not of the score: attacks with the same responses share it, but not refusals or prices
        queries=known.charged,
        rejected=known.charged - len(known),
        pow_hashes=round(known.paid),
        seconds=score.seconds,
    )


def plan(
    theft: Path,
    exam: Path,
    cloning: Cloning,
    *,
    policy: str,
    attack: str,
    adaptive: str | None,
    classes: int,
    budgets: Sequence[int],
    seeds: Sequence[int],
    labels: Sequence[str] = LABELS,
    variation: Variation | None = None,
) -> Iterator[Cell]:
    """Every clone to train from one transfer set: each of `labels` that was returned, each budget, each training
    recipe of `cloning` that can read such labels, each seed. One that stands apart is a form of the attack. None from
    fewer than clone.LEAST_ROWS answers, or, where a `variation` makes copies of them, than unasked.FEWEST."""
    transfer = _transfer(theft)
    readable = LABELS if transfer.probabilities is not None else ("hard",)
    known = {budget: len(transfer.first(budget)) for budget in budgets}
    least = clone.LEAST_ROWS if variation is None else unasked.FEWEST
    forms = [(recipe, adaptive) for recipe in cloning.recipes]
    forms += [(recipe, recipe if adaptive is None else f"{adaptive}, {recipe}") for recipe in cloning.apart]
    for reading, budget, (recipe, form), seed in itertools.product(readable, budgets, forms, seeds):
        if reading in labels and clone.recipe_reads(recipe, reading) and known[budget] >= least:
            yield Cell(policy, attack, form, theft, exam, classes, reading, budget, recipe, seed, cloning, variation)


def train(cell: Cell) -> Score:
    """Train and judge one cell, on the GPU where there is one."""
    started = time.perf_counter()
    transfer, exam = _transfer(cell.transfer).first(cell.budget), _exam(cell.exam)
    if cell.variation is None:
        trained = clone.train(
            transfer,
            cell.cloning,
            classes=cell.classes,
            labels=cell.labels,
            recipe=cell.recipe,
            seed=cell.seed,
        )
    else:
        trained = unasked.train(
            transfer,
            cell.cloning,
            classes=cell.classes,
            recipe=cell.recipe,
            variation=cell.variation,
            images=cell.budget,
            seed=cell.seed,
        )
    labels = clone.predict(trained.network, exam.images)
    return Score(
        clone_accuracy=metrics.accuracy(labels, exam.truth),
        agreement=metrics.agreement(labels, exam.served),
        held_out=trained.held_out,
        queries=transfer.charged,
        rejected=transfer.charged - len(transfer),
        seconds=round(time.perf_counter() - started, 2),
    )


def finish(
    cells: Sequence[Cell], folder: Path, *, say: Callable[[str], None], workers: int | None = None
) -> Iterator[tuple[Cell, Score]]:
    """Every cell with its score, in the order of `cells`; those with a file in `folder` are not trained again.

    workers: processes that train; by default one for each core, or one where there is a GPU. `say` gets a line for
    each finished cell.
    """
    paths = [folder / f"{cell.key}.json" for cell in cells]
    missing = {path: cell for path, cell in zip(paths, cells, strict=True) if not path.exists()}
    known = len(set(paths)) - len(missing)
    if known:
        say(f"{known} of {len(set(paths))} clones were trained by an earlier run")
    # the largest first, so that the cores finish together
    order = sorted(missing.items(), key=lambda job: -job[1].budget)
    for done, ((path, cell), score) in enumerate(pool.spread(_train_job, order, workers=workers), start=1):
        write_json(path, dataclasses.asdict(score))
        say(
            f"[{done}/{len(missing)}] {cell}: {spent(score.queries, cell.budget)}, "
            f"clone accuracy {score.clone_accuracy:.3f}, held-out {score.held_out:.3f} ({score.seconds:.1f} s)"
        )
    for path, cell in zip(paths, cells, strict=True):
        yield cell, Score(**json.loads(path.read_text("utf-8")))


def _train_job(job: tuple[Path, Cell]) -> Score:
    return train(job[1])


@functools.lru_cache(maxsize=4)
def _transfer(path: Path) -> TransferSet:
    return TransferSet.load(path)


@functools.lru_cache(maxsize=4)
def _exam(path: Path) -> Exam:
    return Exam.load(path)


@functools.lru_cache(maxsize=256)
def _shown(path: Path, modified: int, budget: int, labels: str) -> str:
    """Hash of what a clone sees of a transfer set's first `budget` queries; `modified` only distinguishes versions."""
    transfer = _transfer(path).first(budget)
    shown = [transfer.labels] if labels == "hard" or transfer.probabilities is None else [transfer.probabilities]
    digest = hashlib.sha256(labels.encode())
    for tensor in (transfer.images, *shown):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy())  # type: ignore[arg-type]
    return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def _digest(path: Path, modified: int) -> str:
    """Hash of an .npz's arrays (the zip around them holds time stamps); `modified` only distinguishes versions."""
    digest = hashlib.sha256()
    with np.load(path, allow_pickle=False) as file:
        for name in sorted(file.files):
            digest.update(f"{name} {file[name].dtype} {file[name].shape}".encode())
            digest.update(file[name].tobytes())
    return digest.hexdigest()
