"""What attackers really send: the queries of whole attacks, recorded, for detectors that judge them image by image.

Every [detection.NAME] table of a recipe is one attacker, who attacks the undefended archive in process. An oracle
between the two keeps each image that is charged for: seeds, probes around a generator's images and repeats included, in
the order sent. A smaller budget is the beginning of the largest.

Recordings lie in RUN/queries, each named by the hash of what decides it but the code (evaluation/thefts.py), and are
made once: after a change of the attacks' own code, delete the folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import recipes
from attacks import registry
from attacks.oracle import Answers, Ledger, Oracle
from attacks.thief import steal
from evaluation import tables
from evaluation.matrix import Job, Victim
from evaluation.oracles import InProcessOracle
from evaluation.thefts import Theft, prepared
from evaluation.traffic import SEED
from report.atomic import replacing
from report.headline import UNDEFENDED

FOLDER = "queries"


@dataclass(frozen=True)
class Asked:
    """[detection.NAME]: whose queries are judged.

    attack: the table [attacks.NAME] that it starts from. overrides: parameters that are different here. budgets:
    queries at which it is judged. after: queries charged before those, which are not judged: what an attacker sends
    later in a campaign. without_seeds: judge it a second time without its first `seeds` queries, which are clean images
    of the task. clone: keys of [clone] that are different, for attacks that learn. called: its name in reports (NAME).
    """

    attack: str
    budgets: tuple[int, ...] = (1000, 4000)
    overrides: dict[str, Any] = field(default_factory=dict)
    after: int = 0
    without_seeds: bool = False
    clone: dict[str, Any] = field(default_factory=dict)
    called: str | None = None

    def __post_init__(self) -> None:
        registry.attack(self.attack)
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"budgets: expected at least one, of at least 1 image, got {self.budgets}")
        if self.after < 0:
            raise ValueError(f"after: expected at least 0 queries, got {self.after}")
        if self.after and self.without_seeds:
            raise ValueError(f"without_seeds: expected false, seeds are not among the queries after {self.after}")
        if "budget" in self.overrides:
            raise ValueError("overrides: expected no budget, that is what `budgets` is for")


@dataclass(frozen=True)
class Part:
    """Some of a stream's images, those of `rows`, and what a report says of them."""

    traffic: str
    budget: int
    seeds_left_out: bool
    rows: slice


@dataclass(frozen=True, eq=False)
class Stream:
    """What one attacker sent: images float32 (N,C,S,S) in [0, 1] in the order sent, N the largest budget, or fewer
    where the attack ended before. attack: in the registry. seeds: how many of the first to leave out at times, or 0."""

    name: str
    attack: str
    images: torch.Tensor
    budgets: tuple[int, ...]
    seeds: int

    @property
    def parts(self) -> Iterator[Part]:
        """What is judged, by budget; the second of two without the seeds."""
        for budget in self.budgets:
            yield Part(self.name, budget, False, slice(0, budget))
            if 0 < self.seeds < min(budget, len(self.images)):
                yield Part(f"{self.name}, without its seeds", budget, True, slice(self.seeds, budget))

    @property
    def whole(self) -> list[Part]:
        """Those of the largest budget."""
        return [part for part in self.parts if part.budget == self.budgets[-1]]


class Recorder:
    """An oracle that keeps what it is asked about, but for the first `after` images."""

    def __init__(self, oracle: Oracle, *, after: int = 0) -> None:
        self._oracle = oracle
        self._left_out = after
        self._kept: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor) -> Answers:
        """The oracle's own answers to float32 (N,C,S,S)."""
        skipped = min(self._left_out, len(images))
        self._left_out -= skipped
        self._kept.append(images[skipped:].detach().clone())  # an attacker may go on to change its own
        return self._oracle(images)

    def images(self) -> torch.Tensor:
        """Those kept, in the order asked. Raises ValueError before the first query."""
        if not self._kept:
            raise ValueError("nothing was asked, so nothing was recorded")
        return torch.cat(self._kept)


def recorded(job: Job, *, only: list[str] | None = None) -> list[Stream]:
    """Every attacker of the recipe, or those of the tables `only`: what is missing in the run's folder is recorded.

    Raises RecipeError, OracleError, LoadError and DatasetError.
    """
    asked = job.recipe.family("detection", Asked)
    for name in only or asked:
        if name not in asked:
            raise recipes.RecipeError(f"{job.recipe.path}: no [detection.{name}]; it has {', '.join(asked) or 'none'}")
    if not asked:
        raise recipes.RecipeError(f"{job.recipe.path}: no [detection.NAME] table; a detector is judged on one")
    planned = {name: parameters(job.recipe, name, asked[name]) for name in only or asked}
    victim = Victim.evaluate(job, UNDEFENDED)
    return [
        _stream(job, victim, name, asked[name], config)
        for name, config in tqdm(planned.items(), desc="recordings", unit="attack")
    ]


def carried_out(
    job: Job, victim: Oracle, attack: str, form: str | None = None, *, seed: int, queries: int, rows: int
) -> None:
    """One attack as [attacks.ATTACK] has it, plain or in a form, of so many queries at most, `rows` a request; `victim`
    keeps what it wants of them."""
    table = {**job.recipe.tables["attacks"][attack], "budget": queries}
    where = f"{job.recipe.path}: [attacks.{attack}]"
    how = recipes.build(registry.attack(attack).parameters, table, where=where)
    cloning = tables.cloning(job.recipe)
    thief = prepared(attack, form, how, service=job.service, cloning=cloning, seed=seed, root=job.data)
    for _ in steal(thief, Ledger(victim, queries), rows=rows):
        pass


def parameters(recipe: recipes.Recipe, name: str, asked: Asked) -> Any:
    """The attack's own dataclass: [attacks.ATTACK] with what is different here. Raises RecipeError."""
    table = recipe.tables.get("attacks", {}).get(asked.attack)
    if table is None:
        raise recipes.RecipeError(f"{recipe.path}: [detection.{name}]: attack: no table [attacks.{asked.attack}]")
    values: Mapping[str, Any] = {**table, **asked.overrides, "budget": asked.after + max(asked.budgets)}
    config = recipes.build(registry.attack(asked.attack).parameters, values, where=f"{recipe.path}: [detection.{name}]")
    if asked.without_seeds and not hasattr(config, "seeds"):
        raise recipes.RecipeError(f"{recipe.path}: [detection.{name}]: without_seeds: {asked.attack} has no seeds")
    return config


def _stream(job: Job, victim: Victim, name: str, asked: Asked, config: Any) -> Stream:
    """A recording, which is made unless there is one. config: the attack's parameters."""
    readings = registry.attack(asked.attack).readings
    theft = Theft(
        archive=job.archive(UNDEFENDED),
        identity=victim.identity,
        service=job.service,
        attack=asked.attack,
        form=None,
        labels="soft" if "soft" in readings else "hard",
        seed=SEED,
        how=config,
        cloning=tables.cloning(job.recipe, asked.clone),
        budgets=(config.budget,),
        exam=victim.path,
        root=job.data,
    )
    path = job.folder / FOLDER / f"{theft.name}-after-{asked.after}.npz"
    if not path.exists():
        _write(path, record(theft, after=asked.after))
    with np.load(path, allow_pickle=False) as file:
        images = torch.from_numpy(file["images"])
    budgets, seeds = tuple(sorted(set(asked.budgets))), config.seeds if asked.without_seeds else 0
    return Stream(asked.called or name, asked.attack, images, budgets, seeds)


def record(theft: Theft, *, after: int) -> torch.Tensor:
    """Carry out an attack for the sake of its queries: the images it asks about after the first `after`."""
    with InProcessOracle(theft.archive, seed=theft.seed) as oracle:
        recorder = Recorder(oracle, after=after)
        ledger = Ledger(theft.reads(recorder), theft.how.budget)
        with tqdm(total=ledger.budget, desc=str(theft), unit="image", leave=False) as bar:
            for queries in steal(theft.thief(), ledger, rows=oracle.pipeline.policy.max_rows):
                bar.update(queries - bar.n)
    return recorder.images()


def _write(path: Path, images: torch.Tensor) -> None:
    """Whole or not at all, so that an interrupted recording leaves nothing that could be taken for one."""
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, images=images.numpy())
