"""Whether accounts of one campaign can be told from strangers, and what a budget of all of them together then sees:
the "strangers" and "campaigns" rows of a report, in process.

    python -m evaluation.studies campaigns RECIPE --policies same-budget --run reports/RECIPE-campaigns

Two accounts are linked where enough of the last queries of each are near-copies of the other's (evaluation/linking.py),
by perceptual codes of a few sizes. From how many on is chosen on honest accounts: among STRANGERS of them, each with
images drawn from one half of the test split, at most MOST_LINKED are linked to any other. It is judged on the other
half, on such accounts and on honest ones that are alike: of one class, of runs of neighbours, with popular images that
many ask, and with copies of such images, a little different in each account, as cameras and encoders make them.

Thieves attack the policy's archive, gate and all; the images and scores of their queries are kept in RUN/queries. A
campaign of some clients deals them out to as many accounts in turn, each of which mixes them with honest images. The
same number of queries is asked by honest accounts beside it. All accounts ask at the same pace, and are held against
each other as often as their windows are new. What links honest accounts to each other alone is left out there: the
"strangers" rows count it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.oracle import Answers
from defenses.budget import Bets, advanced, opened
from defenses.noise import LEVELS, PerceptualCode
from evaluation.company import Company
from evaluation.detectors import gate
from evaluation.linking import NONE, WINDOW, Integers, Windows, coded, distinct, mutual
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.recordings import carried_out
from evaluation.roc import wilson
from evaluation.studies.budget import Scored, Scores, kept
from evaluation.studies.study import Found, Option, Study, Task
from evaluation.traffic import SEED
from report.atomic import replacing
from report.rows.campaigns import CampaignRow, StrangerRow

Pixels = NDArray[np.uint8]

# of the codes: nobody attacks them here
SECRET = SEED.to_bytes(32, "big")
CODES = (PerceptualCode(4, 64), PerceptualCode(7, 64))
# thieves as far as a recipe has them: plain, in the form that tunes itself by a gate's refusals, and in one that asks
# near-copies of each image to average the answers, who of all should be linked
JITTERED = "jittered-4"
THIEVES: Mapping[str, tuple[str | None, ...]] = {
    "augmented-seeds": (None, "matched"),
    "mixed": (None, "matched"),
    "near": (None, "matched"),
    "knockoff": (None, "matched", JITTERED),
    "jbda": (None,),
}
RECORDED = 2_000
CLIENTS, DILUTIONS = (1, 10, 100), (0.0, 0.5, 0.9, 0.99)
# honest accounts that are held against each other, and how many of them may be linked
STRANGERS, MOST_LINKED = 100, 0.001
# an account is not followed any longer, and is looked at so many times at least
LONGEST, LOOKS = 2_000, 5
# queries of a window that are popular, among how many images; grey levels by which an account's own copies differ
POPULAR, FAVOURITES, APART = 40, 50, 2
# of a CampaignRow: what is counted
SEEN = ("linked", "wrongly", "alone", "together", "strangers_together")


@dataclass(frozen=True, eq=False)
class Pool:
    """Images and what is known of each: scores (N,), numbers of the image (N,) and of each code's (N,), one a code.

    honest: places of the images that honest queries are drawn from; own: of the thief's, in his order.
    """

    scores: Scores
    images: Integers
    codes: tuple[Integers, ...]
    honest: Integers
    own: Integers


def study(task: Task, *, runs: int, groups: int) -> Iterator[Found]:
    """runs: of each attack, with different seeds; groups: of honest accounts of each kind."""
    pixels = _in_8_bits(task.test.pixels)
    for policy, oracle in task.oracles(seed=SEED):
        budget, gate_ = oracle.pipeline.policy.budget, oracle.pipeline.policy.gate
        if budget is None or gate_ is None:
            raise OracleError(f"{task.recipe.name}-{policy}: expected a policy with a budget, got none")
        thresholds = []
        for code in CODES:
            about = partial(StrangerRow, recipe=task.recipe.name, policy=policy, **_facts(code))
            found = list(strangers(task, pixels, code, about, groups))
            thresholds.append(round(found[0].threshold * WINDOW))
            yield Found(found, says="\n".join(f"{code}: {row.account}: {row.linked:.4f}" for row in found))
        honest = kept(task, f"{policy}-test", lambda: gate(oracle, task.test.pixels))  # noqa: B023 - used at once
        for name, made in recorded(task, policy, oracle, runs):
            row = partial(CampaignRow, recipe=task.recipe.name, policy=policy, level=budget.level, account=name)
            pools = [_pool(pixels, honest, *each) for each in made]
            for clients, dilution in product(CLIENTS, DILUTIONS):
                campaigns = [
                    Campaign(pool, Bets(gate_.calibration), 1 / budget.level, clients, dilution, seed)
                    for seed, pool in enumerate(pools)
                ]
                yield _found(partial(row, clients=clients, dilution=dilution), campaigns, thresholds)


def _found(row: Callable[..., CampaignRow], campaigns: list[Campaign], thresholds: list[int]) -> Found:
    """A row a code, of campaigns that differ by chance."""
    made = [each.carried_out(thresholds) for each in campaigns]
    rows = []
    for number, (code, threshold) in enumerate(zip(CODES, thresholds, strict=True)):
        shares = {name: float(np.mean([each[number][name] for each in made])) for name in SEEN}
        counts = {"queries": campaigns[0].places.shape[1], "campaigns": len(made), "strangers": STRANGERS}
        rows.append(row(**_facts(code), **counts, threshold=threshold / WINDOW, **shares))
    first = rows[0]
    told = ", ".join(f"{row.linked:.2f} linked, {row.together:.2f} flagged together" for row in rows)
    where = f"{first.account}, {first.clients} clients, dilution {first.dilution:g}"
    return Found(rows, says=f"{where}: {first.alone:.2f} flagged alone; {told}")


def _facts(code: PerceptualCode) -> dict[str, Any]:
    return {"grid": code.grid, "step": code.step, "window": WINDOW}


def strangers(
    task: Task, pixels: Pixels, code: PerceptualCode, row: Callable[..., StrangerRow], groups: int
) -> Iterator[StrangerRow]:
    """The kind that the threshold is chosen on, then those that it is judged on."""
    halves = np.arange(0, len(pixels), 2), np.arange(1, len(pixels), 2)
    labels = task.test.labels
    assert labels is not None, "test images are labelled"
    codes, images = coded(pixels, code, SECRET), distinct(pixels)
    random = np.random.default_rng(SEED)

    def most(group: Callable[[], Integers]) -> Integers:
        """Of each account, the most hits with another of its group."""
        found = []
        for _ in range(groups):
            places = group()
            found.append(mutual(Windows(codes[places], images[places]), STRANGERS).max(axis=1))
        return np.concatenate(found)

    def copied() -> Integers:
        places = popular(random, halves[1])
        own = pixels[places[:, :POPULAR]].astype(np.int16)
        own += random.integers(-APART, APART + 1, own.shape, dtype=np.int16)
        near = own.clip(0, LEVELS).astype(np.uint8).reshape(-1, *pixels.shape[1:])
        everything = np.concatenate([pixels, near])
        places[:, :POPULAR] = len(pixels) + np.arange(len(near)).reshape(STRANGERS, -1)
        numbers = coded(everything, code, SECRET), distinct(everything)
        found: Integers = mutual(Windows(*(each[places] for each in numbers)), STRANGERS).max(axis=1)
        return found

    first = most(lambda: drawn(random, halves[0]))
    allowed = int(MOST_LINKED * len(first))
    threshold = int(np.sort(first)[::-1][allowed]) + 1
    of_class = [halves[1][(labels[halves[1]] == label).numpy()] for label in labels.unique()]
    kinds: dict[str, Integers] = {
        "test images": first,
        "test images, the other half": most(lambda: drawn(random, halves[1])),
        "one class": most(
            lambda: np.stack([random.choice(of_class[a % len(of_class)], WINDOW) for a in range(STRANGERS)])
        ),
        f"runs of {WINDOW} neighbours": most(lambda: neighbours(random, halves[1])),
        "popular images": most(lambda: popular(random, halves[1])),
        "popular images, a copy of one's own": np.concatenate([copied() for _ in range(groups)]),
    }
    for name, hits in kinds.items():
        linked = int((hits >= threshold).sum())
        low, high = wilson(linked, len(hits))
        yield row(
            threshold=threshold / WINDOW,
            account=name,
            chosen=hits is first,
            accounts=len(hits),
            among=STRANGERS,
            linked=linked / len(hits),
            low=low,
            high=high,
        )


def drawn(random: np.random.Generator, places: Integers) -> Integers:
    """Of these images, drawn with replacement: (STRANGERS, WINDOW)."""
    found: Integers = random.choice(places, (STRANGERS, WINDOW))
    return found


def neighbours(random: np.random.Generator, places: Integers) -> Integers:
    """Runs in the data set's order, as long as a window or as all that there are."""
    run = min(WINDOW, len(places))
    starts = random.integers(len(places) - run + 1, size=STRANGERS)
    found: Integers = places[starts[:, None] + np.arange(run)]
    return found


def popular(random: np.random.Generator, places: Integers) -> Integers:
    """The first of each account's queries drawn from FAVOURITES that all of them ask, the others from all images."""
    found = drawn(random, places)
    found[:, :POPULAR] = random.choice(random.choice(places, FAVOURITES, replace=False), (STRANGERS, POPULAR))
    return found


def length(recorded: int, clients: int, dilution: float) -> int:
    """Queries of each account of a campaign, honest ones among them: until the thief's are spent, or LONGEST."""
    return min(LONGEST, round(recorded // clients / (1 - dilution)))


class Campaign:
    """One campaign and honest accounts beside it: what there is to draw, and what is found."""

    def __init__(self, pool: Pool, bets: Bets, limit: float, clients: int, dilution: float, seed: int) -> None:
        self._pool, self._bets, self._limit = pool, bets, limit
        self._clients = clients
        self.places = dealt(pool, clients, dilution, np.random.default_rng([SEED, seed]))

    def carried_out(self, thresholds: list[int]) -> list[dict[str, float]]:
        """For each code and its threshold in hits: by the name of a field of CampaignRow, what was found."""
        accounts, queries = self.places.shape
        every = max(1, min(WINDOW, queries // LOOKS))
        alone = opened(accounts)
        companies = [Company(accounts, self._limit) for _ in thresholds]
        met = [np.zeros((accounts, accounts), bool) for _ in thresholds]
        for start in range(0, queries, every):
            places = self.places[:, start : start + every]
            factors = self._bets(self._pool.scores[places].ravel()).reshape(*places.shape, -1)
            alone = advanced(alone, factors)
            window = self.places[:, max(0, start + every - WINDOW) : start + every]
            for number, (company, threshold) in enumerate(zip(companies, thresholds, strict=True)):
                company.charge(factors, alone)
                linked = self._hits(window, number) >= threshold
                linked[self._clients :, self._clients :] = False
                met[number] |= linked
                company.link(linked, alone)
        return [self._found(alone, *each) for each in zip(companies, met, strict=True)]

    def _hits(self, window: Integers, code: int) -> Integers:
        short = ((0, 0), (0, WINDOW - window.shape[1]))
        codes, images = self._pool.codes[code][window], self._pool.images[window]
        windows = Windows(*(np.pad(each, short, constant_values=NONE) for each in (codes, images)))
        return mutual(windows, self._clients)

    def _found(self, alone: Scores, company: Company, met: NDArray[np.bool_]) -> dict[str, float]:
        his = slice(self._clients)
        shares = {
            "linked": met[his, his].any(axis=1),
            "wrongly": met[self._clients :, his].any(axis=1),
            "alone": alone[his, 1] >= self._limit,
            "together": company.flagged[his],
            "strangers_together": company.flagged[self._clients :],
        }
        return {name: float(each.mean()) for name, each in shares.items()}


def dealt(pool: Pool, clients: int, dilution: float, random: np.random.Generator) -> Integers:
    """Places in the pool that are asked, (clients + STRANGERS, queries): the thief's dealt out in turn to the first of
    these accounts, in their order and between honest ones, and honest ones alone by the others."""
    queries = length(len(pool.own), clients, dilution)
    places = random.choice(pool.honest, (clients + STRANGERS, queries))
    own = pool.own[: len(pool.own) // clients * clients].reshape(-1, clients).T
    his = random.random((clients, queries)) >= dilution
    number = his.cumsum(axis=1) - 1
    his &= number < own.shape[1]
    account, query = np.nonzero(his)
    places[account, query] = own[account, number[account, query]]
    return places


class Recorded(Scored):
    """An oracle that keeps the images that it is asked, too."""

    def __init__(self, oracle: InProcessOracle) -> None:
        super().__init__(oracle)
        self.pixels: list[Pixels] = []

    def __call__(self, images: torch.Tensor) -> Answers:
        self.pixels.append(_in_8_bits(images))
        return super().__call__(images)


def recorded(
    task: Task, policy: str, oracle: InProcessOracle, runs: int
) -> Iterator[tuple[str, list[tuple[Pixels, Scores]]]]:
    """Every attack of the recipe in each of its forms: images and scores of its queries, of each run."""
    for attack, forms in THIEVES.items():
        if attack not in task.recipe.tables.get("attacks", {}):
            continue
        for form in forms:
            name = attack if form is None else f"{attack}+{form}"
            yield name, [_recording(task, policy, oracle, attack, form, seed) for seed in range(runs)]


def _recording(
    task: Task, policy: str, oracle: InProcessOracle, attack: str, form: str | None, seed: int
) -> tuple[Pixels, Scores]:
    """What an earlier run has kept, or what this attack asks now."""
    path = task.folder / "queries" / f"{policy}-{attack if form is None else f'{attack}+{form}'}-{seed}.npz"
    if not path.exists():
        victim = Recorded(oracle)
        rows = oracle.pipeline.policy.max_rows
        carried_out(task.job, victim, attack, form, seed=seed, queries=RECORDED, rows=rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, pixels=np.concatenate(victim.pixels), scores=np.concatenate(victim.scores))
    with np.load(path) as kept_:
        return kept_["pixels"], kept_["scores"]


def _pool(test: Pixels, honest: Scores, own: Pixels, scores: Scores) -> Pool:
    """Of the test images, and of a thief's."""
    pixels = np.concatenate([test, own])
    return Pool(
        scores=np.concatenate([honest, scores]),
        images=distinct(pixels),
        codes=tuple(coded(pixels, code, SECRET) for code in CODES),
        honest=np.arange(1, len(test), 2),
        own=np.arange(len(test), len(pixels)),
    )


def _in_8_bits(images: torch.Tensor) -> Pixels:
    """The nearest grey level of each pixel, as the code is of."""
    levels: Pixels = (images * LEVELS).round().to(torch.uint8).numpy()
    return levels


STUDY = Study(
    "campaigns",
    "whether accounts of one campaign can be told from strangers",
    study,
    policies="policies with a budget",
    sections=("strangers", "campaigns"),
    options=(
        Option("runs", 2, "attacks of each thief, with different seeds", least=1),
        Option("groups", 10, "groups of honest accounts of each kind", least=1),
    ),
    one_thread=True,
)
