"""What all processes that serve remember together: which solutions are spent, how many rows were taken, how accounts
stand.

A stage is handed such a memory as one of these protocols; handlers/store.py and handlers/ledger.py have them, in SQLite
files or in Redis.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

_REDIS = re.compile(r"rediss?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[0-9]{1,4})?")


class StoreError(Exception):
    """The store cannot be asked. The text names no secret."""


class Account(NamedTuple):
    """Where rows are counted: `name`, of one or many, and at most `most` rows of it in a window."""

    name: str
    most: int


class Reached(NamedTuple):
    """The name of an account that is full, and seconds until it may have room."""

    account: str
    seconds: float


class Charge(NamedTuple):
    """Rows of one request, and the accounts that they count in."""

    accounts: Sequence[Account]
    rows: int


class Solution(NamedTuple):
    """Of one challenge: its `nonce`, when it `expires` (seconds since the epoch), and the store's life when it was
    asked."""

    nonce: str
    expires: float
    life: str


class Spent(Protocol):
    """Which solutions are spent. Both methods raise StoreError."""

    def life(self) -> str:
        """Names the memory of the store: redrawn whenever it may have forgotten something."""

    def spend(self, solutions: Sequence[Solution]) -> list[bool]:
        """Remember each nonce until its solution expires and some while longer, in order, all of them or, where it
        raises, none that is known of: whether each was the first with its nonce, and the store still has its life."""


class Meter(Protocol):
    """How many rows were taken; see defenses/limits.py. Both methods raise StoreError."""

    def full(self, askers: Sequence[Sequence[Account]], window: float) -> list[Reached | None]:
        """Of each asker's accounts the first without room for one row; nothing is counted."""

    def take(self, charges: Sequence[Charge], window: float) -> list[Reached | None]:
        """Count each charge, in order, in all of its accounts or in none of them: then the one that is full."""


Change = Callable[[Sequence[bytes | None]], Sequence[bytes]]
"""The states of some accounts, None of those that have none, to their new ones; may be asked more than once."""


class Ledger(Protocol):
    """How accounts stand; see defenses/budget.py."""

    def revise(self, names: Sequence[str], change: Change, *, idle: float) -> None:
        """Put what `change` makes of the states of these accounts in their place, all or none, and with nobody else's
        change in between. A state that is not revised for `idle` seconds is forgotten. Returns when it outlives this
        process. Raises StoreError."""


def check_url(store: object) -> None:
    """Raise ValueError unless `store` is None or a Redis URL without user and password."""
    if store is not None and not (isinstance(store, str) and _REDIS.fullmatch(store)):
        # the text is left out: it may hold a password
        raise ValueError(
            "store: expected redis://HOST:PORT/NUMBER or null, got another text; "
            "user and password belong into $TORCHWARDEN_STORE"
        )
