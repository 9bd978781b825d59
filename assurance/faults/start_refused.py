"""Faults before the start: a damaged archive, no key, a key that others may read, an invalid key.

TorchServe itself would skip the archive with a line in its log and serve the rest, and retry a worker that fails to
load for five minutes. The start must end with a message that names the file and the remedy, and leave nothing running.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psutil

from handlers.key import make_key
from loadtests.own_server import Instance, repack
from report.rows.bounds import Bound
from report.rows.faults import FaultRow

SOON_S = 60.0
KEY = "TORCHWARDEN_KEY_FILE"


def damaged(archive: Path, key: Path) -> tuple[Path, str]:
    """One byte in the middle of the archive is another."""
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    return key, archive.name


def cut_short(archive: Path, key: Path) -> tuple[Path, str]:
    """The archive's second half is missing, as after a copy that was interrupted."""
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    return key, archive.name


def no_key(archive: Path, key: Path) -> tuple[Path, str]:
    """The key's file is not there."""
    del archive
    key.unlink()
    return key, str(key)


def readable_key(archive: Path, key: Path) -> tuple[Path, str]:
    """Everybody may read the key's file."""
    del archive
    key.chmod(0o644)
    return key, f"chmod 600 {key}"


def key_of_words(archive: Path, key: Path) -> tuple[Path, str]:
    """The key's file holds something else."""
    del archive
    key.write_text("correct horse battery staple\n")
    return key, str(key)


CASES: dict[str, Callable[[Path, Path], tuple[Path, str]]] = {
    "damaged archive": damaged,
    "archive cut short": cut_short,
    "no key": no_key,
    "world-readable key": readable_key,
    "a key that is none": key_of_words,
}


def measure(archive: Path, run_folder: Path, case: str, *, run: int) -> FaultRow:
    """Try to start a copy of `archive`, whose policy needs a key, with a key of its own."""
    with TemporaryDirectory(prefix="torchwarden-") as folder:
        copy = repack(archive, Path(folder) / archive.name, lambda config: None)
        key = Path(folder) / "torchwarden.key"
        make_key(key)
        used, named = CASES[case](copy, key)
        instance = Instance("refused", run_folder, (copy,), environ={**os.environ, KEY: str(used)})
        begun = perf_counter()
        done = instance.try_start()
        seconds = perf_counter() - begun
    return FaultRow(
        "start_refused",
        case,
        run,
        None,
        None,
        bounds=(
            Bound("starts that ended well", float(done.returncode == 0), 0),
            Bound("processes left running", len(_left(instance.folder)), 0),
            Bound("ports left announced", float((instance.folder / "server.json").exists()), 0),
            Bound("messages that do not name what to mend", float(named not in done.stderr), 0),
            Bound("keys in the message", float(b"correct horse" in done.stderr.encode()), 0),
            Bound("seconds until it was refused", seconds, SOON_S),
        ),
        facts={
            "exit code": float(done.returncode),
            "Java ran": "yes" if "Java has pid" in done.stderr else "no",
            "seconds": round(seconds, 2),
        },
    )


def _left(folder: Path) -> list[psutil.Process]:
    """What still runs of an instance: its folder is on the command line of Java and of the workers."""
    return [each for each in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(each.info["cmdline"] or ())]
