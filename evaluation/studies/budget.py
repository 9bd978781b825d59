"""Which accounts a budget flags, thieves' and customers': the "budgets" rows of a report, in process.

    python -m evaluation.studies budget RECIPE --policies same-budget --run reports/RECIPE-budget

Thieves attack the policy's archive as it is served, gate and all, a few times with different seeds; the scores of their
queries are kept in RUN/scores, so that a later run starts where this one ended. An account of a thief is a part of one
of these attacks, from a place drawn at random (the first of each begins at its beginning), with honest queries in
between: each of its queries is an image of the test split with probability `dilution`. A thief who tunes himself by
the refusals (attacks/forms/matched.py) is measured a second time without his probes: he may have tuned on another
account.

Honest accounts ask images of the test split, drawn with replacement (exchangeable, as the budget's promise wants
them), and such as are not: of one class alone; runs of neighbours in the data set's order; one run again and again,
longer than the account remembers images; and images that a shifted camera took (evaluation/traffic.py). The promise
does not cover those, so they are measured.

The pipeline alone is asked. Which clone a thief gets is no question here: all that a budget sees are scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.forms.matched import PROBES
from attacks.oracle import REFUSED, Answers
from defenses.budget import Bets, advanced, opened
from defenses.gate import REJECT
from evaluation.detectors import answered, gate
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.recordings import carried_out
from evaluation.roc import wilson
from evaluation.studies.study import Found, Option, Study, Task
from evaluation.traffic import SEED, SHIFTS
from report.atomic import replacing
from report.rows.budgets import BudgetRow

Scores = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Scores]
"""(random, accounts, queries) -> scores (accounts, queries)"""

# attacks as far as a recipe has them, each plain and in the forms that know a gate
FORMS = (None, "matched", "filtered")
THIEVES: Mapping[str, tuple[str | None, ...]] = {
    "knockoff": FORMS,
    "near": (None, "matched"),
    "augmented-seeds": FORMS,
    "mixed": (None, "matched"),
    "jbda": (None, "matched"),
    "in-distribution": (None,),
}
DILUTIONS = (0.0, 0.5, 0.9, 0.99)
QUERIES = (50, 200, 1_000, 2_000, 10_000)
# a thief's own queries that are recorded, and of one who first learns what passes; a longer account would repeat some
RECORDED, LEARNING = 1_000, 2_000
# who has tuned himself on one account can open another: what he sends after his last probe
TUNED, PROBED = "matched", 4 * PROBES
HONEST_QUERIES = (1_000, 10_000)
# of the test images, how many a shifted camera took: every so many of them
EVERY = 10
RUN = 200
CHUNK = 500


@dataclass(frozen=True, eq=False)
class Kind:
    """Accounts of one kind, in parts that differ: each draws the scores of some. refused: see BudgetRow."""

    name: str
    thief: bool
    parts: Sequence[Draw]
    refused: float
    dilution: float = 0.0


def study(task: Task, *, runs: int, accounts: int, honest: int) -> Iterator[Found]:
    """Rows of every kind of account. runs: of each attack; accounts: of each run; honest: of each honest kind."""
    for policy, oracle in task.oracles(seed=SEED):
        budget, gate_ = oracle.pipeline.policy.budget, oracle.pipeline.policy.gate
        if budget is None or gate_ is None:
            raise OracleError(f"{task.recipe.name}-{policy}: expected a policy with a budget, got none")
        bets = Bets(gate_.calibration)
        row = partial(BudgetRow, recipe=task.recipe.name, policy=policy, level=budget.level)
        customers = kept(task, f"{policy}-test", lambda: gate(oracle, task.test.pixels))  # noqa: B023 - used at once
        for kind in honest_kinds(task, policy, oracle, customers):
            yield _found(kind, bets, row, stops=HONEST_QUERIES, accounts=honest, level=budget.level, runs=0)
        for name, streams in stolen(task, policy, oracle, runs):
            refused = float(np.mean([(scores > gate_.threshold).mean() for scores in streams]))
            for dilution in DILUTIONS:
                parts = [partial(diluted, scores, customers, dilution) for scores in streams]
                kind = Kind(name, True, parts, refused, dilution)
                yield _found(
                    kind, bets, row, stops=_stops(dilution), accounts=runs * accounts, level=budget.level, runs=runs
                )


def _stops(dilution: float) -> tuple[int, ...]:
    """Lengths of accounts for which enough of a thief's queries were recorded."""
    return tuple(queries for queries in QUERIES if queries * (1 - dilution) <= RECORDED + 1)


def _found(
    kind: Kind,
    bets: Bets,
    row: Callable[..., BudgetRow],
    *,
    stops: Sequence[int],
    accounts: int,
    level: float,
    runs: int,
) -> Found:
    shares = flagged(kind, bets, stops=stops, accounts=accounts, level=level)
    rows = []
    for queries, each in zip(stops, shares, strict=True):
        hits, count = int(sum(part.sum() for part in each)), sum(map(len, each))
        low, high = wilson(hits, count)
        rows.append(
            row(
                account=kind.name,
                thief=kind.thief,
                dilution=kind.dilution,
                queries=queries,
                runs=runs,
                accounts=count,
                flagged=hits / count,
                low=low,
                high=high,
                least=float(min(part.mean() for part in each)),
                most=float(max(part.mean() for part in each)),
                refused=kind.refused,
            )
        )
    told = ", ".join(f"{row.flagged:.3f} in {row.queries}" for row in rows)
    return Found(rows, says=f"{kind.name}, dilution {kind.dilution:g}: {told}")


def flagged(
    kind: Kind, bets: Bets, *, stops: Sequence[int], accounts: int, level: float
) -> list[list[NDArray[np.bool_]]]:
    """For each length in `stops`, rising, and each part of a kind: which of its accounts are spent, bool (A,)."""
    random = np.random.default_rng(SEED)
    each = -(-accounts // len(kind.parts))
    found: list[list[NDArray[np.bool_]]] = [[] for _ in stops]
    for draw in kind.parts:
        scores, states, asked = draw(random, each, stops[-1]), opened(each), 0
        for number, stop in enumerate(stops):
            while asked < stop:
                chunk = scores[:, asked : min(asked + CHUNK, stop)]
                states = advanced(states, bets(chunk.ravel()).reshape(*chunk.shape, -1))
                asked += chunk.shape[1]
            found[number].append(states[:, 1] >= 1 / level)
    return found


def resampled(scores: Scores, random: np.random.Generator, accounts: int, queries: int) -> Scores:
    """Drawn with replacement."""
    return random.choice(scores, (accounts, queries))


def in_runs(scores: Scores, length: int, random: np.random.Generator, accounts: int, queries: int) -> Scores:
    """Runs of so many neighbours, each from a place of its own."""
    starts = random.integers(len(scores) - length + 1, size=(accounts, -(-queries // length)))
    places = (starts[:, :, None] + np.arange(length)).reshape(accounts, -1)[:, :queries]
    return np.take(scores, places)


def replayed(scores: Scores, length: int, random: np.random.Generator, accounts: int, queries: int) -> Scores:
    """One run of neighbours an account, again and again."""
    starts = random.integers(len(scores) - length + 1, size=accounts)
    return np.take(scores, starts[:, None] + np.arange(queries) % length)


def diluted(
    scores: Scores, customers: Scores, dilution: float, random: np.random.Generator, accounts: int, queries: int
) -> Scores:
    """A thief's queries in their order, from some place on, between honest ones."""
    honest = random.random((accounts, queries)) < dilution
    starts = random.integers(len(scores), size=accounts)
    starts[0] = 0
    places = (starts[:, None] + (~honest).cumsum(axis=1) - 1) % len(scores)
    return np.where(honest, random.choice(customers, (accounts, queries)), scores[places])


def honest_kinds(task: Task, policy: str, oracle: InProcessOracle, customers: Scores) -> Iterator[Kind]:
    """Exchangeable ones first."""
    threshold = _threshold(oracle)

    def kind(name: str, *parts: Draw, of: Scores = customers) -> Kind:
        return Kind(name, False, parts, float((of > threshold).mean()))

    yield kind("test images", partial(resampled, customers))
    labels = task.test.labels
    assert labels is not None, "test images are labelled"
    classes = [customers[(labels == label).numpy()] for label in labels.unique()]
    yield kind("one class", *(partial(resampled, scores) for scores in classes))
    yield kind(f"runs of {RUN} neighbours", partial(in_runs, customers, RUN))
    yield kind(f"one run of {RUN}, replayed", partial(replayed, customers, RUN))
    for name, shift in SHIFTS.items():
        images = task.test.pixels[::EVERY]
        scores = kept(task, f"{policy}-{name}", lambda: gate(oracle, shift(images)))  # noqa: B023 - used at once
        yield kind(name, partial(resampled, scores), of=scores)


def stolen(task: Task, policy: str, oracle: InProcessOracle, runs: int) -> Iterator[tuple[str, list[Scores]]]:
    """Every attack of the recipe in each of its forms: the scores of its queries, of each run."""
    for attack, forms in THIEVES.items():
        if attack not in task.recipe.tables.get("attacks", {}):
            continue
        for form in forms:
            name = attack if form is None else f"{attack}+{form}"
            made = partial(_attacked, task, oracle, attack, form)
            streams = [kept(task, f"{policy}-{name}-{seed}", partial(made, seed)) for seed in range(runs)]
            yield name, streams
            if form == TUNED and min(map(len, streams)) > PROBED:  # some attacks end before
                yield f"{name}, tuned before", [scores[PROBED:] for scores in streams]


def _attacked(task: Task, oracle: InProcessOracle, attack: str, form: str | None, seed: int) -> Scores:
    """The scores of all that one attack asks, in order."""
    victim = Scored(oracle)
    queries, rows = RECORDED if form is None else LEARNING, oracle.pipeline.policy.max_rows
    carried_out(task.job, victim, attack, form, seed=seed, queries=queries, rows=rows)
    return np.concatenate(victim.scores)


class Scored:
    """An oracle that keeps the gate's scores of all that it is asked. Raises OracleError where the gate failed."""

    def __init__(self, oracle: InProcessOracle) -> None:
        self._oracle = oracle
        self.scores: list[Scores] = []

    def __call__(self, images: torch.Tensor) -> Answers:
        """Answers to float32 (N,C,S,S): refused rows as the client of a service sees them."""
        labels, shown = [], []
        for part in answered(self._oracle, images):
            if part.scores is None or not np.isfinite(part.scores.score).all():
                raise OracleError("the gate failed on some of a thief's rows")
            self.scores.append(part.scores.score)
            refused = np.array(part.decisions) == REJECT
            labels.append(np.where(refused, REFUSED, part.labels))
            shown.append(np.where(refused[:, None], np.nan, part.probabilities))
        return Answers(torch.from_numpy(np.concatenate(labels)), torch.from_numpy(np.concatenate(shown)))


def _threshold(oracle: InProcessOracle) -> float:
    policy = oracle.pipeline.policy
    assert policy.gate is not None, "checked by the study"
    return policy.gate.threshold


def kept(task: Task, name: str, make: Callable[[], Scores]) -> Scores:
    """Scores that an earlier run has made, or those of `make`, written whole or not at all."""
    path = task.folder / "scores" / f"{name}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scores = make()
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, scores)
    found: Scores = np.load(path)
    return found


STUDY = Study(
    "budget",
    "which accounts a budget flags, thieves' and customers'",
    study,
    policies="policies with a budget",
    sections=("budgets",),
    options=(
        Option("runs", 4, "attacks of each thief, with different seeds", least=1),
        Option("accounts", 50, "accounts resampled from each attack", least=1),
        Option("honest", 1_000, "accounts of each honest kind", least=1),
    ),
    one_thread=True,
)
