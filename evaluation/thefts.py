"""One attack on one victim and its results, in a folder of its own.

    transfer.npz        answered images, from which clones are trained (evaluation/clones.py)
    own.npz             the attacker's seed set, if it has one
    clone-BUDGET.npz    what the attack's own clone said of the exam's images after so many queries, if it has one

A folder is named by the hash of everything that decides its content but the code: the victim's answers, the attack and
its parameters, the seed, what the attacker reads. It is written under another name and renamed when it is complete, so
an interrupted attack leaves nothing that could be taken for a whole one.

Attacks are independent: in process each core carries out its own on one thread, on a GPU one follows another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from attacks import registry
from attacks.clone import Cloning, predict
from attacks.label_only import labels_only
from attacks.oracle import Ledger, Oracle
from attacks.service import Service
from attacks.thief import Thief, steal
from attacks.transfer import TransferSet
from evaluation import pool
from evaluation.oracles import InProcessOracle
from report.atomic import replacing
from report.rows.clones import spent
from zoo import datasets

# of [clone], what an attacker who learns between queries uses
FITTED = ("architecture", "options", "start", "batch_size")


@dataclass(frozen=True)
class Snapshot:
    """An attack's own clone after so many queries.

    labels: int64 (N,), its answers to the exam's N images. held_out: its agreement with answers it had not learnt from
    yet. queries, rejected: charged so far, and of those refused. work: expected hashes paid. seconds: since the attack
    began.
    """

    labels: torch.Tensor
    held_out: float
    queries: int
    rejected: int
    work: float
    seconds: float

    def save(self, path: Path) -> None:
        """Write an .npz."""
        np.savez(path, allow_pickle=False, **{**vars(self), "labels": self.labels.numpy()})

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(
                labels=torch.from_numpy(file["labels"]),
                held_out=float(file["held_out"]),
                queries=int(file["queries"]),
                rejected=int(file["rejected"]),
                work=float(file["work"]),
                seconds=float(file["seconds"]),
            )


def prepared(
    attack: str, form: str | None, how: Any, *, service: Service, cloning: Cloning, seed: int, root: Path | None
) -> Thief:
    """An attacker before its first query, in an adaptive form or in none. how: the attack's parameters; the others as
    Theft has them."""
    thief = registry.attack(attack).prepare(how, service, cloning=cloning, seed=seed, root=root)
    if form is None:
        return thief
    return registry.form(form).wrap(thief, service=service, cloning=cloning, seed=seed)


@dataclass(frozen=True)
class Theft:
    """One attack to carry out.

    archive: of the victim. identity: what decides its answers (evaluation.matrix). form: an adaptive form, or None.
    labels: what the attacker reads, "soft" or "hard", or "both" where what it asks does not depend on the answers.
    how: the attack's parameters; its budget is the largest of `budgets`. cloning: the clone it is after. exam: path
    of the exam's images, on which an attack's own clone is judged. root: folder of the data sets, searched first.
    """

    archive: Path
    identity: str
    service: Service
    attack: str
    form: str | None
    labels: str
    seed: int
    how: Any
    cloning: Cloning
    budgets: tuple[int, ...]
    exam: Path
    root: Path | None

    def __str__(self) -> str:
        form = f" ({self.form})" if self.form else ""
        reading = "" if self.labels == "both" else f", {self.labels} labels"
        return f"{self.archive.stem}: {self.attack}{form}{reading}, seed {self.seed}"

    @property
    def learns(self) -> bool:
        """Whether the attacker, or its form, learns between queries."""
        return registry.attack(self.attack).learns or (self.form is not None and registry.form(self.form).learns)

    @property
    def name(self) -> str:
        """Of its folder; two attacks of one name would have the same results."""
        facts = {
            "identity": self.identity,
            "service": dataclasses.asdict(self.service),
            "how": dataclasses.asdict(self.how),
            "seed": self.seed,
            "clone": {name: getattr(self.cloning, name) for name in FITTED} if self.learns else None,
            "budgets": self.budgets if registry.attack(self.attack).ends_with_clone else None,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return "-".join([self.attack, *([self.form] if self.form else []), self.labels, digest])

    def thief(self) -> Thief:
        """The attacker, before its first query."""
        return prepared(
            self.attack,
            self.form,
            self.how,
            service=self.service,
            cloning=self.cloning,
            seed=self.seed,
            root=self.root,
        )

    def reads(self, oracle: Oracle) -> Oracle:
        """What the attacker sees of `oracle`."""
        return labels_only(oracle) if self.labels == "hard" else oracle


def carry_out(
    thief: Thief,
    ledger: Ledger,
    *,
    rows: int,
    budgets: Iterable[int],
    questions: torch.Tensor,
    folder: Path,
    progress: Callable[[int], object] = lambda queries: None,
) -> None:
    """Query up to each of `budgets` in turn and write the results to `folder`, whole or not at all.

    rows: images in one request. questions: float32 (N, C, H, W), what an attack's own clone is judged on. progress:
    called with the charged queries after each request. The ledger's budget is raised from one stop to the next.
    """
    started = time.perf_counter()
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        for budget in sorted(set(budgets)):
            ledger.budget = budget
            for queries in steal(thief, ledger, rows=rows):
                progress(queries)
            clone = thief.clone()
            if clone is not None:
                Snapshot(
                    labels=predict(clone.network, questions),
                    held_out=clone.held_out,
                    queries=ledger.queries,
                    rejected=ledger.refused,
                    work=ledger.work,
                    seconds=round(time.perf_counter() - started, 2),
                ).save(unfinished / f"clone-{budget}.npz")
        thief.transfer_set().save(unfinished / "transfer.npz")
        own = thief.own()
        if own is not None:
            own.save(unfinished / "own.npz")


def in_process(theft: Theft, folder: Path) -> None:
    """Carry out one attack on the archive's own code in this process; work that it asks for is paid on credit."""
    with np.load(theft.exam, allow_pickle=False) as file:
        questions = torch.from_numpy(file["images"])
    process = multiprocessing.current_process()
    number = process._identity[0] - 1 if process._identity else 0
    with (
        InProcessOracle(theft.archive, seed=theft.seed, pay=True, counted=True) as oracle,
        tqdm(total=max(theft.budgets), desc=str(theft), unit="image", position=number, leave=False) as bar,
    ):
        carry_out(
            theft.thief(),
            Ledger(theft.reads(oracle), max(theft.budgets)),
            rows=oracle.pipeline.policy.max_rows,
            budgets=theft.budgets,
            questions=questions,
            folder=folder,
            progress=lambda queries: bar.update(queries - bar.n),
        )


def finish(
    thefts: Sequence[Theft], folder: Path, *, say: Callable[[str], None], workers: int | None = None
) -> dict[str, Path]:
    """Carry out those of `thefts` that have no folder yet; every attack's folder by the attack's name.

    workers: processes; by default one for each core, or one where there is a GPU. `say` gets a line for each attack.
    """
    folders = {theft.name: folder / theft.name for theft in thefts}
    missing = {theft.name: theft for theft in thefts if not folders[theft.name].is_dir()}
    known = len(folders) - len(missing)
    if known:
        say(f"{known} of {len(folders)} attacks were carried out by an earlier run")
    for line in dict.fromkeys(filter(None, map(short_of_images, missing.values()))):
        say(line)
    # the largest first, so that the cores finish together
    order = sorted(missing.values(), key=lambda theft: -max(theft.budgets))
    jobs = [(theft, folders[theft.name]) for theft in order]
    for done, ((theft, made), _) in enumerate(pool.spread(_in_process, jobs, workers=workers), start=1):
        say(f"[{done}/{len(missing)}] {theft}: {queries_made(made, max(theft.budgets))}")
    return folders


def queries_made(folder: Path, budget: int) -> str:
    """How many queries the attack in `folder` made, of how many if not all of its budget."""
    return spent(TransferSet.load(folder / "transfer.npz").charged, budget)


def short_of_images(theft: Theft) -> str | None:
    """A warning where an attack's data set holds fewer images than its budget, in no form that asks some again.

    Its clones at larger budgets are then those of the images that there are: poor for want of images, which a reader
    could take for a good defense.
    """
    once = registry.attack(theft.attack).once
    if not once or theft.form is not None:
        return None
    name, service = getattr(theft.how, once), theft.service
    images = datasets.load(name, "train", root=theft.root, size=service.size, channels=service.channels)
    count, budget = len(images.stored), max(theft.budgets)
    if count >= budget:
        return None
    return f"warning: {theft.attack}: {once} {name!r} has {count} images, the budget is {budget} queries"


def _in_process(job: tuple[Theft, Path]) -> None:
    in_process(*job)
