"""What a running server holds in memory, process by process, and what of that is torch: results/serving-memory.json.

    python -m bench.serving_memory bench-resnet18-undefended bench-resnet18-edm --lean PYTHON --torch PYTHON

Each archive is served in three ways, by one, two and more workers:

    imported   torch is installed and workers start as TorchServe starts them: each imports it
    deferred   torch is installed and workers start by deploy/lean, as `make serve` has it: none imports it
    absent     there is no torch in the environment

Memory is read twice, when the server has become ready and after traffic. PSS shares a page among the processes that
map it, so only PSS may be added up; USS is what would come free if that process alone ended; RSS counts shared pages in
full. The time a worker takes to start is that of one that is added to the running server.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import itertools
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean

import numpy as np
import psutil

from bench import closedloop, overhttp
from bench.closedloop import ClientError
from bench.overhttp import BenchError
from handlers import wire
from loadtests import own_server
from loadtests.own_server import Instance, ServerError
from loadtests.target import TargetError
from report.rows.memory import WAYS, EnvironmentRow, Held, MemoryRow
from report.schema import Report, ResultError, read, run_info, write

INSTANCE = "memory"
MB = 1_000_000
START_SECONDS = 120.0


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    pythons = {"imported": options.torch, "deferred": options.torch, "absent": options.lean}
    settings = {"rows": options.rows, "clients": options.clients, "workers": options.workers}
    try:
        rows = list(read(options.output).memory) if options.resume else []
        environments = tuple(_environment(*each) for each in (("torch", options.torch), ("lean", options.lean)))
        done = {(row.archive, row.workers, row.way) for row in rows}
        for name, workers, way in itertools.product(options.archives, options.workers, WAYS):
            if (name, workers, way) not in done:
                rows += _measured(options, name, workers, way, pythons[way])
                run = run_info(seed=0, started=started, settings=settings)
                write(options.output, Report(run, environments=environments, memory=tuple(rows)))
    except (BenchError, ClientError, ResultError, ServerError, TargetError, OSError) as error:
        sys.exit(f"bench.serving_memory: {error}")
    print(options.output)


@contextlib.contextmanager
def serving(archive: Path, way: str, python: Path, folder: Path) -> Iterator[Instance]:
    """The archive in an instance of its own, stopped at the end whatever happens. Raises ServerError."""
    java = _importing(python, own_server.java(python), folder) if way == "imported" else None
    with own_server.running(Instance(INSTANCE, folder, (archive,), java=java, python=python)) as instance:
        yield instance


def _measured(options: argparse.Namespace, name: str, workers: int, way: str, python: Path) -> list[MemoryRow]:
    with tempfile.TemporaryDirectory(prefix="memory-") as temporary:
        folder = Path(temporary)
        original = options.store / f"{name}.mar"
        as_served = dataclasses.replace(overhttp.serving(original), workers=workers)
        archive = overhttp.reserve(original, as_served, folder, name)
        with serving(archive, way, python, folder) as server:
            rows = [_read(server, way, workers, "rest", rows=0, start_s=0.0, archive=archive)]
            answered = _traffic(server, name, _bodies(original), clients=options.clients, rows=options.rows)
            rows.append(_read(server, way, workers, "traffic", rows=answered, start_s=0.0, archive=archive))
            start_s = round(server.scale(name, workers + 1, seconds=START_SECONDS), 2)
    rows = [dataclasses.replace(row, start_s=start_s) for row in rows]
    for row in rows:
        print(
            f"{row.archive} {row.way:<9} workers {row.workers} {row.moment:<8} PSS: all {row.total_pss:.0f} MB, "
            f"Java {row.java.pss:.0f}, a worker {row.worker.pss:.0f}; a worker starts in {row.start_s:.1f} s",
            flush=True,
        )
    return rows


def _traffic(server: Instance, model: str, bodies: Sequence[bytes], *, clients: int, rows: int) -> int:
    """At least so many rows to the model, one a request; how many were answered."""
    target = server.target
    messages = [closedloop.request(target, model, body, wire.RAW) for body in bodies]
    answered = 0
    while answered < rows:
        answered += len(closedloop.drive(target, messages, clients=clients, seconds=1.0).latencies_ms)
    return answered


def _bodies(archive: Path) -> list[bytes]:
    """Rows of noise, which every router spreads over its members, each as a raw body."""
    with zipfile.ZipFile(archive) as packed:
        golden = json.loads(packed.read("golden.json"))
    size = len(base64.b64decode(golden["image"])) // 4
    rows = np.random.default_rng(0).random((64, size), np.float32)
    return [row.astype("<f4").tobytes() for row in rows]


def _read(
    server: Instance, way: str, workers: int, moment: str, *, rows: int, start_s: float, archive: Path
) -> MemoryRow:
    java, each = _held(server.process), [_held(worker) for worker in server.workers(archive.stem)]
    if len(each) != workers:
        raise BenchError(f"{archive.stem}: expected {workers} workers, found {len(each)}")
    with zipfile.ZipFile(archive) as packed:
        graphs = sum(entry.file_size for entry in packed.infolist() if entry.filename.startswith("graphs/"))
    return MemoryRow(
        archive=archive.stem,
        way=way,
        workers=workers,
        moment=moment,
        graphs_mb=round(graphs / MB, 1),
        java=java,
        worker=Held(*(round(mean(getattr(held, name) for held in each), 1) for name in ("rss", "pss", "uss"))),
        total_pss=round(java.pss + sum(held.pss for held in each), 1),
        start_s=start_s,
        rows=rows,
    )


def _held(process: psutil.Process) -> Held:
    full = process.memory_full_info()
    return Held(*(round(value / MB, 1) for value in (full.rss, full.pss, full.uss)))


def _importing(python: Path, java: Path, folder: Path) -> Path:
    """A `java` that starts the workers as TorchServe's own launcher does: with the interpreter and nothing between."""
    script = folder / "java"
    script.write_text(
        "#!/bin/sh\n"
        'for word; do shift; [ "$before" = --python ] && word=' + shlex.quote(str(python)) + "\n"
        'set -- "$@" "$word"; before=$word; done\n'
        f'exec {shlex.quote(str(java))} "$@"\n'
    )
    script.chmod(0o700)
    return script


def _environment(name: str, python: Path) -> EnvironmentRow:
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True)
    folder = Path(found.stdout.strip())
    sizes = {each.name: _size(each) for each in folder.iterdir()}
    largest = sorted(sizes, key=lambda each: -sizes[each])[:6]
    return EnvironmentRow(
        name,
        disk_mb=round(sum(sizes.values()) / MB),
        packages=len(list(folder.glob("*.dist-info"))),
        largest={each: round(sizes[each] / MB) for each in largest},
    )


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.serving_memory", description=__doc__.splitlines()[0])
    parser.add_argument("archives", nargs="+", metavar="NAME", help="archives of the store")
    parser.add_argument("--store", type=Path, default=Path("model_store"), metavar="FOLDER", help="(model_store)")
    parser.add_argument("--lean", type=Path, required=True, metavar="PYTHON", help="of an environment without torch")
    parser.add_argument("--torch", type=Path, required=True, metavar="PYTHON", help="of the same with torch")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="(1 2 4)")
    parser.add_argument("--rows", type=int, default=5000, metavar="N", help="of traffic, at least (5000)")
    parser.add_argument("--clients", type=int, default=16, metavar="N", help="that send it (16)")
    parser.add_argument("--output", type=Path, default=Path("results/serving-memory.json"), metavar="FILE")
    parser.add_argument("--resume", action="store_true", help="go on with what --output holds")
    options = parser.parse_args()
    # a virtual environment's python is a link, and only by that name does it find its packages
    options.lean, options.torch = options.lean.absolute(), options.torch.absolute()
    return options


if __name__ == "__main__":
    # So that a study that is terminated stops its server, as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
