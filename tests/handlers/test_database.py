"""Processes that write one SQLite file: nobody starves, nothing that was spent is lost, with a log or without one."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from handlers.database import LOG_BYTES, Database, boot, carries_log
from handlers.store import FILE, SqliteStore
from tests.handlers.stores import spend
from tests.processes import running

ROOT = Path(__file__).resolve().parents[2]
LATER = 4e9  # seconds since the epoch

# spends and counts without a pause from a moment on, so many at a time, as long as it is told, and says what it met
HAMMER = """
import json, sys, time
from pathlib import Path
from defenses.memory import Account, Charge, Solution, StoreError
from handlers.store import SqliteStore
store, me, batch = SqliteStore(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
charges, life = [Charge([Account(me, 10**9), Account("total", 10**9)], 1)] * batch, store.life()
print("ready", flush=True)
start, seconds = json.loads(sys.stdin.readline())
while time.time() < start:
    pass
done, refused, longest = 0, [], 0.0
while time.time() < start + seconds:
    began = time.perf_counter()
    try:
        if done // batch % 2:
            assert store.take(charges, 60.0) == [None] * batch
        else:
            assert all(store.spend([Solution(f"{me}-{done + number}", 4e9, life) for number in range(batch)]))
        done += batch
    except StoreError as error:
        refused.append(str(error))
    longest = max(longest, time.perf_counter() - began)
print(json.dumps([done, refused, longest]))
"""


def hammered(path: Path, workers: int, batch: int, seconds: float) -> tuple[list[int], list[str], float]:
    """How many requests each worker got done, who was refused, and the longest wait."""
    with contextlib.ExitStack() as stack:
        pipes = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        commands = [
            [sys.executable, "-c", HAMMER, str(path), f"worker-{number}", str(batch)] for number in range(workers)
        ]
        processes = [stack.enter_context(running(command, **pipes)) for command in commands]
        assert {process.stdout.readline() for process in processes} == {"ready\n"}
        for process in processes:
            process.stdin.write(json.dumps([time.time() + 0.3, seconds]) + "\n")
            process.stdin.flush()
        ends = [json.loads(process.communicate()[0]) for process in processes]
    return [end[0] for end in ends], [text for end in ends for text in end[1]], max(end[2] for end in ends)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(
    ("workers", "seconds"), [(2, 2.0), pytest.param(8, 20.0, marks=(pytest.mark.drill, pytest.mark.alone))]
)
def test_workers_that_write_all_the_time_starve_nobody(
    workers: int, seconds: float, batch: int, tmp_path: Path
) -> None:
    done, refused, longest = hammered(tmp_path / FILE, workers, batch, seconds)
    print(f"{sum(done) / seconds:.0f} requests/s, {min(done)} to {max(done)} a worker, longest {longest:.3f} s")
    assert not refused
    assert longest <= 1.0
    assert min(done) > max(done) / 5


# says the nonces of a batch when they are spent
SPENDER = """
import sys
from pathlib import Path
from defenses.memory import Solution
from handlers.store import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
life = store.life()
number = 0
while True:
    batch = [f"{sys.argv[2]}-{number}-{each}" for each in range(4)]
    assert all(store.spend([Solution(nonce, 4e9, life) for nonce in batch]))
    print(*batch, flush=True)
    number += 1
"""


def test_what_was_spent_stays_spent_whoever_is_killed(tmp_path: Path) -> None:
    """kill -9 of processes in the middle of what they do, some of them the last to have the file open: what an answer
    told is kept, and of a batch that none told of, all or nothing."""
    life = SqliteStore(tmp_path / FILE).life()
    said: list[str] = []
    for turn in range(6):
        with contextlib.ExitStack() as stack:
            commands = [[sys.executable, "-c", SPENDER, str(tmp_path / FILE), f"{turn}-{each}"] for each in range(3)]
            pipes = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
            processes = [stack.enter_context(running(command, **pipes)) for command in commands]
            said += [nonce for process in processes for nonce in process.stdout.readline().split()]
            time.sleep(0.05 + 0.03 * turn)
            for process in processes:
                process.send_signal(signal.SIGKILL)
            # a line that the kill cut off is no answer
            lines = [line for process in processes for line in process.stdout.read().split("\n")[:-1]]
            said += [nonce for line in lines for nonce in line.split()]
        store = SqliteStore(tmp_path / FILE)
        assert store.life() == life
        assert not [nonce for nonce in said if spend(store, nonce, LATER, life)]
        kept = Counter(nonce.rpartition("-")[0] for (nonce,) in store._file.rows("SELECT nonce FROM spent"))
        assert set(kept.values()) == {4}
        store.close()
    assert len(said) > 200, "some were killed in the middle"


def test_a_log_is_kept_where_the_file_system_carries_one(tmp_path: Path) -> None:
    assert carries_log(tmp_path)
    assert not list(tmp_path.iterdir())
    for log, mode in ((True, "wal"), (False, "delete")):
        file = Database(tmp_path / mode, "CREATE TABLE IF NOT EXISTS t (x)", patience=1.0, log=log)
        assert file.rows("PRAGMA journal_mode") == [(mode,)]
        assert (tmp_path / mode).stat().st_mode & 0o777 == 0o600
        file.close()


# SQLite's file of shared memory takes 32 KiB at once: a smaller limit is a file system without such files
WITHOUT = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (32_000, 32_000))
from handlers.store import SqliteStore
from tests.handlers.stores import spend
store = SqliteStore(Path(sys.argv[1]))
life = store.life()
print(store._file.rows("PRAGMA journal_mode"), spend(store, "a", 4e9, life), spend(store, "a", 4e9, life))
"""


def test_without_shared_memory_there_is_a_journal(tmp_path: Path) -> None:
    command = [sys.executable, "-B", "-c", WITHOUT, str(tmp_path / FILE)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.stdout == "[('delete',)] True False\n", said.stderr
    with SqliteFile(tmp_path / FILE) as store:
        assert not spend(store, "a", LATER, store.life()), "a process that can share memory reads the same file"


class SqliteFile(contextlib.AbstractContextManager["SqliteStore"]):
    """A store that is closed at the end."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.store = SqliteStore(path, **options)

    def __enter__(self) -> SqliteStore:
        return self.store

    def __exit__(self, *_: object) -> None:
        self.store.close()


def test_the_machine_s_start_ends_a_life(tmp_path: Path) -> None:
    """The file is not synced: what was spent just before the power failed may be missing after it."""
    with SqliteFile(tmp_path / FILE, booted=lambda: "monday") as before:
        life = before.life()
        assert spend(before, "a", LATER, life)
    with SqliteFile(tmp_path / FILE, booted=lambda: "tuesday") as after:
        assert after.life() != life
        assert not spend(after, "b", LATER, life)
        assert spend(after, "b", LATER, after.life())
    assert len(boot()) == 16
    assert boot() == boot()


def test_work_that_fails_changes_nothing_and_is_not_done_again(tmp_path: Path) -> None:
    file = Database(tmp_path / "f", "CREATE TABLE t (x UNIQUE)", patience=1.0, log=True)
    tries = []

    def work() -> None:
        tries.append(file.change("INSERT INTO t VALUES (1)"))
        file.change("INSERT INTO t VALUES (1)")

    with pytest.raises(sqlite3.IntegrityError):
        file.changed(work)
    assert tries == [1]
    assert file.rows("SELECT * FROM t") == []
    assert file.changed(lambda: file.change("INSERT INTO t VALUES (2)")) == 1
    file.close()


@pytest.mark.parametrize("log", [True, False])
def test_patience_ends(log: bool, tmp_path: Path) -> None:
    file, other = (Database(tmp_path / "f", patience=0.3, log=log) for _ in range(2))
    other.rows("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        file.changed(lambda: None)
    assert 0.3 <= time.monotonic() - began < 1.0
    other.rows("ROLLBACK")
    file.changed(lambda: None)
    for each in (file, other):
        each.close()


def test_a_log_that_one_large_change_made_long_is_cut_when_it_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    log = tmp_path / "file-wal"
    file = Database(path, "CREATE TABLE IF NOT EXISTS entries (number INTEGER, filling BLOB)", patience=1.0, log=True)
    insert = "INSERT INTO entries VALUES (?, randomblob(4000))"
    file.changed(lambda: [file.change(insert, number) for number in range(3000)])
    assert log.stat().st_size > 2 * LOG_BYTES
    for number in range(3):
        file.changed(functools.partial(file.change, insert, number))
    assert log.stat().st_size <= LOG_BYTES
    file.close()
