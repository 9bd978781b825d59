"""Which mark clones keep, from whom, and who is accused by mistake: the sections "marks", "mark_nulls", "mark_costs".

    python -m evaluation.studies marks RECIPE --policies undefended --run reports/RECIPE

An in-distribution thief asks an undefended archive about images of the training split; its answers are marked here, by
the code that marks them in an archive (defenses/mark.py), for one account of a published key. Clones are tried on the
test split, which no thief asked about (evaluation/marks/evidence.py): the account that asked among `accounts`, and the
others as nulls. More nulls are networks that were trained on the same images' true labels, clones of unmarked answers,
and the archive itself, each tried against many keys. Networks are counted apart from tries: tries of one network share
its answers.

Each clone's answers lie in RUN/marks, named by what decides them, so an interrupted study goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from attacks import metrics
from attacks import owned as owned_images
from attacks.forms.jittered import STRENGTH as JITTER
from attacks.service import Service
from defenses.mark import Mark, Marker
from evaluation import pool
from evaluation.marks import rivals, thieves
from evaluation.marks.evidence import Doubles, Evidence, Table, table
from evaluation.marks.intervals import clopper_pearson
from evaluation.oracles import InProcessOracle
from evaluation.studies.study import Found, Option, Study, StudyError, Task
from report.atomic import replacing
from report.rows.marks import MarkCostRow, MarkNullRow, MarkRow

SEED = 0
QUERIES, OWNED, COPIES = 6000, 1000, 4
ACCOUNTS, KEYS = 100, 40
# a false accusation in so many, stated before anything is tried
BOUND = 0.01
DEFAULT = Mark(strength=0.02)
# what marks are compared: form, strength, parts
FRONTIER = [("linear", Mark(s)) for s in (0.005, 0.01, 0.02, 0.04)]
FRONTIER += [("linear", Mark(0.02, parts=parts)) for parts in (1, 8, 32)]
FRONTIER += [("log p", Mark(0.02)), ("signs", Mark(0.02))]
# trained without any mark: on true labels, on unmarked answers
HONEST, UNMARKED = "true labels", "unmarked answers"
MODELS = {HONEST: 3, UNMARKED: 2}


@dataclass(frozen=True)
class Job:
    """One suspect: what marks the answers, who learns from them, and the files that both are read from and go to."""

    asked: Path
    folder: Path
    form: str
    mark: Mark
    thief: str
    seed: int
    epochs: int

    @property
    def path(self) -> Path:
        """Of the suspect's answers."""
        digest = hashlib.sha256(self.asked.read_bytes()[:1_000_000])
        digest.update(json.dumps([self.form, asdict(self.mark), self.thief, self.seed, self.epochs]).encode())
        return self.folder / f"{digest.hexdigest()[:24]}.npy"


def study(task: Task, *, seeds: int, epochs: int, workers: int) -> Iterator[Found]:
    """Rows for every mark and thief; then the nulls, and what a mark costs."""
    if len(task.policies) != 1:
        raise StudyError(f"expected one policy whose answers to mark, got {', '.join(task.policies)}")
    folder = task.folder / "marks"
    folder.mkdir(parents=True, exist_ok=True)
    asked = {seed: ask(task, folder, seed) for seed in range(seeds)}
    jobs = [job for seed, path in asked.items() for job in plan(path, folder, seed, epochs)]
    answers = dict(finished(jobs, workers=workers or None))
    rows = [row(task.recipe.name, job, answers[job]) for job in jobs if job.thief not in MODELS]
    yield Found(rows, says="\n".join(map(line, rows)), settings={"mark clones' epochs": epochs})
    nulls = list(accusations(task.recipe.name, [job for job in jobs if job.seed == 0], answers))
    yield Found(nulls, says="\n".join(f"{null.kind}: {null.accused} of {null.tries} at {null.bound}" for null in nulls))
    yield Found([cost(task.recipe.name, mark, asked[0]) for mark in (DEFAULT, Mark(0.02, parts=32))])


def ask(task: Task, folder: Path, seed: int) -> Path:
    """What the thief of a seed asked, and what the policy said of it and of the test split, in one file."""
    path = folder / f"asked-{seed}.npz"
    if path.exists():
        return path
    ((_, oracle),) = task.oracles()
    with oracle:
        policy = oracle.pipeline.policy
        service = Service(policy.input.channels, policy.input.height, len(policy.class_names))
        images = owned_images.load(task.recipe.section("dataset", _Named).name, service, task.data)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        # of a small data set a quarter is left to the thief
        count = min(QUERIES, 3 * len(images) // 4)
        mine, own = images.rows(order[:count]), images.rows(order[count : count + OWNED])
        assert own.labels is not None, "a recipe's data set is labelled"
        assert mine.labels is not None, "a recipe's data set is labelled"
        assert task.test.labels is not None, "a recipe's data set is labelled"
        copies = JITTER(mine.pixels.repeat_interleave(COPIES, 0), generator=torch.Generator().manual_seed(seed))
        copies = copies.clamp(0, 1)
        arrays = {
            "images": mine.pixels,
            "truth": mine.labels,
            "answers": _mean(oracle, mine.pixels),
            "copies": copies,
            "copied": _mean(oracle, copies),
            "owned": own.pixels,
            "labels": own.labels,
            "test": task.test.pixels,
            "test_truth": task.test.labels,
            "served": _mean(oracle, task.test.pixels),
        }
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: tensor.numpy() for name, tensor in arrays.items()})
    return path


@dataclass(frozen=True)
class _Named:
    """[dataset], as far as its name."""

    name: str


def _mean(oracle: InProcessOracle, images: torch.Tensor) -> torch.Tensor:
    """(N,K): what the policy's members say, before any rule."""
    return oracle.everyone(images).mean(dim=1)


def plan(asked: Path, folder: Path, seed: int, epochs: int) -> Iterator[Job]:
    """The suspects of a seed: every thief of the default mark, what the other marks do to the first of them, and models
    that learnt of none."""
    for thief in (*thieves.LESSONS, *thieves.AFTERWARDS, "served as labels"):
        yield Job(asked, folder, "linear", DEFAULT, thief, seed, epochs)
    if seed == 0:
        for form, mark in FRONTIER:
            if (form, mark) != ("linear", DEFAULT):
                yield Job(asked, folder, form, mark, "soft", seed, epochs)
        for thief, count in MODELS.items():
            for number in range(count):
                yield Job(asked, folder, "none", DEFAULT, thief, 10 + number, epochs)


def finished(jobs: Sequence[Job], *, workers: int | None) -> Iterator[tuple[Job, Doubles]]:
    """Every suspect's answers to the test split. The soft clones come first: others begin with them."""
    for first in (True, False):
        missing = [job for job in jobs if (job.thief == "soft") == first and not job.path.exists()]
        for done, (job, seconds) in enumerate(pool.spread(_train, missing, workers=workers), start=1):
            print(
                f"[{done}/{len(missing)}] {job.form} {job.mark}, {job.thief}, seed {job.seed}: {seconds:.0f} s",
                flush=True,
            )
    for job in jobs:
        yield job, np.load(job.path).astype(np.float64)


def _train(job: Job) -> float:
    """Write a suspect's answers; returns seconds."""
    started = time.perf_counter()
    asked = _asked(job.asked)
    answers = thieves.answers_of(_network(job, asked), torch.from_numpy(asked["test"])).numpy()
    if job.thief == "served as labels":
        answers = np.eye(answers.shape[1], dtype=np.float32)[answers.argmax(1)]
    with replacing(job.path) as unfinished, unfinished.open("wb") as file:
        np.save(file, answers)
    return time.perf_counter() - started


def _network(job: Job, asked: Mapping[str, NDArray[np.float32]]) -> torch.nn.Module:
    images = torch.from_numpy(asked["images"])
    if job.thief in MODELS:
        targets = torch.from_numpy(asked["truth" if job.thief == HONEST else "answers"])
        classes = asked["answers"].shape[1]
        soft = thieves.LESSONS["soft"]
        return thieves.fitted(images, targets, soft, classes=classes, epochs=job.epochs, seed=job.seed)
    loot = _loot(job, asked)
    if job.thief in thieves.LESSONS:
        network = thieves.learn(thieves.LESSONS[job.thief], loot, epochs=job.epochs, seed=job.seed)
        if job.thief == "soft":
            torch.save(network.state_dict(), job.path.with_suffix(".pt"))
        return network
    base = replace(job, thief="soft").path.with_suffix(".pt")
    network = thieves.fresh(thieves.LESSONS["soft"], images, loot.answers.shape[1], epochs=job.epochs)
    network.load_state_dict(torch.load(base, weights_only=True))
    if job.thief == "served as labels":
        return network
    taught = thieves.Taught(network, loot, job.epochs, job.seed)
    return thieves.AFTERWARDS[job.thief](taught)


@lru_cache(maxsize=2)
def _asked(path: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _loot(job: Job, asked: Mapping[str, NDArray[np.float32]]) -> thieves.Loot:
    marker = marking(job)
    accounts = [account(0), account(1)]
    shown = [marker(asked["images"], asked["answers"], [name] * len(asked["images"]))[0] for name in accounts]
    copied, _ = marker(asked["copies"], asked["copied"], [accounts[0]] * len(asked["copies"]))
    averaged = copied.reshape(-1, COPIES, copied.shape[1]).mean(1)
    return thieves.Loot(
        images=torch.from_numpy(asked["images"]),
        answers=torch.from_numpy(shown[0]),
        other=torch.from_numpy(shown[1]),
        averaged=torch.from_numpy(averaged),
        owned=torch.from_numpy(asked["owned"]),
        labels=torch.from_numpy(asked["labels"]),
        strength=job.mark.strength,
    )


def account(number: int) -> str:
    """An account's name; number 0 is the thief's."""
    return f"account-{number}"


def key(number: int) -> bytes:
    """A key of the study's, which is published: nothing is kept by it."""
    return hashlib.sha256(f"torchwarden/study of marks/{number}".encode()).digest()


def marking(job: Job, number: int | None = None) -> Marker:
    """What marked a job's answers, or would have under another key."""
    asked = _asked(job.asked)
    classes, channels = asked["answers"].shape[1], asked["images"].shape[1]
    kind = rivals.FORMS[job.form]
    return kind(job.mark, key=key(job.seed if number is None else number), channels=channels, classes=classes)


def read(job: Job, answers: Doubles, marker: Marker) -> Table:
    """What a suspect says of the test split, cell by cell of `marker`."""
    asked = _asked(job.asked)
    served = asked["served"]
    cells = marker.cell(asked["test"], served.argmax(1))
    return table(answers, served.astype(np.float64), cells, parts=job.mark.parts)


def row(recipe: str, job: Job, answers: Doubles) -> MarkRow:
    """What the owner reads from one clone."""
    asked, marker = _asked(job.asked), marking(job)
    found = read(job, answers, marker)
    tried: list[Evidence] = [found.against(marker.keyed(account(number))) for number in range(ACCOUNTS)]
    mine, others = tried[0], min(each.p for each in tried[1:])
    served = asked["served"]
    shown, _ = marker(asked["test"], served, [account(0)] * len(served))
    truth = asked["test_truth"]
    return MarkRow(
        recipe=recipe,
        mark=job.form,
        strength=job.mark.strength,
        parts=job.mark.parts,
        thief=job.thief,
        seed=job.seed,
        queries=len(asked["images"]),
        clone_accuracy=float((answers.argmax(1) == truth).mean()),
        victim_accuracy=float((served.argmax(1) == truth).mean()),
        l1=float(np.abs(shown - served).sum(1).mean()),
        ece=metrics.ece(torch.from_numpy(shown), torch.from_numpy(truth)),
        ece_unmarked=metrics.ece(torch.from_numpy(served), torch.from_numpy(truth)),
        images=mine.images,
        z=mine.z,
        p=mine.p,
        e=mine.e,
        accounts=ACCOUNTS,
        named=mine.p < others and ACCOUNTS * mine.p <= BOUND,
        other=others,
    )


def accusations(recipe: str, jobs: Sequence[Job], answers: Mapping[Job, Doubles]) -> Iterator[MarkNullRow]:
    """How often models are accused that learnt nothing of the account or the key they are tried against."""
    marked = [job for job in jobs if job.form == "linear" and job.mark == DEFAULT]
    other = [each for job in marked for each in _tried(job, answers[job], range(1), range(2, ACCOUNTS))]
    keys = range(1000, 1000 + KEYS)
    yield _null(recipe, "clones of another account", len(marked), other)
    yield _null(recipe, "clones under another key", len(marked), _all(marked, answers, keys))
    for thief in MODELS:
        some = [job for job in answers if job.thief == thief]
        if some:
            yield _null(recipe, thief, len(some), _all(some, answers, keys))
    served = _asked(jobs[0].asked)["served"].astype(np.float64)
    yield _null(recipe, "the owner's own model", 1, list(_tried(jobs[0], served, keys, range(1))))


def _all(jobs: Sequence[Job], answers: Mapping[Job, Doubles], keys: range) -> list[float]:
    return [p for job in jobs for p in _tried(job, answers[job], keys, range(1))]


def _tried(job: Job, answers: Doubles, keys: range, accounts: range) -> Iterator[float]:
    """p of a suspect against accounts under keys; key 0 is the one that marked."""
    for number in keys:
        linear = replace(job, form="linear")
        marker = marking(linear, number or None)
        found = read(linear, answers, marker)
        for each in accounts:
            yield found.against(marker.keyed(account(each))).p


def _null(recipe: str, kind: str, models: int, tried: Sequence[float]) -> MarkNullRow:
    accused = sum(p <= BOUND for p in tried)
    low, high = clopper_pearson(accused, len(tried))
    return MarkNullRow(recipe, kind, models, len(tried), BOUND, accused, low, high, min(tried))


def cost(recipe: str, mark: Mark, asked: Path, *, batch: int = 64, rounds: int = 20) -> MarkCostRow:
    """Microseconds that a mark takes a row, round by round."""
    known = _asked(asked)
    images, answers = known["test"][:batch], known["served"][:batch]
    marker = Marker(mark, key=key(0), channels=images.shape[1], classes=answers.shape[1])
    accounts = [account(row % 8) for row in range(batch)]
    marker(images, answers, accounts)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        marker(images, answers, accounts)
        times.append(1e6 * (time.perf_counter() - started) / batch)
    return MarkCostRow(recipe, mark.parts, batch, tuple(times))


def line(row: MarkRow) -> str:
    """A row's line on the terminal."""
    named = "named" if row.named else "not named"
    of = f"{row.mark} {row.strength:g}, {row.parts} parts, {row.thief}, seed {row.seed}"
    return f"{of}: {row.clone_accuracy:.3f}, l1 {row.l1:.3f}, z {row.z:.1f}, p {row.p:.1e}, e {row.e:.1e}, {named}"


STUDY = Study(
    "marks",
    "which mark clones keep, and who is accused by mistake",
    study,
    policies="one policy whose answers are marked",
    sections=("marks", "mark_nulls", "mark_costs"),
    options=(
        Option("seeds", 1, "thieves, keys and clones", least=1),
        Option("epochs", 6, "of each clone", least=1),
        Option("workers", 0, "processes that train, 0 for one a core", least=0),
    ),
    one_thread=True,
)
