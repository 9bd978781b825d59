#!/usr/bin/env bash
# SQLite 3.40.1 (Python's sqlite3): PRAGMA journal_mode=WAL where no file of shared memory can be made.
#
# Guess:     the pragma answers with the mode that the file really has: "delete" where WAL cannot be had.
# Behaviour: it answers "wal" and writes that into the file. Every statement after it fails, in this process and in every
#            later one, since each needs the -shm file before it can read how to go back. (A folder in the place of the
#            -shm file stands in for a file system without shared memory: there mmap fails instead.)
# Seen:      pragma: wal; create: attempt to write a readonly database; back to delete: the same error.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
mkdir "$folder/file.sqlite3-shm"
python3 - "$folder/file.sqlite3" <<'PY'
import sqlite3
import sys


def said(connection, statement):
    try:
        return str(connection.execute(statement).fetchall())
    except sqlite3.OperationalError as error:
        return str(error)


connection = sqlite3.connect(sys.argv[1])
answers = [said(connection, each) for each in ("PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")]
answers.append(said(connection, "PRAGMA journal_mode=DELETE"))
print(f"SQLite {sqlite3.sqlite_version}; pragma: {answers[0]}; create: {answers[1]}; back to delete: {answers[2]}")
assert answers[0] == "[('wal',)]", "changed: it answers with the mode that it has"
assert answers[1].startswith(("attempt to write", "unable to open", "disk I/O")), "changed: the file can be used"
assert answers[2] == answers[1], "changed: there is a way back"
PY
