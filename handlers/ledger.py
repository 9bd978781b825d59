"""How accounts stand (defenses/budget.py), remembered for every process that serves, and for the servers after them.

Row limits and solutions are worth a window, and lie in the folder of one run (handlers/store.py). A thief must not be
able to wait for a restart, so accounts outlive it: in the SQLite file that $TORCHWARDEN_BUDGETS names, which
deploy.server sets to run/<instance>.budgets.sqlite3, or in the store's Redis where there is one.

A change is one transaction: it reads the accounts of a batch, and writes them before anybody gets an answer. What was
answered has therefore been counted, whenever a worker is killed. A machine that loses power may lose the last seconds.

What bounds it: a state of some 330 bytes and its name for each principal that asked in the last `idle` seconds (a
year). Principals are the gateway's, which makes none by itself. Nobody is forgotten for want of room, or a crowd of new
accounts would buy an old one its reset.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from defenses.memory import Change, Ledger, StoreError
from handlers.database import Database
from handlers.errors import LoadError
from handlers.store import PATIENCE_S, STORE, RedisStore, open_store

BUDGETS = "TORCHWARDEN_BUDGETS"
# accounts that are idle are looked for so often
SWEPT_S = 3600.0

_TABLES = (
    "CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, state BLOB, expires REAL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS idle ON accounts (expires)",
)


class SqliteLedger:
    """The file at `path`, made with mode 0600 where there is none. clock: seconds since the epoch. Raises
    StoreError."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._swept = -math.inf
        try:
            self._file = Database(path, *_TABLES, patience=PATIENCE_S, log=True, safe=True)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path} cannot hold accounts: {type(error).__name__}: {error}") from error

    def revise(self, names: Sequence[str], change: Change, *, idle: float) -> None:
        """See defenses.memory.Ledger."""

        def revised() -> None:
            now = self._clock()
            if not self._swept <= now < self._swept + SWEPT_S:
                self._file.change("DELETE FROM accounts WHERE expires < ?", now)
                self._swept = now
            old = [self._file.rows("SELECT state FROM accounts WHERE name = ?", name) for name in names]
            new = change([found[0][0] if found else None for found in old])
            for name, state in zip(names, new, strict=True):
                self._file.change("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", name, state, now + idle)

        try:
            self._file.changed(revised)
        except sqlite3.Error as error:
            raise StoreError(f"the accounts' file failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_ledger(url: str | None, environ: Mapping[str, str]) -> Ledger:
    """The ledger of a policy whose store is `url`, or none, as it is used here. Raises LoadError."""
    if url or environ.get(STORE):
        store = open_store(url, environ)
        assert isinstance(store, RedisStore), "a URL opens nothing else"
        return store
    if not environ.get(BUDGETS):
        raise LoadError(
            f"the policy has a budget for each account, and neither ${BUDGETS} (a file that outlives the server) nor "
            f"${STORE} (a Redis URL) is set. Start the server with `python -m deploy.server`, which sets the first"
        )
    try:
        return SqliteLedger(Path(environ[BUDGETS]))
    except StoreError as error:
        raise LoadError(f"${BUDGETS}: {error}. Name a file in a folder that the server may write to") from error
