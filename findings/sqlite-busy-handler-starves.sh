#!/usr/bin/env bash
# SQLite 3.40.1 (Python 3.11's sqlite3): who gets a file that two processes write all the time.
#
# Guess:     with a busy timeout of some seconds, both wait for each other now and then and do about as much.
# Behaviour: the busy handler sleeps longer after each miss, up to 100 ms; the process that holds the lock begins its next
#            transaction microseconds after the last. With the rollback journal one process does nearly all, and the other
#            waits for hundreds of transactions, or for all of its timeout and gets "database is locked". Without SQLite's
#            handler (timeout 0) and with short waits of random length, both do as much.
# Seen:      (of three rounds the worst) 3 s, two processes: SQLite's handler 8,226 transactions and 1, longest wait 3.04 s; short random waits 12,851
#            and 10,130, longest wait 0.20 s.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat > "$folder/write.py" <<'PY'
import random
import sqlite3
import sys
import time

path, own_waits, start = sys.argv[1], sys.argv[2] == "own", float(sys.argv[3])
connection = sqlite3.connect(path, timeout=0 if own_waits else 10, isolation_level=None)
connection.execute("PRAGMA synchronous=OFF")
while time.time() < start:
    pass
done, longest = 0, 0.0
while time.time() < start + 3:
    began = time.perf_counter()
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t VALUES (1)")
            connection.execute("COMMIT")
            break
        except sqlite3.OperationalError:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not own_waits:
                break
            time.sleep(random.uniform(0.0005, 0.003))
    done += 1
    longest = max(longest, time.perf_counter() - began)
print(done, longest)
PY
python3 - "$folder" <<'PY'
import sqlite3
import subprocess
import sys
import time

folder = sys.argv[1]


def race(waits):
    path = f"{folder}/{waits}-{time.time()}.sqlite3"
    sqlite3.connect(path).execute("CREATE TABLE t (x)")
    words = [sys.executable, f"{folder}/write.py", path, waits, str(time.time() + 0.5)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ends = sorted((int(done), float(longest)) for done, longest in (each.communicate()[0].split() for each in both))
    longest = max(end[1] for end in ends)
    print(f"{waits}: {ends[1][0]} and {ends[0][0]} transactions, longest wait {longest:.2f} s")
    return longest


print("SQLite", sqlite3.sqlite_version)
theirs, ours = (max(race(waits) for _ in range(3)) for waits in ("sqlite", "own"))
assert theirs > 2 * ours, "changed: SQLite's own waits are about as short"
PY
