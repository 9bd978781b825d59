"""Which solutions are spent, remembered for every process that serves: in an SQLite file, or in Redis.

SQLite serves the workers of one machine and is the default: a file in the folder $TORCHWARDEN_STATE, which
deploy.server makes anew for each run. Several machines behind one address need Redis: $TORCHWARDEN_STORE, whose URL may
hold a password, or the policy's own `store`. Redis must not evict keys (maxmemory-policy noeviction): a solution
forgotten before it expires would pay twice.

A store that may have forgotten something begins a new life, and solutions of challenges from an earlier one are
refused. An empty store is a new life; so is a Redis process that has started anew, since its files may be older than
its last answers.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from defenses.work import Store, StoreError, Work
from handlers.errors import LoadError

STORE, STATE = "TORCHWARDEN_STORE", "TORCHWARDEN_STATE"
FILE = "spent.sqlite3"
# Remembered this long after its expiry: a solution that was still good a moment ago, or by the clock of another
# machine, must not find itself forgotten.
GRACE_S = 60
# Seconds for Redis to answer, and for the other workers to leave the SQLite file; then the client is told 503.
TIMEOUT_S = 1.0
PATIENCE_S = 5.0


class SqliteStore:
    """The file at `path`, made with mode 0600 where there is none. Raises StoreError."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # sqlite3 knows one transaction a connection
        try:
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, timeout=PATIENCE_S, check_same_thread=False)
            # a process that dies loses nothing; only power can, and the file does not outlive the server's run
            self._connection.execute("PRAGMA synchronous=OFF")
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute("CREATE TABLE IF NOT EXISTS spent (nonce TEXT PRIMARY KEY, expires REAL)")
                self._connection.execute("CREATE INDEX IF NOT EXISTS expiry ON spent (expires)")
                self._connection.execute("CREATE TABLE IF NOT EXISTS lives (life TEXT)")
                self._connection.execute(
                    "INSERT INTO lives SELECT ? WHERE NOT EXISTS (SELECT * FROM lives)", [secrets.token_hex(8)]
                )
            ((self._life,),) = self._connection.execute("SELECT life FROM lives").fetchall()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path} cannot be used as a store: {type(error).__name__}: {error}") from error

    def life(self) -> str:
        """See defenses.work.Store."""
        return str(self._life)

    def spend(self, nonce: str, expires: float, life: str) -> bool:
        """See defenses.work.Store."""
        try:
            with self._lock, self._connection:
                self._connection.execute("DELETE FROM spent WHERE expires < ?", [self._clock() - GRACE_S])
                inserted = self._connection.execute(
                    "INSERT OR IGNORE INTO spent SELECT ?, ? FROM lives WHERE life = ?", [nonce, expires, life]
                )
                return inserted.rowcount == 1
        except sqlite3.Error as error:
            raise StoreError(f"the SQLite store failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class RedisStore:
    """The Redis at `url`; whoever has it answers for its being there. Connects when it is asked and, where the
    connection is lost, again. Raises ValueError for a URL that is none, without quoting it."""

    PREFIX = "torchwarden:"

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        import redis  # for those alone who have one
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._clock = clock
        self._error = redis.RedisError
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                # once more at once: the connection of a Redis that was restarted is found broken when it is used
                retry=Retry(NoBackoff(), 1),
                decode_responses=True,
            )
            self._redis.connection_pool.make_connection()  # an option it does not know is found now
        except (ValueError, TypeError):
            raise ValueError("expected redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER], got another text") from None

    def life(self) -> str:
        """See defenses.work.Store."""
        return self._life(self._together(lambda pipe: None))

    def spend(self, nonce: str, expires: float, life: str) -> bool:
        """See defenses.work.Store."""
        seconds = max(1, int(expires - self._clock()) + GRACE_S)
        told = self._together(lambda pipe: pipe.set(f"{self.PREFIX}spent:{nonce}", 1, nx=True, ex=seconds))
        return bool(told[-1]) and self._life(told) == life

    def _together(self, more: Callable[[Any], object]) -> list[Any]:
        """The answers of one transaction: of what tells the life, and of what `more` adds."""
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.info("server")
                pipe.set(f"{self.PREFIX}life", secrets.token_hex(8), nx=True)
                pipe.get(f"{self.PREFIX}life")
                more(pipe)
                return list(pipe.execute())
        except self._error as error:
            # its text is left out: it may quote a command with its password
            raise StoreError(f"Redis did not answer: {type(error).__name__}") from error

    @staticmethod
    def _life(told: list[Any]) -> str:
        return f"{told[0].get('run_id')}-{told[2]}"


def open_store(work: Work, environ: Mapping[str, str]) -> Store:
    """The store that a policy's proof of work uses here. Raises LoadError."""
    url, named_by = (environ[STORE], f"${STORE}") if environ.get(STORE) else (work.store, "the policy's store")
    if url:
        try:
            return RedisStore(url)
        except ImportError as error:
            raise LoadError(f"{named_by} is a Redis, and its client is not installed: `pip install redis`") from error
        except ValueError as error:
            raise LoadError(f"{named_by}: {error}") from None
    if not environ.get(STATE):
        raise LoadError(
            f"proof of work remembers what was spent, and neither ${STATE} (a folder of this machine) nor ${STORE} (a "
            "Redis URL) is set. Start the server with `python -m deploy.server`, which sets the first"
        )
    try:
        return SqliteStore(Path(environ[STATE]) / FILE)
    except StoreError as error:
        raise LoadError(f"${STATE}: {error}. Name a folder that the server may write to") from error
