"""A store asked about one thing: the protocols ask for a batch."""

from __future__ import annotations

from collections.abc import Sequence

from defenses.memory import Account, Charge, Meter, Reached, Solution, Spent


def spend(store: Spent, nonce: str, expires: float, life: str) -> bool:
    """Whether the one solution was spent by this."""
    (first,) = store.spend([Solution(nonce, expires, life)])
    return first


def full(store: Meter, accounts: Sequence[Account], window: float) -> Reached | None:
    """Which account of one asker is full."""
    (reached,) = store.full([accounts], window)
    return reached


def take(store: Meter, accounts: Sequence[Account], rows: int, window: float) -> Reached | None:
    """Which account has no room for one charge."""
    (reached,) = store.take([Charge(accounts, rows)], window)
    return reached
