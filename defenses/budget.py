r"""The budget of an account: how surprising its queries may be together, before they are no customer's.

One query says little, and a thief who matches the gate's threshold is hidden in each of them; their sum is what he
cannot hide. An account bets against the hypothesis that its queries are honest, which is a test at any time (Ville,
"Etude critique de la notion de collectif", 1939; Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World",
2005, chapter 7: conformal test martingales): it begins with a capital of 1, each query multiplies what is staked by
e >= 0 with E[e] <= 1 for honest ones, and

    P(the capital ever reaches 1 / a)  <=  a

for queries that are exchangeable with the calibration's images, however many are asked and whenever one looks.

Bets. The calibration's table has scores s_1 < ... < s_J and bounds p_j >= P_benign(S >= s_j). A conformal p-value,
smoothed within its cell (s_j <= S < s_j+1: uniform from p_j+1 to p_j), is staked on a power, k p^(k-1) (Vovk et al.).
The draw is taken out by its mean, so that ties and cells need no random number, and a row always counts the same:

    e(S) = (1 - m) + m (p_j^k - p_j+1^k) / (p_j - p_j+1),      p_J+1 = 0

It rises with the score, so bounds p_j that are too large only make it smaller in the mean: E[e] <= 1 as long as they
are bounds. m, the share staked, is for thieves who hide among honest queries: of one query in a hundred, little more
than a hundredth should be staked. BETS are played side by side, each with an equal part of the capital: a mixture.

Bounds. All queries meet one calibration of N images. An error of its quantiles of 1 / sqrt(N) would be won again with
each query, and break the guarantee after some N of them. So p_j is no estimate but holds for all j at once, but for one
calibration in 1 / UNLUCKY (calibration-conditional p-values: Bates, Candes, Lei, Romano and Sesia, "Testing for
outliers with conformal p-values", 2023). P(S >= s_j) is at most a Beta(r, N + 1 - r) variable, r = the table's
probability times N + 1, hence with Chernoff's bound of the binomial's tail

    p_j = the largest q with  N KL((r - 1) / N, q) <= log(J / UNLUCKY)
    KL(f, q) = f log(f / q) + (1 - f) log((1 - f) / (1 - q))

Starting over. Honest queries lose their stakes. Who asked them for a year and steals then would have to win all that
back; so the capital is staked bit by bit: of the reserve R(n) = 1 / log2(n + 2), which is left after n queries, the
part R(n) - R(n+1) is staked with the next one, from when on it plays each bet. A thief who begins at query n meets
fresh capital of about log(2) / (n log(n)^2), so that a late start costs the test the logarithm of that, and no more:

    c_b <- (c_b + (R(n) - R(n+1)) / B) e_b(S),      capital = R(n+1) + sum of c_b

which is a test martingale as before: nothing enters but what was in reserve (the mixture over the time of the change,
as in Shiryaev's and Roberts' procedures, with weights that sum to 1).

Repetitions. An image that the account asked among its last RECENT ones is not counted again: it says nothing new, and a
probe or a retry would win its stake each time. A thief who dilutes his queries has to find honest images as well.

What it does not promise. Images of a customer whose camera, class or session is another than the calibration's are not
exchangeable with it: docs/results/budget.md has how often such accounts are flagged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from defenses import ranges
from defenses.gate import Calibration
from defenses.memory import Ledger
from defenses.responses.rule import Doubles
from defenses.work import Work

LABEL, PRICE, REFUSE, OBSERVE = "label", "price", "refuse", "observe"
THEN = (LABEL, PRICE, REFUSE, OBSERVE)

# k and m above: mild ones for thieves close to benign, steep ones for what is diluted
BETS: tuple[tuple[float, float], ...] = (
    (0.8, 1.0),
    (0.5, 1.0),
    (0.5, 0.3),
    (0.2, 0.3),
    (0.2, 0.1),
    (0.1, 0.03),
    (0.1, 0.01),
)
# of calibrations, those whose bounds may not hold
UNLUCKY = 0.01
# capital beyond it is not counted: far above what any level asks for, and no product of it overflows
MOST = 1e100
# images of an account that are remembered, by four bytes of their digest, and not counted again
RECENT = 64
# an account that asks nothing for so many seconds is forgotten
IDLE_S = 365 * 86_400.0


@dataclass(frozen=True)
class Budget:
    """The `budget` table of a policy.

    level: a, the share of honest accounts that may be taken for thieves, ever. then: what becomes of a request of an
    account whose capital has reached 1 / level, from that batch on: "label" (no probabilities), "price" (every row
    costs what the gate's most suspicious row does), "refuse" (403), or "observe" (it is counted and written down).
    work: what proof of work costs, where the gate has no price of its own.
    """

    level: float
    then: str
    work: Work | None = None

    def __post_init__(self) -> None:
        ranges.number("level", self.level, above=0, most=0.1)
        if self.level < 1e-12:
            raise ValueError(f"level: expected at least 1e-12, got {self.level!r}")
        ranges.choice("then", self.then, THEN)


class Asked(NamedTuple):
    """What an account asks in a batch, in order: scores (n,), NaN where there is none, and a mark of each image, (n,)
    uint32, equal for equal ones."""

    scores: Doubles
    marks: NDArray[np.uint32]


class Standing(NamedTuple):
    """How an account stands after a batch: its queries so far that counted, its largest capital, whether that has
    reached the limit, and whether it did in this batch."""

    queries: int
    capital: float
    spent: bool
    new: bool


class Bets:
    """What the scores of queries multiply the stakes by, from a gate's calibration."""

    def __init__(self, calibration: Calibration) -> None:
        probabilities, scores = np.array(calibration.tail, np.float64).T
        above = bounds(probabilities, calibration.images)
        # cells that the bounds do not tell apart are one
        kept = np.flatnonzero(np.diff(above, prepend=1.0) < 0)
        self._floors = scores[kept]
        edges = np.concatenate([[1.0], above[kept], [0.0]])
        upper, lower = edges[:-1, None], edges[1:, None]
        powers, shares = np.array(BETS).T
        self._factors: Doubles = 1 - shares + shares * (upper**powers - lower**powers) / (upper - lower)

    def __call__(self, scores: Doubles) -> Doubles:
        """The factors of finite scores (N,): (N, B)."""
        return self._factors[np.searchsorted(self._floors, scores, side="right")]


def bounds(probabilities: Doubles, images: int) -> Doubles:
    """p_j above, (J,) not rising, of a table's falling probabilities (J,) that rest on so many images."""
    found = (np.rint(probabilities * (images + 1)) - 1).clip(0, images) / images
    most = math.log(len(found) / UNLUCKY) / images
    low, high = found.copy(), np.ones_like(found)
    for _ in range(60):  # halvings: as close as doubles are
        middle = (low + high) / 2
        inside = _divergence(found, middle) <= most
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.minimum.accumulate(high)


def _divergence(found: Doubles, other: Doubles) -> Doubles:
    """KL(f, q) above, for 0 <= f <= q <= 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(found > 0, found * np.log(found / other), 0.0)
        second = np.where(found < 1, (1 - found) * np.log((1 - found) / (1 - other)), 0.0)
    return first + second


def opened(accounts: int) -> Doubles:
    """New accounts, (A, 2 + B): queries, the largest capital so far, and the stakes of each bet."""
    states = np.zeros((accounts, 2 + len(BETS)))
    states[:, 1] = 1.0
    return states


def reserve(queries: Doubles) -> Doubles:
    """R(n) above."""
    left: Doubles = 1 / np.log2(queries + 2)
    return left


def advanced(states: Doubles, factors: Doubles) -> Doubles:
    """Accounts (A, 2 + B) after R further queries of each, whose factors are (A, R, B), in their order."""
    queries, peak, stakes = states[:, 0].copy(), states[:, 1].copy(), states[:, 2:].copy()
    left = reserve(queries)
    for row in range(factors.shape[1]):
        queries += 1
        after = reserve(queries)
        stakes += ((left - after) / len(BETS))[:, None]
        stakes *= factors[:, row]
        np.minimum(stakes, MOST, out=stakes)
        left = after
        np.maximum(peak, left + stakes.sum(axis=1), out=peak)
    return np.concatenate([queries[:, None], peak[:, None], stakes], axis=1)


class Accounts:
    """The accounts of a recipe's principals. recipe: whose classifier they ask; ledger: remembers their states for all
    processes that serve."""

    def __init__(self, budget: Budget, calibration: Calibration, *, recipe: str, ledger: Ledger) -> None:
        self._limit = 1 / budget.level
        self._bets = Bets(calibration)
        self._scope = f"{recipe}/budget"
        self._ledger = ledger

    def charge(self, asked: Mapping[str, Asked]) -> dict[str, Standing]:
        """How principals stand once these queries are counted; rows without a score and recent images are not. Returns
        when it is remembered. Raises StoreError."""
        standings: list[Standing] = []

        def change(old: Sequence[bytes | None]) -> list[bytes]:
            standings.clear()  # a store may have to try more than once
            new = []
            for packed, each in zip(old, asked.values(), strict=True):
                before, recent = _unpacked(packed)
                counted, recent = _new(each, recent)
                after = advanced(before, self._bets(each.scores[counted])[None])
                queries, peak = after[0, :2]
                spent = bool(peak >= self._limit)
                fresh = spent and not before[0, 1] >= self._limit
                standings.append(Standing(int(queries), float(peak), spent, fresh))
                new.append(after.astype("<f8").tobytes() + np.array(recent, "<u4").tobytes())
            return new

        self._ledger.revise([f"{self._scope}/{principal}" for principal in asked], change, idle=IDLE_S)
        return dict(zip(asked, standings, strict=True))


def _new(asked: Asked, recent: list[int]) -> tuple[list[int], list[int]]:
    """The rows that count, and the marks of the latest RECENT that did."""
    rows = []
    for row, (score, mark) in enumerate(zip(asked.scores.tolist(), asked.marks.tolist(), strict=True)):
        if not math.isnan(score) and mark not in recent:
            rows.append(row)
            recent = [*recent[1 - RECENT :], mark]
    return rows, recent


def _unpacked(packed: bytes | None) -> tuple[Doubles, list[int]]:
    """A state (1, 2 + B) as the ledger has it, and the marks of recent images; a new account where it has none.

    Where it has one of another number of bets, which other code wrote: whoever is spent stays so, and the stakes begin
    anew from what is in reserve.
    """
    started, size = opened(1), 8 * (2 + len(BETS))
    if packed is None:
        return started, []
    if len(packed) in range(size, size + 4 * RECENT + 1, 4):
        return np.frombuffer(packed[:size], "<f8").astype(np.float64)[None], np.frombuffer(
            packed[size:], "<u4"
        ).tolist()
    started[0, :2] = np.frombuffer(packed[:16], "<f8")
    return started, []
