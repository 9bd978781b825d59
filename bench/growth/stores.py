"""How large the stores are after days of traffic: SQLite's files and Redis, by the code that serves.

What is remembered: rows taken (for a window of WINDOW_S), spent solutions (for LIFETIME_S and GRACE_S), and accounts'
budgets (for a year). Every account asks once a day, at an hour of its own. At one noon all of them ask in every slot of
a window, and in every twelfth of a solution's life: then as many entries are there as can be, if no account pays more
often.

SQLite is handed a clock that skips the time between two requests: a week, with the windows and lifetimes of production.
Redis counts and forgets by its own clock, which nobody hands it. There a day is such a rush, with a window and a
lifetime of seconds, and the time until both are over; all three share its memory, and its size is `used_memory` of
INFO less that of an empty one.

Bounds. A page of SQLite that loses entries is joined with its neighbours once less than a third of it is in use, and
what is free is used again before a file grows. So, with the entries of a table and of its indices, and without the log
(handlers/database.py),

    SQLite <= 3 x entries x sum of (bytes of an entry's columns + HEADER) + PAGES pages
    Redis  <= entries x (the most that MEMORY USAGE says of one + OVERHEAD) + ASKED
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench.overhttp import MIB, BenchError
from bench.redis_server import RedisServer
from defenses.budget import IDLE_S, RECENT, Accounts, Asked, Budget
from defenses.gate import Calibration, Threshold
from defenses.limits import SLOTS, Limiter, Limits
from defenses.memory import Ledger, Meter, Solution, Spent
from handlers.ledger import SqliteLedger
from handlers.store import FILE, GRACE_S, RedisStore, SqliteStore
from loadtests.own_server import wait_for
from report.rows.growth import ALL, BUDGETS, LIMITS, REDIS, SOLUTIONS, SQLITE, StoreGrowthRow

DAY_S, HOURS = 86_400.0, 24
# a slot is remembered until the one after its window is over
HELD = SLOTS + 2
# as policies have them that say nothing else
WINDOW_S, LIFETIME_S = 60.0, 300.0
# requests that a worker hands to its store at once
BATCH = 32
SEED = 0
# of an entry in a page: its place, its length, its child's page, and the types of its columns
HEADER = 16
# of a file that holds nothing: its tables, their indices and what describes them; and bytes of one
PAGES, PAGE = 16, 4096
# of a key in Redis: its places in the tables of keys and of expiries while these double, and its expiry's entry
OVERHEAD = 112
# of what Redis keeps once it has been asked anything: commands, scripts and their answers
ASKED = 2**19
# of a page of SQLite, once it has lost entries
LEAST_USED = 1 / 3
# at half the speed of Redis and its client on two slow cores
REDIS_ACCOUNTS_A_SECOND = 2000
# keys of a kind that are measured
SAMPLED = 200
# Redis looks at 20 keys ten times a second, in the order of its table, and goes on at once only where a tenth of them
# has expired: the last few among many that have not are met once all others were looked at
FORGOTTEN_S, LOOKED_AT_A_SECOND = 30.0, 200

Remember = Callable[[Sequence[int]], None]
"""Put what these accounts, by their numbers, just asked into a store."""


class Clock:
    """Seconds since the epoch, which pass when somebody says so."""

    def __init__(self) -> None:
        self._now = 2e9

    def __call__(self) -> float:
        return self._now

    def let_pass(self, seconds: float) -> None:
        """So much later."""
        self._now += seconds


class Size(Protocol):
    """How large a store is now."""

    def entries(self) -> int: ...
    def mb(self) -> float: ...


@dataclass
class Week:
    """A store under traffic. let_pass: lets so many seconds pass.

    What was seen so far: operations, the most entries, the most MiB, and MiB at the end of each day.
    """

    size: Size
    let_pass: Callable[[float], None]
    operations: int = 0
    most_entries: int = 0
    peak_mb: float = 0.0
    mb: list[float] = field(default_factory=list)

    def ask(self, remember: Remember, accounts: Sequence[int]) -> None:
        """These accounts ask once each, in batches."""
        for first in range(0, len(accounts), BATCH):
            remember(accounts[first : first + BATCH])
        self.operations += len(accounts)

    def look(self) -> float:
        """MiB now."""
        mb = round(self.size.mb(), 2)
        self.peak_mb = max(self.peak_mb, mb)
        self.most_entries = max(self.most_entries, self.size.entries())
        return mb

    def rush(self, asked: Sequence[Remember], accounts: int, horizon: float) -> float:
        """All accounts ask in each slot while one of them is remembered. Returns how many seconds passed."""
        for _ in range(HELD):
            for remember in asked:
                self.ask(remember, range(accounts))
            self.look()
            self.let_pass(horizon / SLOTS)
        return HELD * horizon / SLOTS

    def row(
        self, store: str, kept: str, accounts: int, *, horizon: float, entries: int, bound: float
    ) -> StoreGrowthRow:
        """What was seen. horizon: seconds after which an entry is forgotten; entries, bound: what there can be, and its
        MiB."""
        return StoreGrowthRow(
            store=store,
            kept=kept,
            accounts=accounts,
            horizon_s=horizon,
            operations=self.operations,
            most_entries=self.most_entries,
            bound_entries=entries,
            mb=tuple(self.mb),
            peak_mb=self.peak_mb,
            bound_mb=round(bound, 2),
        )


def name(account: int) -> str:
    """A principal's, of one length whatever the number."""
    return f"customer-{account:06d}"


def rows_taken(meter: Meter, window: float) -> Remember:
    """Each account asks a row, of which it and all together may have any number."""
    limiter = Limiter(Limits(rows=10**9, total=10**12, window=window), recipe="growth", meter=meter)

    def remember(accounts: Sequence[int]) -> None:
        limiter.take([(name(account), 1) for account in accounts])

    return remember


def solutions(store: Spent, expires: Callable[[], float]) -> Remember:
    """Each account pays with a solution whose nonce is as an ALTCHA challenge's. expires: of those of now."""
    random = np.random.default_rng(SEED)
    life = store.life()

    def remember(accounts: Sequence[int]) -> None:
        store.spend([Solution(random.bytes(16).hex(), expires(), life) for _ in accounts])

    return remember


def budgets(ledger: Ledger) -> Remember:
    """Each account asks an image, but at first as many as are remembered of it; scores are those of honest ones."""
    shares = (0.5 ** np.arange(10)).tolist()
    calibration = Calibration(
        images=4000,
        centres=(0.0, 0.0),
        spreads=(1.0, 1.0),
        tail=tuple((share, 1 - share) for share in shares),
        excess=0.1,
        thresholds=(Threshold(rate=0.01, score=0.99, low=None, high=None),),
    )
    held = Accounts(Budget(level=0.01, then="observe"), calibration, recipe="growth", ledger=ledger)
    random = np.random.default_rng(SEED)
    known: set[int] = set()

    def remember(accounts: Sequence[int]) -> None:
        asked = {}
        for account in accounts:
            images = 1 if account in known else RECENT
            marks = random.integers(2**32, size=images, dtype=np.uint32)
            asked[name(account)] = Asked(random.random(images), marks)
        held.charge(asked)
        known.update(accounts)

    return remember


class File:
    """An SQLite file with its log; entries are those of `table`."""

    def __init__(self, path: Path, table: str) -> None:
        self._path = path
        self._table = table

    def entries(self) -> int:
        """Of the table."""
        return int(self._asked(f"SELECT count(*) FROM {self._table}")[0][0])

    def mb(self) -> float:
        """Of the file once it has the pages that are in its log still."""
        ((pages, page),) = self._asked("SELECT * FROM pragma_page_count, pragma_page_size")
        return int(pages * page) / MIB

    def log_mb(self) -> float:
        """Of its log; 0 where it has none."""
        log = self._path.with_name(f"{self._path.name}-wal")
        return log.stat().st_size / MIB if log.exists() else 0.0

    def entry(self) -> int:
        """Bytes of the longest entry, in the table and in its indices."""
        columns = [row[1] for row in self._asked(f"PRAGMA table_info({self._table})")]
        trees = [columns]
        for index in self._asked(f"PRAGMA index_list({self._table})"):
            if index[3] == "c":  # what stands in its CREATE INDEX; a primary key is the table's own order
                trees.append([row[2] for row in self._asked(f"PRAGMA index_xinfo({index[1]})")])
        # a number takes eight bytes at most
        stored = "CASE WHEN typeof({0}) IN ('text', 'blob') THEN length(CAST({0} AS BLOB)) ELSE 8 END"
        longest = ", ".join(f"max({stored.format(column)})" for column in columns)
        width = dict(zip(columns, self._asked(f"SELECT {longest} FROM {self._table}")[0], strict=True))
        return sum(HEADER + sum(width[column] for column in tree) for tree in trees)

    def _asked(self, statement: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            return connection.execute(statement).fetchall()


@dataclass(frozen=True)
class Kind:
    """One of what is remembered. horizon: seconds after which it is forgotten; held: entries that there can be of one
    account; shared: and of all together."""

    kept: str
    table: str
    horizon: float
    held: int
    shared: int = 0

    def entries(self, accounts: int) -> int:
        """That there can be."""
        return accounts * self.held + self.shared


KINDS = (
    Kind(LIMITS, "taken", WINDOW_S, HELD, shared=HELD),
    Kind(SOLUTIONS, "spent", LIFETIME_S + GRACE_S, HELD),
    Kind(BUDGETS, "accounts", IDLE_S, 1),
)


# a kind's keys in Redis, where an account's slots are one of them
KEYS = {
    f"{RedisStore.PREFIX}rows:*": Kind(LIMITS, "", WINDOW_S, held=1, shared=1),
    f"{RedisStore.PREFIX}spent:*": KINDS[1],
    f"{RedisStore.PREFIX}growth/*": KINDS[2],
}


def sqlite(kind: Kind, accounts: int, *, days: int) -> StoreGrowthRow:
    """What a file of this kind comes to."""
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="torchwarden-growth-") as private, contextlib.ExitStack() as opened:
        path = Path(private) / FILE
        if kind.kept == BUDGETS:
            remember = budgets(opened.enter_context(contextlib.closing(SqliteLedger(path, clock=clock))))
        else:
            store = opened.enter_context(contextlib.closing(SqliteStore(path, clock=clock)))
            paid = solutions(store, lambda: clock() + LIFETIME_S)
            remember = rows_taken(store, WINDOW_S) if kind.kept == LIMITS else paid
        file = File(path, kind.table)
        week, log_mb = Week(file, clock.let_pass), 0.0
        for day in range(days):
            for hour in range(HOURS):
                # what is remembered for longer than a day gets no more by a rush
                rushed = (day, hour) == (days // 3, HOURS // 2) and kind.horizon < DAY_S
                spent = week.rush([remember], accounts, kind.horizon) if rushed else 0.0
                week.ask(remember, range(hour, accounts, HOURS))
                clock.let_pass(DAY_S / HOURS - spent)
            week.mb.append(week.look())
            log_mb = max(log_mb, file.log_mb())
        entries = kind.entries(accounts)
        bound = (entries * file.entry() / LEAST_USED + PAGES * PAGE) / MIB
        row = week.row(SQLITE, kind.kept, accounts, horizon=kind.horizon, entries=entries, bound=bound)
        return dataclasses.replace(row, log_mb=round(log_mb, 2))


class Memory:
    """A Redis of our own; entries are its keys. What it takes without any is not counted."""

    def __init__(self, server: RedisServer) -> None:
        self._client = server.client
        self._empty = self._used()

    def entries(self) -> int:
        """All keys, but the name of the store's life."""
        return int(self._client.dbsize()) - 1

    def mb(self) -> float:
        """INFO's, over an empty one's, without what connections take."""
        return (self._used() - self._empty) / MIB

    def _used(self) -> int:
        found = self._client.info("memory")
        return int(found["used_memory"]) - int(found["mem_clients_normal"])

    def entry(self, keys: str) -> int:
        """Bytes of the longest of some keys of a pattern."""
        found = self._client.scan(match=keys, count=SAMPLED)[1]
        return OVERHEAD + max(self._client.memory_usage(key, samples=0) or 0 for key in found)


class Pace:
    """Lets seconds pass that were not spent already."""

    def __init__(self) -> None:
        self._due = time.monotonic()

    def let_pass(self, seconds: float) -> None:
        """So long after what was to pass before."""
        self._due += seconds
        time.sleep(max(0.0, self._due - time.monotonic()))


def redis(accounts: int, *, days: int) -> StoreGrowthRow:
    """What all three come to in one Redis. Raises BenchError, ServerError, StoreError."""
    # Redis can count so many in a slot, and forgets in whole seconds
    window = max(1.0, accounts / REDIS_ACCOUNTS_A_SECOND)
    with (
        tempfile.TemporaryDirectory(prefix="torchwarden-growth-") as private,
        contextlib.closing(RedisServer(Path(private))) as server,
    ):
        server.start()
        store = RedisStore(server.url)
        # the store remembers a solution for GRACE_S longer
        paid = solutions(store, lambda: time.time() + window - GRACE_S)
        asked, added = [rows_taken(store, window), paid], budgets(store)
        memory = Memory(server)
        week, widest = Week(memory, Pace().let_pass), dict.fromkeys(KEYS, 0)
        for _ in range(days):
            week.ask(added, range(accounts))
            week.let_pass = Pace().let_pass
            week.rush(asked, accounts, window)
            widest = {keys: max(known, memory.entry(keys)) for keys, known in widest.items()}
            patience = 3 * window + FORGOTTEN_S + accounts / LOOKED_AT_A_SECOND
            if wait_for(lambda: memory.entries() <= accounts, seconds=patience) is None:
                raise BenchError(f"redis: expected {accounts} keys once all else has expired, got {memory.entries()}")
            week.mb.append(week.look())
    counts = {keys: kind.entries(accounts) for keys, kind in KEYS.items()}
    bound = (sum(counts[keys] * widest[keys] for keys in KEYS) + ASKED) / MIB
    return week.row(REDIS, ALL, accounts, horizon=window, entries=sum(counts.values()), bound=bound)
