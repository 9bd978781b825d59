"""Which solutions are spent and how many rows were taken, remembered for every process that serves: in an SQLite file,
or in Redis.

SQLite serves the workers of one machine and is the default: a file in the folder $TORCHWARDEN_STATE, which
deploy.server recreates for each run. Several machines behind one address need Redis: $TORCHWARDEN_STORE, whose URL may
hold a password, or the policy's `store`. It must be one primary that evicts no keys: a solution forgotten before it
expires would pay twice, a replica does not know what was spent a moment ago, and a cluster has no one place for a
transaction. Its kind is checked when the store is opened, or with its first answer, and whenever another
memory answers at its address.

A store that may have forgotten something begins a new life, and solutions of challenges from an earlier one are
refused. An empty store is a new life, and so is an SQLite file once the clock was set back by more than GRACE_S, since
it forgets by the clock, and once the machine has started again, since it is not synced to the disk
(handlers/database.py). Redis names the history of its memory itself, for its replicas (master_replid), and draws
another name where that history may part from what was answered: when a process starts, since its files may be older
than its last answers; when a replica is promoted, since the primary answered more than it was sent; and when a primary
that was made a replica, and took another's memory for its own, is promoted again. That last one is the same process as
before: the process's name (run_id) would not do. A primary that comes back as it was has its old life, whose solutions
were spent with it and nowhere else. Rows taken are only worth a window: what is lost of them is a limit that starts
over.

A clock is read under the store's lock, never before it: a worker that read it first and then waited would count its
rows into a past slot, where those that others took meanwhile are not seen. SQLite's is read inside the transaction that
writes. Redis counts a window by its clock, inside the script, so that the machines' clocks need not agree either.
(Redis receives a solution with how long it must be remembered: transit time only adds to that.)
"""

from __future__ import annotations

import base64
import math
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from defenses.limits import SLOTS, full_for, slot
from defenses.memory import Account, Change, Charge, Meter, Reached, Solution, Spent, StoreError
from handlers.database import Database, boot
from handlers.errors import LoadError

STORE, STATE = "TORCHWARDEN_STORE", "TORCHWARDEN_STATE"
FILE = "state.sqlite3"
# Remembered this long after its expiry: a solution that was still good a moment ago, or by the clock of another
# machine, must not find itself forgotten.
GRACE_S = 60
# Seconds for Redis to answer, and for the other workers to leave the SQLite file; then the client gets 503.
TIMEOUT_S = 1.0
PATIENCE_S = 5.0
# What has expired is forgotten so often.
STEP_S = 1.0
# A Redis that was silent is not asked again for so long, or every row of a batch would wait for it in turn. A refused
# connection shows at once.
PAUSE_S = 5.0
# so often is a change of accounts tried that others change at the same time
RACES = 100

_TABLES = (
    "CREATE TABLE IF NOT EXISTS spent (nonce TEXT PRIMARY KEY, expires REAL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS expiry ON spent (expires)",
    "CREATE TABLE IF NOT EXISTS lives (life TEXT, latest REAL)",
    "CREATE TABLE IF NOT EXISTS taken (account TEXT, slot INTEGER, rows INTEGER, expires REAL, "
    "PRIMARY KEY (account, slot)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS forgotten ON taken (expires)",
)
_COUNT = "INSERT INTO taken VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET rows = rows + excluded.rows"

# INFO's name for the history of what a Redis remembers.
_MEMORY = "master_replid"

# INFO's facts about a Redis that can be a store, and the way to one. A policy that evicts is refused even where no
# maxmemory is set: if one were set later, while Redis runs, keys would be lost, and nothing checks again.
_KIND: tuple[tuple[str, str | int, str], ...] = (
    ("role", "master", "name the primary itself, not a replica or a Sentinel, or promote this one: `REPLICAOF NO ONE`"),
    ("cluster_enabled", 0, "name a Redis of its own whose redis.conf says `cluster-enabled no`"),
    ("maxmemory_policy", "noeviction", "`CONFIG SET maxmemory-policy noeviction`, and in redis.conf the same"),
)

# Each charge's rows are counted in all of its accounts or in none: KEYS are the accounts of all charges, ARGV the
# window, its slots, and for each charge its rows, how many accounts it has, and each account's most. Gives the time,
# and for each charge 0, or the place of the first account that is full and what that took by slot.
_TAKE = """
local window, slots = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local current = math.floor((time[1] + time[2] / 1000000) / (window / slots))

local function room(key, rows, most)
  local sum, taken = rows, redis.call('HGETALL', key)
  for at = 1, #taken, 2 do
    local number = tonumber(taken[at])
    if number < current - slots or number > current then
      redis.call('HDEL', key, taken[at])
    else
      sum = sum + tonumber(taken[at + 1])
    end
  end
  return sum <= most
end

local function charged(first, accounts, rows, mosts)
  for account = 1, accounts do
    local key = KEYS[first + account]
    if not room(key, rows, tonumber(ARGV[mosts + account])) then
      return {account, redis.call('HGETALL', key)}
    end
  end
  for account = 1, accounts do
    local key = KEYS[first + account]
    redis.call('HINCRBY', key, string.format('%.0f', current), rows)
    redis.call('EXPIRE', key, math.ceil(window * (slots + 2) / slots))
  end
  return {0}
end

local answers, key, at = {time[1] .. '.' .. string.format('%06d', time[2])}, 0, 3
while ARGV[at] do
  local rows, accounts = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  answers[#answers + 1] = charged(key, accounts, rows, at + 1)
  key, at = key + accounts, at + 2 + accounts
end
return answers
"""


Result = TypeVar("Result")


class WrongRedisError(StoreError):
    """A Redis answers, and it is of a kind that would let solutions pay twice."""


class SqliteStore:
    """The file at `path`, made with mode 0600 where there is none. Raises StoreError.

    A call that writes is one transaction, of however many requests: a batch waits for other workers once. booted: names
    the time since the machine started.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, booted: Callable[[], str] = boot) -> None:
        self._clock = clock
        self._boot = booted()
        self._swept = -math.inf  # when this process last forgot rows
        try:
            self._file = Database(path, *_TABLES, patience=PATIENCE_S, log=True)
            self._file.changed(self._begun)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path} cannot be used as a store: {type(error).__name__}: {error}") from error

    def _begun(self) -> None:
        """A life where there is none."""
        began = secrets.token_hex(8), self._clock()
        self._file.change("INSERT INTO lives SELECT ?, ? WHERE NOT EXISTS (SELECT * FROM lives)", *began)

    def life(self) -> str:
        """See defenses.memory.Spent."""
        read = "SELECT life, latest FROM lives"
        ((life, latest),) = self._failing(self._file.asked, lambda: self._file.rows(read))
        if self._clock() < latest - GRACE_S:
            life = self._failing(self._file.changed, lambda: self._new_life(self._clock()))
        return self._named(life)

    def _named(self, life: str) -> str:
        """What clients see of a life: the machine's start ends it too, since what was spent just before may not have
        reached the disk."""
        return f"{life}-{self._boot}"

    def _new_life(self, now: float) -> str:
        """The life that begins when the clock was set back: what expired by the old one may be forgotten."""
        began = secrets.token_hex(8), now
        # not where another worker was first
        self._file.change("UPDATE lives SET life = ?, latest = ? WHERE latest > ?", *began, now + GRACE_S)
        ((life,),) = self._file.rows("SELECT life FROM lives")
        return str(life)

    def spend(self, solutions: Sequence[Solution]) -> list[bool]:
        """See defenses.memory.Spent."""

        def spent() -> list[bool]:
            now = self._clock()
            ((current, latest),) = self._file.rows("SELECT life, latest FROM lives")
            if now < latest - GRACE_S:
                current = self._new_life(now)
            elif now >= latest + STEP_S:
                # both at once: what is forgotten had expired by the clock that is remembered
                self._file.change("UPDATE lives SET latest = ?", now)
                self._file.change("DELETE FROM spent WHERE expires < ?", now - GRACE_S)
            life = self._named(current)
            return [each.life == life and self._first(each) for each in solutions]

        return self._failing(self._file.changed, spent)

    def _first(self, solution: Solution) -> bool:
        insert = "INSERT OR IGNORE INTO spent VALUES (?, ?)"
        return self._file.change(insert, solution.nonce, solution.expires) == 1

    def full(self, askers: Sequence[Sequence[Account]], window: float) -> list[Reached | None]:
        """See defenses.memory.Meter."""

        def looked() -> list[Reached | None]:
            now = self._clock()
            return [self._full(accounts, 1, window, now) for accounts in askers]

        return self._failing(self._file.asked, looked)

    def take(self, charges: Sequence[Charge], window: float) -> list[Reached | None]:
        """See defenses.memory.Meter."""

        def taken() -> list[Reached | None]:
            now = self._clock()
            if not self._swept <= now < self._swept + STEP_S:
                self._file.change("DELETE FROM taken WHERE expires < ?", now)
                self._swept = now
            return [self._charged(charge, window, now) for charge in charges]

        return self._failing(self._file.changed, taken)

    def _charged(self, charge: Charge, window: float, now: float) -> Reached | None:
        full = self._full(charge.accounts, charge.rows, window, now)
        number = slot(now, window)
        expires = (number + SLOTS + 1) * window / SLOTS
        for name, _ in charge.accounts if full is None else ():
            self._file.change(_COUNT, name, number, charge.rows, expires)
        return full

    def _full(self, accounts: Sequence[Account], rows: int, window: float, now: float) -> Reached | None:
        """The first account without room for `rows`."""
        for name, most in accounts:
            taken = dict(self._file.rows("SELECT slot, rows FROM taken WHERE account = ?", name))
            seconds = full_for(taken, rows, most, now=now, window=window)
            if seconds is not None:
                return Reached(name, seconds)
        return None

    @staticmethod
    def _failing(ask: Callable[[Callable[[], Result]], Result], work: Callable[[], Result]) -> Result:
        """What `ask` gives for `work`. Raises StoreError for whatever SQLite has against it."""
        try:
            return ask(work)
        except sqlite3.Error as error:
            raise StoreError(f"the SQLite store failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RedisStore:
    """The Redis at `url`; its owner is responsible for its availability. Connects when it is asked and, where the
    connection is lost, again. Raises ValueError for a URL that is none, without quoting it."""

    PREFIX = "torchwarden:"

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        import redis  # for those alone who have one
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._clock = clock
        self._error, self._silence, self._raced = redis.RedisError, redis.TimeoutError, redis.WatchError
        self._silent_until = 0.0
        self._checked: str | None = None  # the memory whose kind was looked at last, and found right
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                # once more at once: the connection of a Redis that was restarted is found broken when it is used
                # (not after a time-out: a worker answers no client meanwhile)
                retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
                decode_responses=True,
            )
            self._redis.connection_pool.make_connection()  # an option it does not know is found now
            self._take = self._redis.register_script(_TAKE)
        except (ValueError, TypeError):
            raise ValueError("expected redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER], got another text") from None

    def check(self) -> str:
        """Look at what kind of Redis it is; returns the name of its memory. Raises WrongRedisError for a wrong one,
        StoreError where none answers."""

        def ask() -> dict[str, Any]:
            # no transaction: a Sentinel knows none, and a connection leads to one process
            with self._redis.pipeline(transaction=False) as pipe:
                for section in ("memory", "cluster", "replication"):
                    pipe.info(section)
                return {fact: value for replies in pipe.execute() for fact, value in replies.items()}

        replies = self._answer(ask)
        wrong = [
            f"{fact}: expected {wanted}, got {replies.get(fact, 'nothing')}: {mend}"
            for fact, wanted, mend in _KIND
            if replies.get(fact) != wanted
        ]
        if not wrong and not replies.get(_MEMORY):
            wrong.append(f"{_MEMORY}: expected a name, got nothing: use Redis 4 or later")
        if wrong:
            raise WrongRedisError(f"this Redis cannot be the store: {'; '.join(wrong)}")
        self._checked = str(replies[_MEMORY])
        return self._checked

    def life(self) -> str:
        """See defenses.memory.Spent."""
        return self._life(self._together(lambda pipe: None))

    def spend(self, solutions: Sequence[Solution]) -> list[bool]:
        """See defenses.memory.Spent."""

        def spent(pipe: Any) -> None:
            for each in solutions:
                seconds = max(1, int(each.expires - self._clock()) + GRACE_S)
                pipe.set(f"{self.PREFIX}spent:{each.nonce}", 1, nx=True, ex=seconds)

        replies = self._together(spent)
        first = replies[len(replies) - len(solutions) :]
        life = self._life(replies)
        return [bool(reply) and each.life == life for reply, each in zip(first, solutions, strict=True)]

    def full(self, askers: Sequence[Sequence[Account]], window: float) -> list[Reached | None]:
        """See defenses.memory.Meter."""

        def rows_of_all(pipe: Any) -> None:
            pipe.time()
            for accounts in askers:
                for name, _ in accounts:
                    pipe.hgetall(f"{self.PREFIX}rows:{name}")

        _, (whole, millionths), *replies = self._transaction(rows_of_all)
        rows, now = iter(replies), whole + millionths / 1e6
        # every account's reply is read, or the next asker would get it
        found = [[_reached(account, next(rows), 1, now, window) for account in accounts] for accounts in askers]
        return [next(filter(None, reached), None) for reached in found]

    def take(self, charges: Sequence[Charge], window: float) -> list[Reached | None]:
        """See defenses.memory.Meter. Which memory counts is not asked here: `full` has asked it for the same
        batch, and a replica or a cluster refuses the script."""
        keys = [f"{self.PREFIX}rows:{name}" for charge in charges for name, _ in charge.accounts]
        args: list[str | int] = [repr(window), SLOTS]
        for accounts, rows in charges:
            args += [rows, len(accounts), *(most for _, most in accounts)]
        now, *replies = self._answer(lambda: self._take(keys=keys, args=args))
        return [
            self._refused(charge, reply[0], reply[1], float(now), window) if reply[0] else None
            for charge, reply in zip(charges, replies, strict=True)
        ]

    @staticmethod
    def _refused(charge: Charge, place: int, taken: Sequence[str], now: float, window: float) -> Reached:
        """The account at `place`, from 1, that took so much (slot, rows, slot, rows ...), as the script says."""
        account = charge.accounts[place - 1]
        by_slot = dict(zip(taken[::2], taken[1::2], strict=True))
        return _reached(account, by_slot, charge.rows, now, window) or Reached(account.name, 0.0)

    def revise(self, names: Sequence[str], change: Change, *, idle: float) -> None:
        """See defenses.memory.Ledger. Optimistic: what somebody else changed meanwhile is read again. A state is as old
        as this Redis' memory is: keep it on disk (`appendonly yes`), or a restart begins all accounts anew."""
        keys = [f"{self.PREFIX}{name}" for name in names]
        seconds = math.ceil(idle)

        def revised() -> bool:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.watch(*keys)
                old = [None if text is None else base64.b64decode(text) for text in pipe.mget(keys)]
                new = change(old)
                pipe.multi()
                for key, state in zip(keys, new, strict=True):
                    pipe.set(key, base64.b64encode(state).decode(), ex=seconds)
                try:
                    pipe.execute()
                except self._raced:
                    return False
                return True

        if self._checked is None:
            self.check()
        for _ in range(RACES if keys else 0):
            if self._answer(revised):
                return
        if keys:
            raise StoreError(f"accounts were changed by others {RACES} times while they were revised")

    def _together(self, more: Callable[[Any], object]) -> list[Any]:
        """The answers of one transaction: of what names the life, and of what `more` adds."""

        def commands(pipe: Any) -> None:
            pipe.set(f"{self.PREFIX}life", secrets.token_hex(8), nx=True)
            pipe.get(f"{self.PREFIX}life")
            more(pipe)

        return self._transaction(commands)

    def _transaction(self, commands: Callable[[Any], object]) -> list[Any]:
        """The answers of one transaction: INFO's, which names the memory that gave them, and those of `commands`. The
        kind of a Redis is asked only where its memory is another than the last time."""

        def ask() -> list[Any]:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.info("replication")
                commands(pipe)
                return list(pipe.execute())

        # before anything is written, and so that a replica is reported by its kind and not by the command that it
        # refuses
        checked = self._checked or self.check()
        replies: list[Any] = self._answer(ask)
        memory = replies[0].get(_MEMORY)
        if memory != checked and memory != self.check():
            raise StoreError("Redis was replaced by another while it was asked")
        return replies

    def _answer(self, ask: Callable[[], Any]) -> Any:
        """What Redis answers, unless it did not a moment ago."""
        if time.monotonic() < self._silent_until:
            raise StoreError("Redis did not answer a moment ago")
        try:
            return ask()
        except self._error as error:
            self._checked = None  # who answers next may be another
            if isinstance(error, self._silence):
                self._silent_until = time.monotonic() + PAUSE_S
            # its text is left out: it may quote a command with its password
            raise StoreError(f"Redis did not answer: {type(error).__name__}") from error

    @staticmethod
    def _life(replies: list[Any]) -> str:
        return f"{replies[0][_MEMORY]}-{replies[2]}"


def _reached(account: Account, taken: Mapping[str, str], rows: int, now: float, window: float) -> Reached | None:
    """Whether an account of which Redis says so has no room for `rows`."""
    by_slot = {int(number): int(count) for number, count in taken.items()}
    seconds = full_for(by_slot, rows, account.most, now=now, window=window)
    return None if seconds is None else Reached(account.name, seconds)


class Store(Spent, Meter, Protocol):
    """Both of what is remembered."""


def open_store(url: str | None, environ: Mapping[str, str]) -> Store:
    """The store of a policy that names `url`, or none, as it is used here. Raises LoadError."""
    url, named_by = (environ[STORE], f"${STORE}") if environ.get(STORE) else (url, "the policy's store")
    if url:
        return _open_redis(url, named_by)
    if not environ.get(STATE):
        raise LoadError(
            f"the policy remembers what was spent or taken, and neither ${STATE} (a folder of this machine) nor "
            f"${STORE} (a Redis URL) is set. Start the server with `python -m deploy.server`, which sets the first"
        )
    try:
        return SqliteStore(Path(environ[STATE]) / FILE)
    except StoreError as error:
        raise LoadError(f"${STATE}: {error}. Name a folder that the server may write to") from error


def _open_redis(url: str, named_by: str) -> RedisStore:
    """The Redis at `url`; one that does not answer may come later. Raises LoadError, which never quotes the URL."""
    try:
        store = RedisStore(url)
    except ImportError as error:
        raise LoadError(f"{named_by} is a Redis, and its client is not installed: `pip install redis`") from error
    except ValueError as error:
        raise LoadError(f"{named_by}: {error}") from None
    try:
        store.check()
    except WrongRedisError as error:
        raise LoadError(f"{named_by}: {error}") from error
    except StoreError:
        pass  # it is asked again, and looked at when it answers
    return store
