"""Rows in a window: no interval as long as the window holds more than the limit, and Retry-After keeps its word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defenses.limits import PRINCIPAL, SHARED, SLOTS, TOTAL, Full, Limiter, Limits, full_for, named, slot
from defenses.memory import Account, Charge, Reached
from defenses.policy import Policy, PolicyError
from tests.defenses.policies import section


class Memory:
    """A meter in a dict."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.taken: dict[str, Counter[int]] = {}

    def full(self, askers: Sequence[Sequence[Account]], window: float) -> list[Reached | None]:
        return [self._full(accounts, 1, window) for accounts in askers]

    def take(self, charges: Sequence[Charge], window: float) -> list[Reached | None]:
        return [self._charged(charge, window) for charge in charges]

    def _full(self, accounts: Sequence[Account], rows: int, window: float) -> Reached | None:
        for name, most in accounts:
            seconds = full_for(self.taken.get(name, Counter()), rows, most, now=self.now, window=window)
            if seconds is not None:
                return Reached(name, seconds)
        return None

    def _charged(self, charge: Charge, window: float) -> Reached | None:
        full = self._full(*charge, window)
        for name, _ in charge.accounts if full is None else ():
            self.taken.setdefault(name, Counter())[slot(self.now, window)] += charge.rows
        return full


def limiter(memory: Memory, **table: Any) -> Limiter:
    return Limiter(Limits(**{"rows": 10, "total": 25, "window": 60.0, **table}), recipe="digits", meter=memory)


def take(limiter: Limiter, principal: str, rows: int) -> Full | None:
    (full,) = limiter.take([(principal, rows)])
    return full


def full(limiter: Limiter, principal: str) -> Full | None:
    (reached,) = limiter.full([principal])
    return reached


def test_golden_waits() -> None:
    # slots of 5 s: at t = 1002 it is slot 200; what slot q took is forgotten at 5 (q + 13)
    taken = {188: 4, 195: 3, 200: 2}
    assert full_for(taken, 1, 10, now=1002, window=60) is None
    assert full_for(taken, 2, 10, now=1002, window=60) == 5 * (188 + 13) - 1002
    assert full_for(taken, 6, 10, now=1002, window=60) == 5 * (195 + 13) - 1002
    assert full_for(taken, 10, 10, now=1002, window=60) == 5 * (200 + 13) - 1002
    assert full_for({187: 10, 201: 10}, 10, 10, now=1002, window=60) is None, "left the sum, or of a clock set back"
    assert full_for({}, 11, 10, now=1002, window=60) == 60


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 10)), max_size=60))
def test_no_window_holds_more_than_the_limit_and_the_wait_suffices(asked: list[tuple[float, int]]) -> None:
    memory = Memory()
    limit = limiter(memory, total=None)
    let: list[tuple[float, int]] = []
    for pause, rows in asked:
        memory.now += pause
        reached = take(limit, "acme", rows)
        if reached is None:
            let.append((memory.now, rows))
        else:
            assert reached.limit == PRINCIPAL
            assert 1 <= reached.seconds <= 60 + 60 / SLOTS + 1
            memory.now += reached.seconds
            assert take(limit, "acme", rows) is None, "after the wait there is room"
            let.append((memory.now, rows))
    for start, _ in let:
        assert sum(rows for at, rows in let if start <= at < start + 60) <= 10


def test_principals_do_not_share_and_all_share_the_total() -> None:
    memory = Memory()
    limit = limiter(memory)
    assert take(limit, "acme", 10) is None
    assert take(limit, "acme", 1) == Full(PRINCIPAL, 65)
    assert take(limit, "other", 10) is None
    assert take(limit, SHARED, 6) == Full(TOTAL, 65)
    assert take(limit, SHARED, 5) is None, "what was refused was not counted"
    assert take(limit, "third", 1) == Full(TOTAL, 65)


def test_policies_of_a_recipe_share_what_was_taken() -> None:
    memory = Memory()
    first, second = limiter(memory), limiter(memory, rows=12)
    other = Limiter(Limits(10), recipe="mnist", meter=memory)
    assert take(first, "acme", 10) is None
    assert take(second, "acme", 3) == Full(PRINCIPAL, 65)
    assert take(second, "acme", 2) is None
    assert take(other, "acme", 10) is None


@pytest.mark.parametrize(
    ("value", "principal"),
    [
        (None, SHARED),
        ("acme", "acme"),
        ("a@b.c:d_e-f", "a@b.c:d_e-f"),
        ("x" * 64, "x" * 64),
        ("", None),
        ("x" * 65, None),
        ("a b", None),
        ("a\n", None),
        ("ä", None),
        ("a,b", None),
    ],
)
def test_what_names_a_principal(value: str | None, principal: str | None) -> None:
    assert named(value) == principal


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rows": 0}, "limits: rows: expected an integer from 1"),
        ({"rows": 15}, "limits: rows: expected at least max_rows, 16, got 15"),
        ({"rows": 20, "total": 19}, "limits: total: expected an integer from 20 .*, got 19"),
        ({"rows": 20, "window": 0.5}, "limits: window: expected a number from 1 to .*, got 0.5"),
        ({"rows": 20, "bad_rows": -1}, "limits: bad_rows: expected an integer from 0 to 1000, got -1"),
        ({"rows": 40, "bad_rows": 3}, "limits: bad_rows: expected at most rows / max_rows, 2, got 3"),
        ({"rows": 20, "per": 1}, "limits: unknown key 'per'"),
        ({}, "limits: missing key 'rows'"),
    ],
)
def test_a_table_out_of_range_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.parse(section(limits=table))


def test_a_policy_is_read_with_its_limits() -> None:
    policy = Policy.parse(section(limits={"rows": 20}))
    assert policy.limits == Limits(rows=20, total=None, window=60)
    assert Policy.parse(section()).limits is None
    assert not policy.needs_key


@pytest.mark.parametrize("header", ["", "X Principal", "X_Principal", "-X", "x" * 65, 5])
def test_a_header_that_is_none_is_refused(header: object) -> None:
    with pytest.raises(PolicyError, match="principal_header: expected letters, digits and hyphens, got"):
        Policy.parse(section(principal_header=header))


def test_a_store_with_credentials_is_refused_and_not_quoted() -> None:
    for store in ("redis://cache", "rediss://cache.internal:6380/3", "redis://[::1]:6379/0"):
        assert Policy.parse(section(store=store)).store == store
    for wrong in ("redis://user:hunter2@cache:6379/0", "http://cache", "cache:6379", 5):
        with pytest.raises(PolicyError, match=r"store: expected redis://HOST.*\$TORCHWARDEN_STORE") as caught:
            Policy.parse(section(store=wrong))
        assert "hunter2" not in str(caught.value)


def test_an_account_is_full_where_no_row_fits_and_looking_counts_nothing() -> None:
    limit = limiter(Memory())
    assert take(limit, "acme", 9) is None
    for _ in range(20):
        assert full(limit, "acme") is None
    assert take(limit, "acme", 1) is None
    assert full(limit, "acme") == Full(PRINCIPAL, 65)
    assert take(limit, "other", 10) is None
    assert full(limit, "third") is None
    assert take(limit, "third", 5) is None
    assert full(limit, "fourth") == Full(TOTAL, 65)


def test_bad_rows_are_charged_as_the_policy_says() -> None:
    assert limiter(Memory()).charge(3, 2) == 5
    assert limiter(Memory(), bad_rows=0).charge(3, 2) == 3
    assert limiter(Memory(), bad_rows=4).charge(3, 2) == 11


def test_a_batch_is_counted_in_order_as_its_requests_would_be_alone() -> None:
    asked = [("acme", 6), ("acme", 5), ("other", 9), ("acme", 4), ("third", 7), ("third", 6), ("other", 1)]
    alone, together = limiter(Memory()), limiter(Memory())
    found = [take(alone, *each) for each in asked]
    assert together.take(asked) == found
    assert found == [None, Full(PRINCIPAL, 65), None, None, Full(TOTAL, 65), None, Full(TOTAL, 65)]
    names = ["acme", "fourth", "acme"]
    assert together.full(names) == [full(alone, name) for name in names]
    assert together.full(names) == [Full(PRINCIPAL, 65), Full(TOTAL, 65), Full(PRINCIPAL, 65)]
