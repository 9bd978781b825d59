"""Accounts are revised by one at a time, outlive who wrote them, and are forgotten when they are idle, not before."""

from __future__ import annotations

import os
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.redis_server import RedisServer
from defenses.memory import StoreError
from handlers.errors import LoadError
from handlers.ledger import BUDGETS, SWEPT_S, SqliteLedger, open_ledger
from handlers.store import STORE, RedisStore

ROOT = Path(__file__).resolve().parents[2]
YEAR = 365 * 86_400.0


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "sqlite":
        made = SqliteLedger(tmp_path / "budgets.sqlite3")
        yield made
        made.close()
    else:
        yield RedisStore(request.getfixturevalue("redis_server").url)


def more(old: Sequence[bytes | None]) -> list[bytes]:
    """Each account's number and one."""
    return [struct.pack("<q", 1 + (0 if each is None else struct.unpack("<q", each)[0])) for each in old]


def numbers(ledger: Any, *names: str) -> list[int | None]:
    seen: list[bytes | None] = []

    def look(old: Sequence[bytes | None]) -> list[bytes]:
        seen[:] = old
        return [each or struct.pack("<q", 0) for each in old]

    ledger.revise(names, look, idle=YEAR)
    return [None if each is None else struct.unpack("<q", each)[0] for each in seen]


def test_a_new_account_has_no_state_and_then_the_one_it_was_given(ledger: Any) -> None:
    assert numbers(ledger, "digits/budget/acme") == [None]
    ledger.revise(["digits/budget/acme", "digits/budget/other"], more, idle=YEAR)
    assert numbers(ledger, "digits/budget/other", "digits/budget/acme", "digits/budget/third") == [1, 1, None]
    ledger.revise([], more, idle=YEAR)


def test_a_state_may_hold_any_bytes(ledger: Any) -> None:
    state = bytes(range(256))
    ledger.revise(["a"], lambda old: [state], idle=YEAR)
    found: list[bytes | None] = []
    ledger.revise(["a"], lambda old: found.extend(old) or [state], idle=YEAR)
    assert found == [state]


def test_no_change_is_lost_among_threads(ledger: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: ledger.revise(["a", f"b{number % 3}"], more, idle=YEAR), range(60)))
    assert numbers(ledger, "a", "b0", "b1", "b2") == [60, 20, 20, 20]


WRITES = """
import struct, sys
from pathlib import Path
from handlers.ledger import SqliteLedger
ledger = SqliteLedger(Path(sys.argv[1]))
def more(old):
    return [struct.pack("<q", 1 + (0 if each is None else struct.unpack("<q", each)[0])) for each in old]
for number in range(10_000):
    ledger.revise(["a"], more, idle=1e6)
    print(number + 1, flush=True)
"""


def test_a_worker_that_is_killed_has_written_what_it_said(tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite3"
    worker = subprocess.Popen([sys.executable, "-c", WRITES, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    for _ in range(50):
        said = int(worker.stdout.readline())
    os.kill(worker.pid, signal.SIGKILL)
    said = max([said, *(int(line) for line in worker.stdout.read().split("\n")[:-1] if line)])
    worker.wait()
    worker.stdout.close()
    again = SqliteLedger(path)
    (found,) = numbers(again, "a")
    again.close()
    assert found is not None
    assert said <= found <= said + 1, "what it had not said yet may be there"


def test_an_idle_account_is_forgotten_and_a_busy_one_is_not(tmp_path: Path) -> None:
    now = [1000.0]
    ledger = SqliteLedger(tmp_path / "budgets.sqlite3", clock=lambda: now[0])
    ledger.revise(["idle", "busy"], more, idle=YEAR)
    now[0] += YEAR / 2
    ledger.revise(["busy"], more, idle=YEAR)
    now[0] += YEAR / 2 + SWEPT_S
    assert numbers(ledger, "idle", "busy") == [None, 2]
    ledger.close()


def test_redis_forgets_by_itself(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    store.revise(["a"], more, idle=100.5)
    assert 90 < store._redis.ttl("torchwarden:a") <= 101


def test_a_store_that_cannot_be_asked_is_an_error(redis_server: RedisServer, tmp_path: Path) -> None:
    store = RedisStore(redis_server.url)
    store.revise(["a"], more, idle=YEAR)
    redis_server.kill()
    with pytest.raises(StoreError, match="Redis did not answer: ConnectionError"):
        store.revise(["a"], more, idle=YEAR)
    (tmp_path / "no").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="no cannot hold accounts: DatabaseError"):
        SqliteLedger(tmp_path / "no")


def test_an_account_that_others_never_leave_alone_is_an_error(redis_server: RedisServer) -> None:
    store, other = RedisStore(redis_server.url), RedisStore(redis_server.url)

    def meddled(old: Sequence[bytes | None]) -> list[bytes]:
        other.revise(["a"], more, idle=YEAR)
        return more(old)

    with pytest.raises(StoreError, match="accounts were changed by others 100 times while they were revised"):
        store.revise(["a"], meddled, idle=YEAR)


def test_where_accounts_are_kept(redis_server: RedisServer, tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite3"
    assert isinstance(open_ledger(None, {BUDGETS: str(path), STORE: redis_server.url}), RedisStore)
    assert isinstance(open_ledger(redis_server.url, {BUDGETS: str(path)}), RedisStore)
    opened = open_ledger(None, {BUDGETS: str(path)})
    assert isinstance(opened, SqliteLedger)
    opened.close()
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    file.close()
    with pytest.raises(LoadError, match=r"neither \$TORCHWARDEN_BUDGETS .* nor \$TORCHWARDEN_STORE .* is set"):
        open_ledger(None, {})
    with pytest.raises(LoadError, match=r"\$TORCHWARDEN_BUDGETS: .*FileNotFoundError.*Name a file in a folder"):
        open_ledger(None, {BUDGETS: str(tmp_path / "nowhere" / "file")})
