"""Which mark clones keep, from whom, and who is accused by mistake: the sections "marks", "mark_nulls", "mark_costs".

    python -m evaluation.studies marks RECIPE --policies undefended --run reports/RECIPE

An in-distribution thief asks an undefended archive about images of the training split; its answers are marked here, by
the code that marks them in an archive (defenses/mark.py), for one account of a published key. Clones are tried on the
test split, which no thief asked about (evaluation/marks/evidence.py): the account that asked among `accounts`, and the
others as nulls. More nulls are networks that were trained on the same images' true labels, clones of unmarked answers,
and the archive itself. Each is tried against keys, or accounts, that no other one is tried against: given the networks,
one try says nothing of the next. Each seed is a thief with queries, a key and clones of its own.

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
from evaluation.marks.evidence import Doubles, Evidence, Excess, Table, capped, table, together
from evaluation.oracles import InProcessOracle
from evaluation.studies.study import Found, Option, Study, StudyError, Task
from report.atomic import replacing
from report.intervals import clopper_pearson
from report.rows.marks import MarkCostRow, MarkNullRow, MarkRow

SEED = 0
# of the plain thief; others ask the first or the last number
QUERIES, OWNED, COPIES = (6000, 10_000), 1000, 4
ACCOUNTS = 100
# what a model that learnt nothing is tried against: keys, and accounts under each
KEYS, EACH = 5, 20
# rows marked together, as make bench asks for them
BATCHES = (1, 8, 32)
# a false accusation in so many, stated before anything is tried
BOUND = 0.01
PLAIN = "soft"
# statistics: the one that is used, and the same against the owner's clones of its own unmarked answers
SERVED, REFERRED = "capped", "references"
# what became of clones that learnt from more queries
TUNED = "fine-tuned on 1,000"
CHANGED = ("pruned, trained again", TUNED, "distilled again")
# trained without any mark: LeNet5 on true labels for two epochs; clones of unmarked answers
HONEST, UNMARKED = "true labels", "unmarked answers"
NULLS = {HONEST: "spare_truth", UNMARKED: "spared"}
HONEST_EPOCHS, HONEST_TO_UNMARKED = 2, 20


@dataclass(frozen=True)
class Job:
    """One suspect: what marks the answers, who learns from how many of them, with a family's networks, and the files
    that all are read from and go to."""

    asked: Path
    folder: Path
    form: str
    mark: Mark
    thief: str
    seed: int
    epochs: int
    queries: int
    family: str

    @property
    def path(self) -> Path:
        """Of the suspect's answers."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("asked", "folder")}
        with self.asked.open("rb") as file:
            digest = hashlib.sha256(file.read(1_000_000))
        digest.update(json.dumps(facts).encode())
        return self.folder / f"{digest.hexdigest()[:24]}.npy"


def study(
    task: Task,
    *,
    strength: float,
    seeds: int,
    epochs: int,
    nulls: int,
    network: str,
    battery: str,
    workers: int,
) -> Iterator[Found]:
    """Rows for every mark and thief; then the nulls, and what a mark costs."""
    if len(task.policies) != 1:
        raise StudyError(f"expected one policy whose answers to mark, got {', '.join(task.policies)}")
    for name, value, known in (("network", network, thieves.FAMILIES), ("battery", battery, BATTERIES)):
        if value not in known:
            raise StudyError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    folder = task.folder / "marks"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        plan = Plan(Mark(strength), epochs, nulls, network, BATTERIES[battery])
    except ValueError as error:
        raise StudyError(str(error)) from None
    asked = {seed: ask(task, folder, seed, copies=AVERAGED in plan.battery.little) for seed in range(seeds)}
    jobs = [job for seed, path in asked.items() for job in plan.jobs(path, folder, seed)]
    answers = dict(finished(jobs, workers=workers or None))
    recipe = task.recipe.name
    compared = plan.mark, statistics([answers[job] for job in jobs if job.thief == UNMARKED])
    rows = [each for job in jobs if job.thief not in NULLS for each in read_by(recipe, job, compared, answers[job])]
    clones = {"epochs": epochs, "network": network, "battery": battery}
    settings = {"served mark": asdict(plan.mark), "mark clones": clones}
    yield Found(rows, says="\n".join(map(line, rows)), settings=settings)
    tried = list(accusations(recipe, plan.mark, jobs, answers))
    yield Found(tried, says="\n".join(f"{null.kind}: {null.accused} of {null.tries} at {null.bound}" for null in tried))
    yield Found([cost(recipe, plan.mark, asked[0], batch=batch) for batch in BATCHES])


def ask(task: Task, folder: Path, seed: int, *, copies: bool) -> Path:
    """What the thief of a seed asked, and what the policy said of it and of the test split, in one file. copies: of the
    first QUERIES[0] images too, jittered."""
    path = folder / f"asked-{seed}.npz"
    if path.exists():
        return path
    ((_, oracle),) = task.oracles()
    with oracle:
        policy = oracle.pipeline.policy
        service = Service(policy.input.channels, policy.input.height, len(policy.class_names))
        images = owned_images.load(task.recipe.section("dataset", _Named).name, service, task.data)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        # of a small data set half is left for others than the thief
        count = min(QUERIES[-1], len(images) // 2)
        owned = count + min(OWNED, len(images) // 4)
        mine, own, spare = (images.rows(each) for each in order[: owned + count].tensor_split([count, owned]))
        assert task.test.labels is not None, "a recipe's data set is labelled"
        arrays = {
            "images": mine.pixels,
            "truth": mine.labels,
            "answers": _mean(oracle, mine.pixels),
            "owned": own.pixels,
            "labels": own.labels,
            "spare": spare.pixels,
            "spare_truth": spare.labels,
            "spared": _mean(oracle, spare.pixels),
            "test": task.test.pixels,
            "test_truth": task.test.labels,
            "served": _mean(oracle, task.test.pixels),
        }
        if copies:
            pixels = mine.pixels[: QUERIES[0]].repeat_interleave(COPIES, 0)
            jittered = JITTER(pixels, generator=torch.Generator().manual_seed(seed)).clamp(0, 1)
            arrays |= {"copies": jittered, "copied": _mean(oracle, jittered)}
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


@dataclass(frozen=True)
class Battery:
    """Which thieves the mark is tried on, beside the plain one, and on which other strengths, parts and forms of it the
    plain one is. little, much: thieves of the least and of the most queries. once: with the first seed alone."""

    little: tuple[str, ...]
    much: tuple[str, ...]
    once: bool
    strengths: tuple[float, ...] = ()
    parts: tuple[int, ...] = ()
    forms: tuple[str, ...] = ()


AVERAGED, AS_LABELS = "averaged over copies", "served as labels"
BATTERIES = {
    "whole": Battery(
        little=(*(name for name in thieves.LESSONS if name != PLAIN), *thieves.AFTERWARDS, AS_LABELS),
        much=CHANGED,
        once=False,
        strengths=(0.005, 0.01, 0.02, 0.04),
        parts=(1, 8, 32),
        forms=("log p", "signs"),
    ),
    "short": Battery(
        little=("soft, not augmented", "half of the epochs", "two accounts compared", "mark taken off"),
        much=CHANGED,
        once=True,
        strengths=(0.01, 0.02),
    ),
    # where a clone takes minutes
    "headline": Battery(little=(), much=(TUNED,), once=True),
}


@dataclass(frozen=True)
class Plan:
    """What suspects are made. mark: the one that is served. nulls: networks of true labels; in HONEST_TO_UNMARKED of
    them there is one clone of unmarked answers more."""

    mark: Mark
    epochs: int
    nulls: int
    family: str
    battery: Battery

    def jobs(self, asked: Path, folder: Path, seed: int) -> Iterator[Job]:
        """The suspects of a seed: every thief of the mark, what other marks do to the plain one, and models that
        learnt of none."""
        there = len(_asked(asked)["images"])
        little, much = (min(queries, there) for queries in QUERIES)

        def job(form: str, mark: Mark, thief: str, queries: int = little, *, number: int = seed) -> Job:
            epochs = HONEST_EPOCHS if thief == HONEST else self.epochs
            return Job(asked, folder, form, mark, thief, number, epochs, queries, self.family)

        tried = dict.fromkeys([(PLAIN, little), (PLAIN, much)])
        if seed == 0 or not self.battery.once:
            tried |= dict.fromkeys((thief, little) for thief in self.battery.little)
            tried |= dict.fromkeys((thief, much) for thief in self.battery.much)
        for thief, queries in tried:
            yield job("linear", self.mark, thief, queries)
        if seed == 0:
            for form, mark in self.others():
                yield job(form, mark, PLAIN)
            for thief, count in ((HONEST, self.nulls), (UNMARKED, self.nulls // HONEST_TO_UNMARKED)):
                for number in range(count):
                    yield job("none", self.mark, thief, number=10 + number)

    def others(self) -> Iterator[tuple[str, Mark]]:
        """Form and mark of what the served one is compared with."""
        marks = [replace(self.mark, strength=each) for each in self.battery.strengths]
        marks += [replace(self.mark, parts=each) for each in self.battery.parts]
        yield from (("linear", mark) for mark in marks if mark != self.mark)
        yield from ((form, self.mark) for form in self.battery.forms)


def finished(jobs: Sequence[Job], *, workers: int | None) -> Iterator[tuple[Job, Doubles]]:
    """Every suspect's answers to the test split. The soft clones come first: others begin with them."""
    for first in (True, False):
        missing = [job for job in jobs if (job.thief == PLAIN) == first and not job.path.exists()]
        for done, (job, seconds) in enumerate(pool.spread(_train, missing, workers=workers), start=1):
            print(
                f"[{done}/{len(missing)}] {job.form} {job.mark}, {job.thief}, {job.queries} queries, seed {job.seed}: "
                f"{seconds:.0f} s",
                flush=True,
            )
    for job in jobs:
        yield job, np.load(job.path).astype(np.float64)


def _train(job: Job) -> float:
    """Write a suspect's answers; returns seconds."""
    started = time.perf_counter()
    asked = _asked(job.asked)
    answers = thieves.answers_of(_network(job, asked), torch.from_numpy(asked["test"])).numpy()
    if job.thief == AS_LABELS:
        answers = np.eye(answers.shape[1], dtype=np.float32)[answers.argmax(1)]
    with replacing(job.path) as unfinished, unfinished.open("wb") as file:
        np.save(file, answers)
    return time.perf_counter() - started


def _network(job: Job, asked: Mapping[str, NDArray[np.float32]]) -> torch.nn.Module:
    images, family, classes = torch.from_numpy(asked["images"]), thieves.FAMILIES[job.family], asked["answers"].shape[1]
    soft = thieves.LESSONS[PLAIN]
    if job.thief in NULLS:
        spare, targets = (torch.from_numpy(asked[name]) for name in ("spare", NULLS[job.thief]))
        # each of its own images, more or less
        mine = torch.randperm(len(spare), generator=torch.Generator().manual_seed(job.seed))[: job.queries]
        return thieves.fitted(
            spare[mine],
            targets[mine],
            soft,
            classes=classes,
            epochs=job.epochs,
            seed=job.seed,
            family=thieves.LENET5 if job.thief == HONEST else family,
        )
    loot = _loot(job, asked)
    if job.thief in thieves.LESSONS:
        network = thieves.learn(thieves.LESSONS[job.thief], loot, epochs=job.epochs, seed=job.seed, family=family)
        if job.thief == PLAIN:
            torch.save(network.state_dict(), job.path.with_suffix(".pt"))
        return network
    base = replace(job, thief=PLAIN).path.with_suffix(".pt")
    network = thieves.fresh(soft, images, classes, family=family)
    network.load_state_dict(torch.load(base, weights_only=True))
    if job.thief == AS_LABELS:
        return network
    return thieves.AFTERWARDS[job.thief](thieves.Taught(network, loot, job.epochs, job.seed, family))


@lru_cache(maxsize=2)
def _asked(path: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _loot(job: Job, asked: Mapping[str, NDArray[np.float32]]) -> thieves.Loot:
    marker = marking(job)
    accounts = [account(0), account(1)]
    images, answers = asked["images"][: job.queries], asked["answers"][: job.queries]
    shown = [marker(images, answers, [name] * len(images))[0] for name in accounts]
    averaged = shown[0]
    if job.thief == AVERAGED:
        copied, _ = marker(asked["copies"], asked["copied"], accounts[:1] * len(asked["copies"]))
        averaged = copied.reshape(-1, COPIES, copied.shape[1]).mean(1)
    return thieves.Loot(
        images=torch.from_numpy(images),
        answers=torch.from_numpy(shown[0]),
        other=torch.from_numpy(shown[1]),
        averaged=torch.from_numpy(averaged),
        owned=torch.from_numpy(asked["owned"]),
        labels=torch.from_numpy(asked["labels"]),
        strength=job.mark.strength,
    )


def account(number: int) -> str:
    """An account's name; number 0 is the thief's, and 1 too where it has two."""
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


def statistics(references: Sequence[Doubles]) -> dict[str, Excess]:
    """Every statistic by its name. references: what the owner's own clones say of the test split; of none, that one is
    left out."""
    found = dict(rivals.STATISTICS)
    if references:
        expected = together(references)
        found[REFERRED] = lambda suspect, _: capped(suspect, expected)
    return found


def read(job: Job, answers: Doubles, marker: Marker, excess: Excess = capped) -> Table:
    """What a suspect says of the test split, cell by cell of `marker`."""
    asked = _asked(job.asked)
    served = asked["served"]
    cells = marker.cell(asked["test"], served.argmax(1))
    return table(answers, served.astype(np.float64), cells, parts=job.mark.parts, excess=excess)


def read_by(recipe: str, job: Job, compared: tuple[Mark, Mapping[str, Excess]], answers: Doubles) -> Iterator[MarkRow]:
    """What the owner reads from one clone: by the statistic that is used, and by all of them where the clone is of the
    mark, and of a thief, on which they are compared."""
    mark, excesses = compared
    yield row(recipe, job, answers, SERVED, capped)
    if job.thief in (PLAIN, *CHANGED) and (job.form, job.mark) == ("linear", mark):
        yield from (row(recipe, job, answers, name, each) for name, each in excesses.items() if name != SERVED)


def row(recipe: str, job: Job, answers: Doubles, statistic: str, excess: Excess) -> MarkRow:
    """What the owner reads from one clone by one statistic."""
    asked, marker = _asked(job.asked), marking(job)
    found = read(job, answers, marker, excess)
    tried: list[Evidence] = [found.against(marker.keyed(account(number))) for number in range(ACCOUNTS)]
    asking = 2 if job.thief in thieves.OF_TWO else 1
    mine, others = min(tried[:asking], key=lambda each: each.p), min(each.p for each in tried[asking:])
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
        queries=job.queries,
        statistic=statistic,
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


def accusations(recipe: str, mark: Mark, jobs: Sequence[Job], answers: Mapping[Job, Doubles]) -> Iterator[MarkNullRow]:
    """How often models are accused that learnt nothing of the account or the key they are tried against: no two of one
    kind are tried against the same account under the same key."""
    marked = [job for job in jobs if (job.form, job.mark) == ("linear", mark)]
    other: list[float] = []
    for place, job in enumerate(marked):
        first = 2 + place * ACCOUNTS
        other += _tried(job, answers[job], [job.seed], range(first, first + ACCOUNTS))
    yield _null(recipe, "clones of another account", len(marked), other)
    served = _asked(jobs[0].asked)["served"].astype(np.float64)
    kinds = {
        "clones under another key": [(job, answers[job]) for job in marked],
        **{thief: [(job, answers[job]) for job in jobs if job.thief == thief] for thief in NULLS},
        "the owner's own model": [(jobs[0], served)],
    }
    for kind, models in kinds.items():
        if models:
            yield _null(recipe, kind, len(models), list(_under_keys(models)))


def _under_keys(models: Sequence[tuple[Job, Doubles]]) -> Iterator[float]:
    """p of each model against EACH accounts under each of KEYS keys of its own; keys of seeds come before them."""
    for place, (job, answers) in enumerate(models):
        first = 1000 + place * KEYS
        yield from _tried(job, answers, range(first, first + KEYS), range(EACH))


def _tried(job: Job, answers: Doubles, keys: Sequence[int], accounts: range) -> Iterator[float]:
    """p of a suspect against accounts under keys."""
    linear = replace(job, form="linear")
    for number in keys:
        marker = marking(linear, number)
        found = read(linear, answers, marker)
        for each in accounts:
            yield found.against(marker.keyed(account(each))).p


def _null(recipe: str, kind: str, models: int, tried: Sequence[float]) -> MarkNullRow:
    accused = sum(p <= BOUND for p in tried)
    low, high = clopper_pearson(accused, len(tried))
    return MarkNullRow(recipe, kind, models, len(tried), BOUND, accused, low, high, min(tried))


def cost(recipe: str, mark: Mark, asked: Path, *, batch: int, rounds: int = 20) -> MarkCostRow:
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
    of += f", {row.queries} queries, {row.statistic}"
    return f"{of}: {row.clone_accuracy:.3f}, l1 {row.l1:.3f}, z {row.z:.1f}, p {row.p:.1e}, e {row.e:.1e}, {named}"


STUDY = Study(
    "marks",
    "which mark clones keep, and who is accused by mistake",
    study,
    policies="one policy whose answers are marked",
    sections=("marks", "mark_nulls", "mark_costs"),
    options=(
        Option("strength", 0.01, "of the mark that is served"),
        Option("seeds", 2, "thieves, keys and clones", least=1),
        Option("epochs", 13, "of each clone", least=1),
        Option("nulls", 70, "networks of true labels; one of unmarked answers comes to twenty", least=0),
        Option("network", "lenet5", f"what clones are, one of {', '.join(thieves.FAMILIES)}"),
        Option("battery", "whole", f"of thieves and marks, one of {', '.join(BATTERIES)}"),
        Option("workers", 0, "processes that train, 0 for one a core", least=0),
    ),
    one_thread=True,
)
