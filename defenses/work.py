"""Proof of work: a suspected client pays for the answer with hashes, more of them the surer the gate is.

Dziedzic et al., "Increasing the Cost of Model Extraction with Calibrated Proof of Work", ICLR 2022, price a query so
that benign users hardly notice it. Here the price of a row follows from its tail probability p = P_benign(S >= s):

    level(p)  = min(floor(c log2(rate / p) / step), L),   L = floor(most / step)
    hashes(p) = base 2^(step level(p)) where p <= rate, else 0

In whole levels, so that the price is no fine measure of the score. Of benign traffic p is uniform on (0, 1): with
c < 1 the rare high prices add up to little, and base makes a benign row's mean price exactly `mean_benign`:

    mean = base rate (sum_{k<L} (r^k - r^(k+1)) 2^(k step) + r^L 2^(L step)),   r = 2^(-step / c)

A price is asked as an ALTCHA challenge in its deterministic mode: a secret counter is drawn, and the client counts up
from 0 until its key, derived from nonce, salt and counter, begins as the secret one does. What the server does for it
is one derivation to ask and two HMACs to check, whatever the price. A solution is bound to the request's digest, to
the policy and to the store's life, expires, and is admitted once; the paper's code checks none of that.

Prices of a request's rows add up. altcha counts in 32 bits, so a challenge asks for MOST_HASHES at most: a policy whose
dearest row costs more is no policy, and a request whose rows do together is refused: the client must split it.
"""

# ruff: noqa: N818 - the names read as events, which is what clients and metrics see

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from altcha import Payload, create_challenge, verify_solution
from numpy.typing import NDArray

from defenses import ranges
from defenses.memory import Solution, Spent, StoreError
from defenses.routing import KEY_BYTES

# altcha counts in 32 bits, and a counter is drawn from below twice the mean
MOST_HASHES = 2**31
LONGEST_PAYLOAD = 8192
ALGORITHMS = ("SHA-256", "SCRYPT")
MOST_MEMORY = 2**30


class TooDear(Exception):
    """More work than one challenge may ask for."""


class SolutionError(Exception):
    """A solution that pays for nothing; `text` is what the client reads."""

    text: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(self.text)


class SolutionInvalid(SolutionError):
    text = "this solves no challenge that was given for this request; send it without a solution, for a challenge"


class SolutionExpired(SolutionError):
    text = "this challenge has expired; send the request without a solution, for a new one"


class SolutionSpent(SolutionError):
    text = "this solution was used before; send the request without it, for a new challenge"


@dataclass(frozen=True)
class Work:
    """The `work` table of a gate; see the formulas above.

    mean_benign: hashes that a benign row costs on average. exponent: c. step: bits from level to level. most: bits
    between the lowest price and the highest. lifetime: seconds until a challenge expires. algorithm: what one hash is,
    SHA-256 (cost: how often it is applied) or SCRYPT (cost: its N; memory: its r; 128 N r bytes, which a graphics card
    has not for each of its threads).
    """

    mean_benign: float
    exponent: float = 0.5
    step: int = 2
    most: int = 12
    lifetime: float = 300
    algorithm: str = "SHA-256"
    cost: int = 1
    memory: int = 8

    def __post_init__(self) -> None:
        ranges.number("mean_benign", self.mean_benign, above=0, most=1e9)
        ranges.number("exponent", self.exponent, above=0, most=0.99)
        ranges.integer("step", self.step, 1, 16)
        ranges.integer("most", self.most, 0, 30)
        ranges.between("lifetime", self.lifetime, 1, 86_400)
        ranges.choice("algorithm", self.algorithm, ALGORITHMS)
        ranges.integer("cost", self.cost, 1, 2**24)
        ranges.integer("memory", self.memory, 1, 1024)
        if self.algorithm == "SCRYPT":
            if self.cost < 2 or self.cost & (self.cost - 1):
                raise ValueError(f"cost: expected a power of two from 2, scrypt's N, got {self.cost}")
            if 128 * self.cost * self.memory > MOST_MEMORY:
                raise ValueError(
                    f"cost, memory: expected at most {MOST_MEMORY} bytes a hash, 128 N r, "
                    f"got {128 * self.cost * self.memory}"
                )

    def base(self, rate: float) -> float:
        """Hashes at the lowest level, of a gate that suspects the share `rate` of benign rows."""
        levels = np.arange(self.most // self.step + 1)
        reached = 2.0 ** (-self.step / self.exponent * levels)  # share of the suspected rows at this level or above
        at_level = reached - np.append(reached[1:], 0)
        return float(self.mean_benign / (rate * (at_level * 2.0 ** (self.step * levels)).sum()))

    def dearest(self, rate: float) -> float:
        """Hashes at the highest level, of such a gate."""
        return self.base(rate) * 2.0 ** (self.step * (self.most // self.step))

    def check(self, rate: float) -> None:
        """Raise ValueError where no challenge can ask for a row's highest price: it would pay less than that."""
        dearest = self.dearest(rate)
        if dearest > MOST_HASHES:
            most = self.mean_benign * MOST_HASHES / dearest
            raise ValueError(
                f"mean_benign: expected at most {_rounded_down(most)}, or the highest price of a row, {dearest:.4g} "
                f"hashes, is above what a challenge may ask for, {MOST_HASHES}; got {self.mean_benign!r}"
            )

    def of(self, tail: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
        """The expected hashes of rows with these tail probabilities: (N,) to (N,), 0 above `rate` and for NaN."""
        with np.errstate(divide="ignore"):  # a tail of 0 is at the highest level
            bits = self.exponent * np.log2(rate / tail)
        levels = np.minimum(np.floor(bits / self.step), self.most // self.step)
        return np.where(tail <= rate, self.base(rate) * 2.0 ** (self.step * levels), 0.0)


class Toll:
    """Asks for work and checks it.

    policy: the name that solutions are bound to. key: the deployment's, at least 32 bytes; two secrets are derived from
    it. clock: seconds since the epoch, the same on every machine that serves. Counters, like altcha's nonces, come from
    the operating system's entropy.
    """

    def __init__(self, work: Work, *, policy: str, key: bytes, store: Spent, clock: Callable[[], float]) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError(f"proof of work needs a key of at least {KEY_BYTES} bytes, got {len(key)}")
        self._work = work
        self._policy = policy
        self._secrets = {
            "hmac_secret": hmac.digest(key, b"torchwarden/toll/challenge", "sha256"),
            "hmac_key_secret": hmac.digest(key, b"torchwarden/toll/solution", "sha256"),
        }
        self._store = store
        self._clock = clock

    def challenge(self, digest: bytes, hashes: float) -> dict[str, Any]:
        """What a client has to solve for the request with this digest: `hashes` attempts on average, at least 1.

        Raises TooDear above MOST_HASHES: a request that paid less than its rows do alone would be a discount. Raises
        StoreError.
        """
        expected = max(round(hashes), 1)
        if expected > MOST_HASHES:
            raise TooDear
        made: dict[str, Any] = create_challenge(
            self._work.algorithm,
            self._work.cost,
            memory_cost=self._work.memory if self._work.algorithm == "SCRYPT" else None,
            # counting up from 0 takes 1 to 2 expected - 1 attempts, `expected` on average
            counter=secrets.randbelow(2 * expected - 1),
            expires_at=int(self._clock() + self._work.lifetime),
            data={
                "request": digest.hex(),
                "policy": self._policy,
                "hashes": expected,
                "life": self._store.life(),
            },
            **self._secrets,
        ).to_dict()
        return made

    def admit(self, offers: Sequence[tuple[str, bytes]]) -> list[SolutionError | StoreError | None]:
        """Spend the solutions that requests bring, each ALTCHA's payload in base64 and the request's digest: what is
        wrong with each, None where it was good."""
        read = [self._read(payload, digest) for payload, digest in offers]
        good = [solution for solution in read if isinstance(solution, Solution)]
        try:
            spent = iter(self._store.spend(good) if good else [])
        except StoreError as error:
            return [error if isinstance(each, Solution) else each for each in read]
        return [(None if next(spent) else SolutionSpent()) if isinstance(each, Solution) else each for each in read]

    def _read(self, payload: str, digest: bytes) -> Solution | SolutionError:
        """A solution of this request's own challenge that is yet to be spent, or what is wrong with it."""
        try:
            return self._verified(payload, digest)
        except SolutionError as error:
            return error

    def _verified(self, payload: str, digest: bytes) -> Solution:
        """Raises SolutionInvalid, SolutionExpired."""
        if len(payload) > LONGEST_PAYLOAD:
            raise SolutionInvalid
        try:
            solved = Payload.from_base64(payload)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise SolutionInvalid from None  # the error would quote what the client sent
        verdict = verify_solution(solved, **self._secrets)
        if verdict.expired:
            raise SolutionExpired
        if not verdict.verified:
            raise SolutionInvalid
        # signed by us from here on
        stated = solved.challenge.parameters
        if stated.data["request"] != digest.hex() or stated.data["policy"] != self._policy:
            raise SolutionInvalid
        if stated.expires_at <= self._clock():
            raise SolutionExpired
        return Solution(stated.nonce, stated.expires_at, stated.data["life"])


def _rounded_down(value: float) -> str:
    """Four digits of a positive number, and never more than it is."""
    digits = 3 - math.floor(math.log10(value))
    return f"{math.floor(value * 10.0**digits) / 10.0**digits:.4g}"
