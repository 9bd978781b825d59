"""The rounds of the battery: thieves ask, clones are trained on what they were told, the better half goes on.

A clone is a cell of evaluation.clones: trained once, kept by the hash of everything that decides it, so a campaign that
is taken up again trains none a second time. A data-free thief's clone is its own, trained between its queries.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, pstdev

import torch

from attacks import clone, metrics
from attacks.clone import recipe_reads
from attacks.label_only import labels_only
from attacks.names import best
from attacks.oracle import Ledger, Oracle
from attacks.service import Service
from attacks.thief import Thief, steal
from attacks.transfer import TransferSet
from attest.asking import Asking
from attest.campaign.division import ROUNDS, Standing, most, purse, survivors
from attest.campaign.exact import wilson
from attest.campaign.thieves import Means, Plan, prepare, sharing
from attest.measured import Curve, NotTried, Point
from attest.target.pace import Spent, Stopped
from attest.verdict import BY
from evaluation import clones
from evaluation.clones import Cell, Exam, Score

# of its first queries, what makes it worth a thief's while to learn the gate
REFUSED_SHARE = 0.01
# of a clone that its attack trained
OWN = "own"
ROWS = 64


@dataclass
class Running:
    """A thief that asks, with the curves of all who learn from its queries. points, spread: by the plan's name."""

    plan: Plan
    thief: Thief
    ledger: Ledger
    points: dict[str, list[Point]] = field(default_factory=dict)
    spread: dict[str, float | None] = field(default_factory=dict)
    floor: float | None = None
    judged: bool = False
    ended: str = "budget"

    @property
    def standing(self) -> Standing:
        """Of the best of them."""
        start = self.floor or 0.0
        now = [points[-1].accuracy for points in self.points.values()]
        before = [points[-2].accuracy for points in self.points.values() if len(points) > 1]
        return Standing(max(now, default=start), max(before, default=start))


@dataclass(frozen=True)
class Chosen:
    """The training that a thief would choose, by its held-out answers: what each seed's clone reaches, and their mean
    agreement."""

    recipe: str
    accuracies: tuple[float, ...]
    agreement: float

    @property
    def accuracy(self) -> float:
        """Their mean."""
        return mean(self.accuracies)


@dataclass(frozen=True)
class Result:
    """curves, and what was not tried. stopped: why the campaign could not go on, or None."""

    curves: tuple[Curve, ...]
    not_tried: tuple[NotTried, ...]
    stopped: str | None


class Battery:
    """The thieves of `plans` on a service. exam: the owner's images, and what is served for them. name: of
    the target. workers: processes that train clones (evaluation.pool); say: gets a line for each."""

    def __init__(
        self,
        asking: Asking,
        plans: tuple[Plan, ...],
        means: Means,
        service: Service,
        exam: Exam,
        folder: Path,
        *,
        name: str,
        workers: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._asking, self._plans, self._means, self._service = asking, plans, means, service
        self._exam, self._folder, self._name = exam, folder, name
        self._workers, self._say = workers, say
        self._exam_path = folder / "exam.npz"
        exam.save(self._exam_path)
        self._running: dict[str, Running] = {}
        self._not_tried: list[NotTried] = []

    def run(self, budget: int) -> Result:
        """All rounds, of so many queries together."""
        asking = [plan for plan in self._plans if plan.asks and not plan.gate_aware]
        laid_out = most(budget, len(asking))
        for plan in asking:
            self._start(plan, laid_out)
        stopped: Stopped | None = None
        standing = list(self._running)
        for number in range(ROUNDS):
            each = purse(budget - self._spent(), number, len(standing))
            for name in standing:
                stopped = stopped or self._steal(self._running[name], each)
            self._judge(standing)
            if stopped or number == ROUNDS - 1:
                break
            going = self._going(standing)
            better = survivors(going) if going else []
            for name in set(going) - set(better):
                self._running[name].ended = "dropped"
            standing = better + (self._gate_aware(laid_out) if number == 0 else [])
        if stopped is None or isinstance(stopped, Spent):
            return Result(tuple(self._curves()), tuple(self._not_tried), None)
        for running in self._running.values():
            running.ended = "stopped" if running.ended == "budget" else running.ended
        return Result(tuple(self._curves()), tuple(self._not_tried), str(stopped))

    def _going(self, names: list[str]) -> dict[str, Standing]:
        """How the thieves stand that can ask more and have something to gain by it. One that knows as much without a
        query is ahead of all others, and would spend on nothing what these are judged by."""
        service = metrics.accuracy(self._exam.served, self._exam.truth)
        asking = {name: self._running[name] for name in names if self._running[name].ended == "budget"}
        for running in asking.values():
            if service - (running.floor or 0.0) < BY.worth:
                running.ended = "nothing to gain"
        return {name: running.standing for name, running in asking.items() if running.ended == "budget"}

    def _start(self, plan: Plan, budget: int) -> None:
        """Prepare a thief, or say why it cannot be."""
        try:
            thief = prepare(plan, self._means, self._service, budget)
        except ValueError as error:
            self._not_tried.append(NotTried(plan.name, str(error)))
            return
        oracle: Oracle = self._asking.phase(f"thief:{plan.name}")
        running = Running(plan, thief, Ledger(labels_only(oracle) if plan.labels == "hard" else oracle, max(1, budget)))
        self._running[plan.name] = running

    def _gate_aware(self, budget: int) -> list[str]:
        """The thieves that learn a gate, where there seems to be one."""
        plans = [plan for plan in self._plans if plan.gate_aware]
        rejected = max(
            (each.ledger.refused / max(1, each.ledger.queries) for each in self._running.values()), default=0
        )
        if rejected < REFUSED_SHARE:
            why = f"{rejected:.1%} of a thief's first queries were refused: there is no gate to learn"
            self._not_tried += [NotTried(plan.name, why) for plan in plans]
            return []
        for plan in plans:
            self._start(plan, budget)
        return [plan.name for plan in plans if plan.name in self._running]

    def _spent(self) -> int:
        return sum(running.ledger.queries for running in self._running.values())

    def _steal(self, running: Running, queries: int) -> Stopped | None:
        """So many queries more; what keeps the campaign from going on, or None."""
        if queries < 1:
            return None
        running.ledger.budget = running.ledger.queries + queries
        try:
            for _ in steal(running.thief, running.ledger, rows=ROWS):
                pass
        except Stopped as event:
            running.ledger.queries = self._asking.ledger.count(f"thief:{running.plan.name}")
            return event
        if running.ledger.left:
            running.ended = "exhausted"
        return None

    def _judge(self, names: list[str]) -> None:
        """Train the clones of thieves that asked, and set a point on each of their curves. The first time, train also
        on what they had before they asked."""
        answered: dict[str, list[Cell]] = {}
        owned: dict[str, list[Cell]] = {}
        for name in names:
            running = self._running[name]
            if not running.judged:
                owned[name] = self._owned(running)
            if running.ledger.queries and running.thief.clone() is None:
                for plan in sharing(self._plans, name):
                    answered[plan.name] = self._cells(plan, running.thief, running.ledger.queries)
        scores = self._trained([cell for cells in (*owned.values(), *answered.values()) for cell in cells])
        for name in names:
            running = self._running[name]
            if not running.judged:
                running.floor = _chosen(owned[name], scores).accuracy if owned[name] else None
                running.judged = True
            for plan in sharing(self._plans, name):
                if answered.get(plan.name):
                    self._point(running, plan, _chosen(answered[plan.name], scores))
            own = running.thief.clone()
            # a network that was told nothing is nobody's clone
            if own is not None and running.ledger.queries > running.ledger.refused:
                labels = clone.predict(own.network, self._exam.images)
                accuracy = metrics.accuracy(labels, self._exam.truth)
                agreement = metrics.agreement(labels, self._exam.served)
                self._point(running, running.plan, Chosen(OWN, (accuracy,), agreement))

    def _cells(self, plan: Plan, thief: Thief, queries: int) -> list[Cell]:
        """The clones of what a thief was told so far; none where that is nothing that the plan can read."""
        transfer = thief.transfer_set()
        soft = plan.labels == "soft" and transfer.probabilities is not None
        if plan.recipes and not soft:
            return []  # logarithms of nothing
        return self._planned(plan, transfer, plan.shares or plan.name, queries, "soft" if soft else "hard")

    def _owned(self, running: Running) -> list[Cell]:
        """The clones of the labelled images that a thief had before its first query."""
        own = running.thief.own()
        return [] if own is None else self._planned(running.plan, own, f"{running.plan.name}-own", len(own), "hard")

    def _planned(self, plan: Plan, transfer: TransferSet, name: str, queries: int, reading: str) -> list[Cell]:
        """The clones of a transfer set. Its file is named by thief and size, since what is read of it is cached."""
        path = self._folder / "transfer" / f"{re.sub('[^a-z0-9]+', '-', name)}-{queries}.npz"
        transfer.save(path)
        usual = plan.recipes or self._means.cloning.recipes
        recipes = tuple(recipe for recipe in usual if recipe_reads(recipe, reading))
        if not recipes:
            return []
        cells = clones.plan(
            path,
            self._exam_path,
            dataclasses.replace(self._means.cloning, recipes=recipes),
            policy=self._name,
            attack=plan.name,
            adaptive=None,
            classes=self._service.classes,
            budgets=(queries,),
            seeds=self._means.cloning.seeds,
            labels=(reading,),
        )
        return list(cells)

    def _trained(self, cells: list[Cell]) -> dict[str, Score]:
        done = clones.finish(cells, self._folder / "clones", say=self._say, workers=self._workers)
        return {cell.key: score for cell, score in done}

    def _point(self, running: Running, plan: Plan, found: Chosen) -> None:
        low, high = wilson(found.accuracy, len(self._exam.truth))
        queries, rejected = running.ledger.queries, running.ledger.refused
        price = self._asking.target.price(queries)
        running.spread[plan.name] = pstdev(found.accuracies) if len(found.accuracies) > 1 else None
        running.points.setdefault(plan.name, []).append(
            Point(queries, found.accuracy, low, high, found.agreement, rejected, price, found.recipe)
        )

    def _curves(self) -> list[Curve]:
        made = []
        # what is told decides what a thief reads, whatever it would rather have
        labels_alone = self._asking.target.scale == "label"
        for running in self._running.values():
            for plan in sharing(self._plans, running.plan.name):
                points = tuple(running.points.get(plan.name, ()))
                if not points and not plan.asks:
                    told = running.ledger.queries - running.ledger.refused
                    few = f"{told} queries were answered, too few"
                    what = few if told < clone.LEAST_ROWS else "the service tells no probabilities"
                    self._not_tried.append(NotTried(plan.name, f"{what} to learn from"))
                    continue
                made.append(
                    Curve(
                        plan.name,
                        plan.attack,
                        plan.form,
                        "hard" if labels_alone else plan.labels,
                        plan.shares,
                        self._means.seed,
                        running.floor,
                        points,
                        running.ended,
                        running.spread.get(plan.name),
                    )
                )
        return made


def _chosen(cells: list[Cell], scores: Mapping[str, Score]) -> Chosen:
    by_recipe: dict[str, list[Score]] = {}
    for cell in cells:
        by_recipe.setdefault(cell.recipe, []).append(scores[cell.key])
    recipe = best({name: [score.held_out for score in each] for name, each in by_recipe.items()})
    kept = by_recipe[recipe]
    return Chosen(recipe, tuple(score.clone_accuracy for score in kept), mean(score.agreement for score in kept))


def digest(images: torch.Tensor, labels: torch.Tensor) -> str:
    """SHA-256 of images and their labels, as they are asked about."""
    return hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
