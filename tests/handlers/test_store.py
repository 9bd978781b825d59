"""Spent once, for any client: many threads and processes on one SQLite file, and a real Redis that comes and goes."""

from __future__ import annotations

import contextlib
import itertools
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.redis_server import RedisServer, free_port
from defenses.limits import SLOTS, slot
from defenses.memory import Account, Charge, Solution, StoreError
from handlers.errors import LoadError
from handlers.store import FILE, GRACE_S, STORE, TIMEOUT_S, RedisStore, SqliteStore, open_store
from tests.handlers.stores import full, spend, take
from tests.processes import running

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "hunter2hunter2"
LATER = 4e9  # seconds since the epoch


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, password=PASSWORD)
    server.start()
    yield server
    server.close()


@pytest.fixture
def other_redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "other").mkdir()
    server = RedisServer(tmp_path / "other", password=PASSWORD)
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "sqlite":
        made = SqliteStore(tmp_path / FILE)
        yield made
        made.close()
    else:
        yield RedisStore(request.getfixturevalue("redis_server").url)


def test_a_nonce_is_spent_once_and_only_in_its_own_life(store: Any) -> None:
    life = store.life()
    assert store.life() == life
    assert not spend(store, "a", LATER, "another life")
    assert [spend(store, nonce, LATER, life) for nonce in ("b", "b", "c", "b")] == [True, False, True, False]


def test_one_of_many_threads_spends_it(store: Any) -> None:
    life = store.life()
    nonces = [f"{number % 20}" for number in range(400)]
    with ThreadPoolExecutor(16) as pool:
        first = list(pool.map(lambda nonce: spend(store, nonce, LATER, life), nonces))
    assert Counter(itertools.compress(nonces, first)) == Counter(set(nonces))


SPENDER = """
import sys
import time
from pathlib import Path
from handlers.store import RedisStore, SqliteStore
from tests.handlers.stores import spend
where, first = sys.argv[1], int(sys.argv[2])
store = RedisStore(where) if where.startswith("redis://") else SqliteStore(Path(where))
print(store.life(), flush=True)
start = float(sys.stdin.readline())
while time.time() < start:
    pass
print(sum(spend(store, str((first + number) % 600), 4e9, store.life()) for number in range(600)))
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_processes_share_what_is_spent(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    where = str(tmp_path / FILE) if kind == "sqlite" else request.getfixturevalue("redis_server").url
    with contextlib.ExitStack() as stack:
        pipes = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        commands = [[sys.executable, "-c", SPENDER, where, str(first)] for first in (0, 200, 400)]
        processes = [stack.enter_context(running(command, **pipes)) for command in commands]
        lives = {process.stdout.readline() for process in processes}
        assert len(lives) == 1, "they opened the same store at the same time"
        start = time.time() + 0.2
        for process in processes:
            process.stdin.write(f"{start}\n")
            process.stdin.flush()
        spent = [int(process.communicate()[0]) for process in processes]
    assert sum(spent) == 600


def test_sqlite_forgets_what_has_long_expired_and_nothing_sooner(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path / FILE, clock=clock)
    life = store.life()
    assert spend(store, "a", clock.now + 300, life)
    clock.now += 300 + GRACE_S
    assert not spend(store, "a", clock.now, life)
    clock.now += 1
    assert spend(store, "a", clock.now, life)
    store.close()


def test_an_sqlite_clock_set_back_begins_a_new_life(tmp_path: Path) -> None:
    """While it was ahead, solutions were forgotten that the clock, set right, takes for good."""
    clock = Clock()
    store, other = (SqliteStore(tmp_path / FILE, clock=clock) for _ in range(2))
    life = store.life()
    assert spend(store, "a", clock.now + 300, life)
    clock.now += 300 + 2 * GRACE_S
    assert spend(store, "b", clock.now + 300, life), "which forgets a"
    clock.now = 1001.0
    assert not spend(other, "a", 1300.0, life)
    new = store.life()
    assert new == other.life() != life
    assert [spend(store, nonce, 1300.0, new) for nonce in ("c", "c")] == [True, False]
    assert other.life() == new
    store.close()
    other.close()


def test_an_sqlite_clock_that_is_corrected_a_little_changes_nothing(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path / FILE, clock=clock)
    life = store.life()
    assert spend(store, "a", 2000.0, life)
    clock.now -= GRACE_S
    assert store.life() == life
    assert not spend(store, "a", 2000.0, life)
    clock.now -= 1
    assert store.life() != life
    store.close()


def test_a_silent_redis_holds_up_one_question_and_not_all_of_a_batch() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        begun = time.monotonic()
        for ask in (store.life, lambda: spend(store, "a", LATER, "b"), lambda: take(store, [Account("a", 1)], 1, 60.0)):
            with pytest.raises(StoreError, match="Redis did not answer"):
                ask()
        assert TIMEOUT_S <= time.monotonic() - begun < 2 * TIMEOUT_S


def test_a_redis_that_was_silent_is_asked_again_after_a_pause(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.store.PAUSE_S", 0.5)
    store = RedisStore(redis_server.url)
    life = store.life()
    redis_server.client.client_pause(int(1000 * (TIMEOUT_S + 0.2)))
    with pytest.raises(StoreError, match="TimeoutError"):
        store.life()
    with pytest.raises(StoreError, match="a moment ago"):
        store.life()
    time.sleep(0.5)
    assert store.life() == life


def test_sqlite_keeps_its_life_with_its_file_and_gets_another_with_a_new_one(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / FILE)
    life = first.life()
    assert spend(first, "a", LATER, life)
    first.close()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    again = SqliteStore(tmp_path / FILE)
    assert again.life() == life
    assert not spend(again, "a", LATER, life)
    again.close()
    (tmp_path / FILE).unlink()
    new = SqliteStore(tmp_path / FILE)
    assert new.life() != life
    assert not spend(new, "a", LATER, life), "what the lost file knew is not accepted again"
    new.close()


def test_a_file_that_is_no_store_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("something else, long enough to be no empty database" * 100)
    with pytest.raises(StoreError, match=r"state\.sqlite3 cannot be used as a store: DatabaseError"):
        SqliteStore(tmp_path / FILE)
    store = SqliteStore(tmp_path / "other")
    store.close()
    with pytest.raises(StoreError, match="the SQLite store failed: ProgrammingError"):
        spend(store, "a", LATER, store.life())


def test_redis_forgets_what_has_long_expired(redis_server: RedisServer) -> None:
    clock = Clock()
    store = RedisStore(redis_server.url, clock=clock)
    assert spend(store, "a", clock.now + 300.5, store.life())
    assert 300 + GRACE_S - 5 < redis_server.client.ttl("torchwarden:spent:a") <= 300 + GRACE_S


def test_a_redis_that_dies_is_a_store_error_and_one_that_comes_back_has_another_life(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    life = store.life()
    assert spend(store, "a", LATER, life)
    redis_server.kill()
    for ask in (store.life, lambda: spend(store, "a", LATER, life)):
        with pytest.raises(StoreError, match="Redis did not answer: ConnectionError") as caught:
            ask()
        assert PASSWORD not in str(caught.value)
    redis_server.start()
    assert store.life() != life
    assert not spend(store, "a", LATER, life)
    assert spend(store, "b", LATER, store.life()), "and it serves again, without a restart of ours"


def test_a_redis_restored_from_an_old_dump_has_another_life(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    life = store.life()
    redis_server.dump()
    assert spend(store, "a", LATER, life)
    redis_server.kill()
    redis_server.start()
    assert redis_server.client.exists("torchwarden:life"), "it did read its dump"
    assert not spend(store, "a", LATER, life)


def test_a_redis_that_was_emptied_has_another_life(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    life = store.life()
    assert spend(store, "a", LATER, life)
    redis_server.client.flushall()
    assert not spend(store, "a", LATER, life)


def test_a_redis_that_hangs_or_refuses_the_password_is_a_store_error(redis_server: RedisServer) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(StoreError, match="TimeoutError"):
            RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}").life()
    with pytest.raises(StoreError, match="AuthenticationError") as caught:
        RedisStore(redis_server.url.replace(PASSWORD, "hunter3")).life()
    assert "hunter3" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://:hunter2@host", "redis://:hun/ter2@host:x", "redis://host?hunter2=1"])
def test_a_url_that_is_none_is_a_load_error_that_does_not_quote_it(url: str) -> None:
    with pytest.raises(LoadError, match=r"\$TORCHWARDEN_STORE: expected redis://.*, got another text") as caught:
        open_store(None, {"TORCHWARDEN_STORE": url})
    assert "ter2" not in str(caught.value)


def test_the_environment_goes_before_the_policy_and_sqlite_is_the_default(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    environ = {"TORCHWARDEN_STATE": str(tmp_path)}
    sqlite: Any = open_store(None, environ)
    assert spend(sqlite, "a", LATER, sqlite.life())
    assert (tmp_path / FILE).is_file()
    sqlite.close()
    absent = "redis://127.0.0.1:1/0"
    with pytest.raises(StoreError, match="Redis did not answer"):
        open_store(absent, environ).life()
    assert open_store(absent, {**environ, "TORCHWARDEN_STORE": redis_server.url}).life()


EVICTING = ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
WRONG = {
    "evicting": (
        EVICTING,
        r"maxmemory_policy: expected noeviction, got allkeys-lru: `CONFIG SET maxmemory-policy noevi",
    ),
    "that would evict": (("--maxmemory-policy", "volatile-ttl"), "maxmemory_policy: expected noeviction, got volatile"),
    "cluster": (("--cluster-enabled", "yes"), r"cluster_enabled: expected 0, got 1: .*`cluster-enabled no`"),
    "replica": (("--replicaof", "127.0.0.1 1"), r"role: expected master, got slave: .*`REPLICAOF NO ONE`"),
}


@contextlib.contextmanager
def wrong_redis(folder: Path, kind: str) -> Iterator[RedisServer]:
    """Not yet started."""
    # the port that a cluster's members talk at would else be 10000 higher, and there may be none
    port = ("--cluster-port", str(free_port())) if kind == "cluster" else ()
    server = RedisServer(folder, password=PASSWORD, options=(*WRONG[kind][0], *port))
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("kind", WRONG)
def test_a_redis_of_the_wrong_kind_is_refused_when_the_store_opens(kind: str, tmp_path: Path) -> None:
    with wrong_redis(tmp_path, kind) as server:
        server.start()
        for named_by, url, environ in (("policy's store", server.url, {}), (f"${STORE}", None, {STORE: server.url})):
            with pytest.raises(LoadError, match=WRONG[kind][1]) as caught:
                open_store(url, environ)
            assert f"{named_by}: this Redis cannot be the store: " in str(caught.value)
            assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("kind", WRONG)
def test_a_redis_of_the_wrong_kind_that_comes_later_is_a_store_error_at_every_question(
    kind: str, tmp_path: Path
) -> None:
    with wrong_redis(tmp_path, kind) as server:
        store = open_store(server.url, {})  # nobody answers yet
        server.start()
        asked = (store.life, lambda: spend(store, "a", LATER, "b"), lambda: full(store, [Account("own", 5)], 60.0))
        for ask in (*asked, *asked):
            with pytest.raises(StoreError, match=WRONG[kind][1]):
                ask()


def test_all_that_is_wrong_with_a_redis_is_said_at_once_and_a_mended_one_serves(redis_server: RedisServer) -> None:
    redis_server.client.config_set("maxmemory-policy", "allkeys-random")
    redis_server.client.replicaof("127.0.0.1", 1)
    store = RedisStore(redis_server.url)
    with pytest.raises(StoreError, match=r"role: .*; maxmemory_policy: "):
        store.life()
    redis_server.promote()
    redis_server.client.config_set("maxmemory-policy", "noeviction")
    assert spend(store, "a", LATER, store.life())


def test_a_sentinel_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "sentinel.conf"
    path.touch()
    with contextlib.closing(RedisServer(tmp_path, options=(str(path), "--sentinel"))) as server:
        server.start()
        with pytest.raises(LoadError, match=r"role: expected master, got nothing: name the primary itself.*a Sentinel"):
            open_store(server.url, {})


@pytest.mark.parametrize("question", ["life", "full"])
def test_another_process_at_the_address_is_looked_at_and_the_same_one_is_not(
    question: str, redis_server: RedisServer, other_redis: RedisServer
) -> None:
    store = RedisStore(redis_server.url)
    asks = {"life": store.life, "full": lambda: full(store, [Account("own", 5)], 60.0)}
    asks[question]()
    seen = redis_server.client.info("commandstats")["cmdstat_info"]["calls"]
    for _ in range(5):
        asks[question]()
    asked = redis_server.client.info("commandstats")["cmdstat_info"]["calls"] - seen
    assert asked == 5 + 1, "one INFO within each transaction, and this test's own"
    address = redis_server.port
    other_redis.client.config_set("maxmemory-policy", "allkeys-lru")
    redis_server.move(free_port())
    other_redis.move(address)
    for _ in range(2):
        with pytest.raises(StoreError, match="maxmemory_policy: expected noeviction, got allkeys-lru"):
            asks[question]()
    other_redis.client.config_set("maxmemory-policy", "noeviction")
    asks[question]()


def test_a_promoted_replica_has_another_life_and_an_old_primary_that_comes_back_its_own(
    redis_server: RedisServer, other_redis: RedisServer
) -> None:
    """The primary lives on where nobody reaches it, and its replica serves; then it comes back as it was."""
    other_redis.follow(redis_server)
    store, address = RedisStore(redis_server.url), redis_server.port
    first = store.life()
    assert spend(store, "before", LATER, first)
    redis_server.move(free_port())
    other_redis.promote()
    other_redis.move(address)
    second = store.life()
    assert second != first
    assert not any(spend(store, nonce, LATER, first) for nonce in ("before", "unspent"))
    assert spend(store, "between", LATER, second)
    other_redis.move(free_port())
    redis_server.move(address)
    assert store.life() == first
    assert [spend(store, nonce, LATER, first) for nonce in ("before", "after", "after")] == [False, True, False]
    assert not spend(store, "between", LATER, second)


def test_a_primary_that_took_another_memory_for_its_own_has_another_life(
    redis_server: RedisServer, other_redis: RedisServer
) -> None:
    """The same process throughout, and the mark of its life is the same; what was spent is not there any more."""
    other_redis.follow(redis_server)
    store = RedisStore(redis_server.url)
    life = store.life()
    other_redis.promote()
    assert spend(store, "a", LATER, life), "the other does not know"
    redis_server.follow(other_redis)
    with pytest.raises(StoreError):
        spend(store, "a", LATER, life)
    with pytest.raises(StoreError, match="role: expected master, got slave"):
        spend(store, "a", LATER, life)
    redis_server.promote()
    assert not redis_server.client.exists("torchwarden:spent:a")
    assert not spend(store, "a", LATER, life)
    assert store.life() != life


def test_a_primary_restored_from_a_dump_that_names_its_history_has_another_life(
    redis_server: RedisServer, other_redis: RedisServer
) -> None:
    """A primary with a replica writes that name into its dump, so that replicas need not start over."""
    other_redis.follow(redis_server)
    store = RedisStore(redis_server.url)
    life = store.life()
    redis_server.dump()
    assert spend(store, "a", LATER, life)
    redis_server.kill()
    redis_server.start()
    assert redis_server.client.info("replication")["master_replid2"] in life, "the dump did name it"
    assert not spend(store, "a", LATER, life)


def test_without_a_place_for_it_the_load_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"neither \$TORCHWARDEN_STATE .* nor \$TORCHWARDEN_STORE .* deploy\.server"):
        open_store(None, {})
    with pytest.raises(LoadError, match=r"\$TORCHWARDEN_STATE: .*absent.*cannot be used.*that the server may write to"):
        open_store(None, {"TORCHWARDEN_STATE": str(tmp_path / "absent")})


def test_rows_are_taken_in_every_account_or_in_none(store: Any) -> None:
    own, total = Account("own", 10), Account("total", 12)
    assert take(store, [own, total], 10, 60.0) is None
    name, seconds = take(store, [own, total], 1, 60.0)
    assert name == "own"
    assert 55 < seconds <= 65
    assert take(store, [Account("other", 10), total], 3, 60.0)[0] == "total"
    assert take(store, [Account("other", 10), total], 2, 60.0) is None
    assert take(store, [Account("other", 10)], 8, 60.0) is None, "the refused three were counted nowhere"


def test_whether_an_account_is_full_is_reported_without_counting(store: Any) -> None:
    own, total = Account("own", 3), Account("total", 5)
    assert full(store, [own, total], 60.0) is None
    assert take(store, [own, total], 2, 60.0) is None
    for _ in range(5):
        assert full(store, [own, total], 60.0) is None
    assert take(store, [own, total], 1, 60.0) is None
    name, seconds = full(store, [own, total], 60.0)
    assert name == "own"
    assert 55 < seconds <= 65
    assert take(store, [Account("other", 3), total], 2, 60.0) is None
    assert full(store, [Account("third", 3), total], 60.0)[0] == "total"


def test_a_batch_is_answered_in_order_as_its_requests_would_be_alone(store: Any) -> None:
    life = store.life()
    asked = [("a", life), ("b", "another life"), ("a", life), ("c", life)]
    assert store.spend([Solution(nonce, LATER, each) for nonce, each in asked]) == [True, False, False, True]
    own, other, total = Account("own", 10), Account("other", 11), Account("total", 14)
    rows = [([own, total], 6), ([own, total], 5), ([other, total], 7), ([other], 3), ([own, total], 4)]
    found = store.take([Charge(*each) for each in rows], 60.0)
    assert [reached and reached.account for reached in found] == [None, "own", None, None, "total"]
    assert all(55 < reached.seconds <= 65 for reached in found if reached)
    room = store.full([[total], [other, total], [own, total], [Account("new", 1)]], 60.0)
    assert room == [None, None, None, None]
    assert take(store, [total], 1, 60.0) is None
    room = store.full([[other, total], [own, total], [Account("new", 1)]], 60.0)
    assert [reached and reached.account for reached in room] == ["total", "total", None]
    assert store.spend([]) == []
    assert store.take([], 60.0) == []
    assert store.full([], 60.0) == []


def test_a_window_ends(store: Any) -> None:
    account = [Account("brief", 5)]
    assert take(store, account, 5, 1.0) is None
    _, seconds = take(store, account, 5, 1.0)
    assert 0 < seconds <= 1 + 1 / SLOTS
    time.sleep(seconds + 0.01)
    assert take(store, account, 5, 1.0) is None


def test_many_threads_take_no_more_than_there_is(store: Any) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: take(store, [Account("own", 100)], 3, 60.0), range(100)))
    assert sum(each is None for each in results) == 33


def holding(path: Path, seconds: float) -> threading.Thread:
    """Hold the file's lock, as a process does that has been put to sleep within its transaction."""
    held = threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(path)
        connection.execute("BEGIN IMMEDIATE")
        held.set()
        time.sleep(seconds)
        connection.rollback()
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(5)
    return thread


def test_sqlite_reads_the_clock_when_it_has_the_lock_and_not_before(tmp_path: Path) -> None:
    """Rows that waited for the lock are counted when they are taken: a window that begins there holds no more."""
    clock = Clock()
    store = SqliteStore(tmp_path / FILE, clock=lambda: clock.now)
    life = store.life()
    for ask in (lambda: take(store, [Account("own", 5)], 5, 60.0), lambda: spend(store, "a", 1300.0, life)):
        thread = holding(tmp_path / FILE, 0.2)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask)
            time.sleep(0.1)
            clock.now += 30.0  # while it waits
            asked.result(5)
        thread.join()
    assert store._file.rows("SELECT slot FROM taken") == [(slot(1030.0, 60.0),)]
    assert store._file.rows("SELECT latest FROM lives") == [(1060.0,)]
    store.close()


TAKER = """
import random
import sqlite3
import sys
import time
from pathlib import Path
from defenses.memory import Account
from handlers.store import RedisStore, SqliteStore
from tests.handlers.stores import take
where, seed, window, most = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
chance, read = random.Random(seed), [0.0]
def clock():
    read[0] = time.time()
    return read[0]
sqlite = not where.startswith("redis://")
store = SqliteStore(Path(where), clock=clock) if sqlite else RedisStore(where)
other = sqlite3.connect(where, timeout=5) if sqlite else None
print("ready", flush=True)
end = float(sys.stdin.readline())
while time.time() < end:
    if other is not None and chance.random() < 0.1:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(chance.uniform(0, window / 2))
        other.rollback()
    rows, began = chance.randint(1, 7), time.time()
    if take(store, [Account("own", most)], rows, window) is None:
        print(began, read[0], time.time(), rows, flush=True)
    time.sleep(chance.uniform(0, window / 2))
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_no_window_holds_more_than_the_limit_whoever_waits_for_whom(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Eight processes ask for all they can get, and hold the file up at random; then every window is looked at."""
    where = str(tmp_path / FILE) if kind == "sqlite" else request.getfixturevalue("redis_server").url
    window, most = 0.6, 60
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, where, str(seed), str(window), str(most)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    end = time.time() + 3.0
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{end}\n")
        process.stdin.flush()
    results = [process.communicate()[0] for process in processes]
    taken = [tuple(map(float, line.split())) for lines in results for line in lines.splitlines()]
    assert sum(rows for *_, rows in taken) > 2 * most, "several windows were filled"
    for began, read, done, _ in taken:
        assert kind == "redis" or began <= read <= done
    # certain to lie within a window: by the clock that was read, or, of Redis, what began and was answered within it
    spans = [(read, read, rows) if kind == "sqlite" else (began, done, rows) for began, read, done, rows in taken]
    windows = {
        first: sum(rows for began, done, rows in spans if first <= began and done < first + window)
        for first in {began for began, _, _ in spans}
    }
    assert max(windows.values()) <= most


def test_sqlite_forgets_rows_of_windows_gone_by_and_of_a_clock_set_back(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path / FILE, clock=clock)
    assert take(store, [Account("own", 5)], 5, 60.0) is None
    clock.now -= 600
    assert take(store, [Account("own", 5)], 5, 60.0) is None
    clock.now += 1200
    assert take(store, [Account("own", 5)], 5, 60.0) is None
    assert store._file.rows("SELECT COUNT(*) FROM taken") == [(1,)]
    store.close()


def test_redis_forgets_rows_of_windows_gone_by(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    assert take(store, [Account("own", 5)], 5, 60.0) is None
    assert 60 < redis_server.client.ttl("torchwarden:rows:own") <= 70
    redis_server.kill()
    with pytest.raises(StoreError, match="Redis did not answer: ConnectionError"):
        take(store, [Account("own", 5)], 5, 60.0)
    redis_server.start()
    assert take(store, [Account("own", 5)], 5, 60.0) is None, "the script is sent again"
