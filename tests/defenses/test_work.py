"""What work costs, by hand and by integration, and that a solution pays once, for what it was asked for."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from altcha import Challenge, Payload, create_challenge, solve_challenge

from defenses.memory import Solution, Spent, StoreError
from defenses.work import (
    LONGEST_PAYLOAD,
    MOST_HASHES,
    SolutionError,
    SolutionExpired,
    SolutionInvalid,
    SolutionSpent,
    Toll,
    TooDear,
    Work,
)

KEY = bytes(range(32))
DIGEST = bytes(range(32, 64))


class Memory:
    """A store in a dict."""

    def __init__(self) -> None:
        self.lives, self.spent = "first", dict[str, float]()

    def life(self) -> str:
        return self.lives

    def spend(self, solutions: Sequence[Solution]) -> list[bool]:
        return [self._first(each) for each in solutions]

    def _first(self, solution: Solution) -> bool:
        first = solution.nonce not in self.spent and solution.life == self.lives
        self.spent[solution.nonce] = solution.expires
        return first


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def toll(store: Spent | None = None, *, key: bytes = KEY, policy: str = "digits-same", **table: Any) -> Toll:
    work = Work(**{"mean_benign": 100.0, **table})
    return Toll(work, policy=policy, key=key, store=store or Memory(), clock=table_clock)


table_clock = Clock()


def solved(challenge: dict[str, Any]) -> str:
    asked = Challenge.from_dict(challenge)
    solution = solve_challenge(asked)
    assert solution is not None
    return str(Payload(asked, solution).to_base64())


def changed(payload: str, change: Callable[[dict[str, Any]], object]) -> str:
    stated = json.loads(base64.b64decode(payload))
    change(stated)
    return base64.b64encode(json.dumps(stated).encode()).decode()


def test_prices_by_hand() -> None:
    """c = 1/2, step 2: r = 1/16, so a level is 1/16 as likely as the one below and 4 times as dear; L = 6 and
    sum = 15/16 (1 + 1/4 + ... + 1/4^5) + 1/4^6 = 1.25 - 0.25 / 4096."""
    work = Work(mean_benign=100.0)
    base = 100 / (0.01 * (1.25 - 0.25 / 4096))
    assert work.base(0.01) == pytest.approx(base, rel=1e-12)
    tail = np.array([1, 0.011, 0.01, 0.01 / 15, 0.01 / 17, 0.01 / 255, 0.01 / 257, 1e-300, 0, np.nan])
    expected = np.array([0, 0, 1, 1, 4, 4, 16, 4096, 4096, 0]) * base
    np.testing.assert_allclose(work.of(tail, 0.01), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("table", "rate"),
    [
        ({}, 0.01),
        ({"exponent": 0.9}, 0.001),
        ({"exponent": 0.2, "step": 1}, 0.05),
        ({"step": 5, "most": 12}, 0.01),
        ({"most": 0}, 0.01),
    ],
)
def test_a_benign_row_pays_the_stated_mean(table: dict[str, Any], rate: float) -> None:
    # the integral of the price over a uniform tail probability, in its logarithm
    logs = np.linspace(np.log(1e-30), 0, 2_000_001)
    prices = Work(mean_benign=100.0, **table).of(np.exp(logs), rate)
    assert prices.max() > 0
    assert np.trapezoid(prices * np.exp(logs), logs) == pytest.approx(100, rel=1e-3)


def test_a_lower_tail_never_costs_less_and_levels_are_few() -> None:
    tail = np.sort(np.random.default_rng(0).uniform(0, 0.02, 1000) ** 3)
    prices = Work(mean_benign=100.0).of(tail, 0.01)
    assert (np.diff(prices) <= 0).all()
    assert 4 <= len(set(prices.tolist())) <= 8


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"mean_benign": 0}, "mean_benign: expected a number above 0, at most 1e"),
        ({"exponent": 1.0}, "exponent: expected a number above 0, at most 0.99, got 1.0"),
        ({"step": 0}, "step: expected an integer from 1 to 16, got 0"),
        ({"most": 31}, "most: expected an integer from 0 to 30, got 31"),
        ({"lifetime": 0}, "lifetime: expected a number from 1 to 86400, got 0"),
        ({"algorithm": "MD5"}, "algorithm: expected one of SHA-256, SCRYPT, got 'MD5'"),
        ({"cost": 0}, "cost: expected an integer from 1 to 16777216, got 0"),
        ({"algorithm": "SCRYPT"}, "cost: expected a power of two from 2, scrypt's N, got 1"),
        ({"algorithm": "SCRYPT", "cost": 3000}, "cost: expected a power of two from 2, scrypt's N, got 3000"),
        ({"algorithm": "SCRYPT", "cost": 2**21}, "cost, memory: expected at most 1073741824 bytes .* got 2147483648"),
        ({"memory": 0}, "memory: expected an integer from 1 to 1024, got 0"),
    ],
)
def test_a_table_out_of_range_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Work(**{"mean_benign": 100.0, **table})


def admit(gate: Toll, payload: str, digest: bytes) -> None:
    """Raises what is wrong with the one solution."""
    (wrong,) = gate.admit([(payload, digest)])
    if wrong is not None:
        raise wrong


def test_the_solutions_of_a_batch_are_spent_together_each_as_it_would_be_alone() -> None:
    class Counted(Memory):
        calls = 0

        def spend(self, solutions: Sequence[Solution]) -> list[bool]:
            self.calls += 1
            return super().spend(solutions)

    store = Counted()
    gate = toll(store)
    one, two = (solved(gate.challenge(DIGEST, 2)) for _ in range(2))
    offers = [(one, DIGEST), ("none", DIGEST), (one, DIGEST), (two, bytes(32)), (two, DIGEST)]
    wrong = [type(each) for each in gate.admit(offers)]
    assert wrong == [type(None), SolutionInvalid, SolutionSpent, SolutionInvalid, type(None)]
    assert store.calls == 1
    assert gate.admit([]) == []
    assert [type(each) for each in gate.admit([("none", DIGEST)])] == [SolutionInvalid]
    assert store.calls == 1, "with nothing to spend it is not asked"


def test_a_solution_pays_once() -> None:
    gate = toll()
    payload = solved(gate.challenge(DIGEST, 50))
    admit(gate, payload, DIGEST)
    with pytest.raises(SolutionSpent, match="used before"):
        admit(gate, payload, DIGEST)


def test_a_challenge_tells_what_it_binds_and_nothing_that_is_secret() -> None:
    challenge = toll(lifetime=60).challenge(DIGEST, 1234.4)
    stated = challenge["parameters"]
    assert stated["data"] == {"request": DIGEST.hex(), "policy": "digits-same", "hashes": 1234, "life": "first"}
    assert stated["algorithm"] == "SHA-256"
    assert 58 <= stated["expiresAt"] - time.time() <= 60
    assert "counter" not in json.dumps(challenge)
    assert KEY.hex() not in json.dumps(challenge)


def test_the_mean_number_of_attempts_is_the_price() -> None:
    gate = toll()
    counters = []
    for _ in range(400):
        solution = solve_challenge(Challenge.from_dict(gate.challenge(DIGEST, 20)))
        assert solution is not None
        counters.append(solution.counter)
    attempts = np.array(counters) + 1
    assert attempts.min() >= 1
    assert attempts.max() <= 39
    assert abs(attempts.mean() - 20) < 5 * 11.3 / np.sqrt(400)  # uniform on 1 to 39 spreads by 11.3
    free = solve_challenge(Challenge.from_dict(gate.challenge(DIGEST, 0.2)))
    assert free is not None
    assert free.counter == 0


def test_what_no_challenge_may_ask_for_is_no_discount() -> None:
    assert toll().challenge(DIGEST, MOST_HASHES)["parameters"]["data"]["hashes"] == MOST_HASHES
    for hashes in (MOST_HASHES + 1, 1e15):
        with pytest.raises(TooDear):
            toll().challenge(DIGEST, hashes)


def test_a_row_that_costs_more_than_a_challenge_may_ask_for_is_refused_with_the_price_that_works() -> None:
    """With the defaults and a rate of 1 %, the dearest row costs 4096 / 0.0125 times mean_benign."""
    with pytest.raises(ValueError, match=r"mean_benign: expected at most 6553, or the highest price .* got 10000\.0"):
        Work(mean_benign=10_000.0).check(0.01)
    largest = Work(mean_benign=6553.0)
    largest.check(0.01)
    assert MOST_HASHES * 0.999 < largest.dearest(0.01) <= MOST_HASHES
    assert largest.of(np.array([0.0]), 0.01)[0] == largest.dearest(0.01)
    for rate in (0.5, 0.01, 1e-4, 3e-7):
        with pytest.raises(ValueError, match="expected at most") as caught:
            Work(mean_benign=1e9, exponent=0.9, most=30).check(rate)
        Work(float(re.findall(r"at most ([0-9.e+-]+),", str(caught.value))[0]), exponent=0.9, most=30).check(rate)


def test_scrypt_is_asked_with_its_memory() -> None:
    gate = toll(algorithm="SCRYPT", cost=16, memory=4)
    challenge = gate.challenge(DIGEST, 3)
    assert {key: challenge["parameters"][key] for key in ("algorithm", "cost", "memoryCost")} == {
        "algorithm": "SCRYPT",
        "cost": 16,
        "memoryCost": 4,
    }
    admit(gate, solved(challenge), DIGEST)


def test_an_altered_payload_is_refused_and_spends_nothing() -> None:
    store = Memory()
    gate = toll(store)
    payload = solved(gate.challenge(DIGEST, 5))

    def edit(*path: str, to: object) -> str:
        def change(stated: dict[str, Any]) -> None:
            for key in path[:-1]:
                stated = stated[key]
            assert stated[path[-1]] != to
            stated[path[-1]] = to

        return changed(payload, change)

    parameters = ("challenge", "parameters")
    forged = [
        edit(*parameters, "expiresAt", to=int(time.time()) + 10**6),
        edit(*parameters, "nonce", to="00" * 16),
        edit(*parameters, "cost", to=2),
        edit(*parameters, "keyPrefix", to="00"),
        edit(*parameters, "keySignature", to="00" * 32),
        edit(*parameters, "data", "request", to="00" * 32),
        edit(*parameters, "data", "life", to="other"),
        edit(*parameters, "data", to=None),
        edit("challenge", "signature", to="00" * 32),
        edit("challenge", "signature", to=None),
        edit("solution", "derivedKey", to="00" * 32),
        edit("solution", "derivedKey", to=7),
    ]
    for each in forged:
        with pytest.raises(SolutionInvalid, match="solves no challenge that was given for this request"):
            admit(gate, each, DIGEST)
    assert store.spent == {}
    admit(gate, payload, DIGEST)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "no base64 \xff",
        "AAAA",
        *(
            base64.b64encode(text.encode()).decode()
            for text in (
                "null",
                "[]",
                "7",
                '"text"',
                "{}",
                '{"challenge": 1, "solution": 2}',
                '{"challenge": {"parameters": []}, "solution": {}}',
                '{"challenge": {"parameters": {}}, "solution": {}}',
                '{"challenge": [], "solution": {"counter": 1, "derivedKey": ""}}',
                DEEP[:6000],
                "1" * 6000,
            )
        ),
    ],
)
def test_what_is_no_payload_is_refused_in_our_words(payload: str) -> None:
    with pytest.raises(SolutionInvalid):
        admit(toll(), payload, DIGEST)


def test_a_payload_with_other_types_is_refused() -> None:
    """Every field of a good payload, replaced by every kind of value."""
    gate = toll()
    payload = solved(gate.challenge(DIGEST, 2))

    def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        found = [path] if path else []
        for key in value if isinstance(value, dict) else ():
            found += places(value[key], (*path, key))
        return found

    stated = json.loads(base64.b64decode(payload))
    tried = 0
    for path in places(stated):
        if path[-1] in ("time", "counter"):
            continue  # not read: the derived key decides
        for value in (None, True, -1, 1.5, float("nan"), "text", [], {}, {"a": {"b": []}}, [[1]]):
            edited = json.loads(base64.b64decode(payload))
            inner = edited
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            with pytest.raises(SolutionError):
                admit(gate, base64.b64encode(json.dumps(edited).encode()).decode(), DIGEST)
            tried += 1
    assert tried > 100
    admit(gate, payload, DIGEST)


def test_a_payload_that_is_too_long_is_not_read() -> None:
    gate = toll()
    payload = changed(solved(gate.challenge(DIGEST, 2)), lambda stated: stated.update(more="x" * LONGEST_PAYLOAD))
    with pytest.raises(SolutionInvalid):
        admit(gate, payload, DIGEST)


def test_a_solution_for_another_request_policy_or_key_is_refused() -> None:
    store = Memory()
    payload = solved(toll(store).challenge(DIGEST, 2))
    others = [
        (toll(store), bytes(32)),
        (toll(store, policy="digits-other"), DIGEST),
        (toll(store, key=bytes(32)), DIGEST),
    ]
    for other, digest in others:
        with pytest.raises(SolutionInvalid):
            admit(other, payload, digest)
    admit(toll(store), payload, DIGEST)


def test_a_challenge_of_someone_else_is_refused() -> None:
    made = create_challenge(
        "SHA-256", 1, counter=1, hmac_secret="x", hmac_key_secret="y", data={"request": DIGEST.hex()}
    )
    with pytest.raises(SolutionInvalid):
        admit(toll(), solved(made.to_dict()), DIGEST)


def test_a_solution_expires_by_the_clock_that_is_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = toll(lifetime=60)
    payload = solved(gate.challenge(DIGEST, 2))
    monkeypatch.setattr(table_clock, "ahead", 61)
    with pytest.raises(SolutionExpired, match="has expired; send the request without a solution, for a new one"):
        admit(gate, payload, DIGEST)
    monkeypatch.setattr(table_clock, "ahead", 0)
    admit(gate, payload, DIGEST)


def test_a_solution_expires_by_the_systems_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = toll(lifetime=60)
    monkeypatch.setattr(table_clock, "ahead", -62)
    payload = solved(gate.challenge(DIGEST, 2))
    with pytest.raises(SolutionExpired):
        admit(gate, payload, DIGEST)


def test_a_solution_from_before_the_store_restarted_is_refused() -> None:
    store = Memory()
    gate = toll(store)
    payload = solved(gate.challenge(DIGEST, 2))
    store.lives, store.spent = "second", {}
    with pytest.raises(SolutionSpent):
        admit(gate, payload, DIGEST)


def test_what_the_store_raises_is_what_is_wrong_with_the_solutions_that_it_was_asked_about() -> None:
    class Broken(Memory):
        def spend(self, solutions: Sequence[Solution]) -> list[bool]:
            raise StoreError("gone")

    gate = toll(Broken())
    offers = [(each, DIGEST) for each in ("none", solved(gate.challenge(DIGEST, 2)))]
    forged, failed = gate.admit(offers)
    assert isinstance(forged, SolutionInvalid), "for which no store is needed"
    assert isinstance(failed, StoreError)
    assert str(failed) == "gone"


def test_a_short_key_is_refused_and_a_toll_shows_none() -> None:
    with pytest.raises(ValueError, match="needs a key of at least 32 bytes, got 31"):
        toll(key=bytes(31))
    assert KEY.hex() not in repr(toll())
