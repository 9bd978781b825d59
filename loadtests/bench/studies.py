"""What an answer costs, on every path to it: results/bench.json.

    python -m loadtests.bench bench-conv3 bench-resnet18 [--output results/bench.json]

`make bench` builds the recipes' archives and calls it. Each recipe's policies are archived for ONNX Runtime and, with
the suffix -torchscript, for TorchScript. One run on one machine measures, in interleaved rounds:

    paths     bare ONNX graph, pipeline in process, HTTP through TorchServe (one client, and enough to saturate it)
    settings  one archive served with other batch sizes, delays, and workers x threads
    spinning  the bare graph with ONNX Runtime's threads spinning while they wait, and not
    router    the pipeline with a clock around every graph: what is left is Python

In process one process runs as many threads as the server's workers have together. Rows meet EDM's members in turn:
a batch is split as evenly as it can be, the worst case for its batching. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import recipes
from handlers import wire
from handlers.errors import LoadError
from loadtests.bench import inprocess, overhttp
from loadtests.bench.closedloop import ClientError
from loadtests.bench.inprocess import in_process
from loadtests.bench.overhttp import BenchError
from loadtests.bench.rounds import Probe, interleaved
from loadtests.headline import UNDEFENDED
from loadtests.oracles import InProcessOracle, OracleError
from loadtests.results import BenchRow, Report, run_info, write_json
from loadtests.target import TargetError
from zoo import datasets

EDM = "edm"
ROUTER_BATCH = 8
SATURATION = 32
BATCH_SIZES = (1, 8, 16, 32)
DELAYS_MS = (1, 2, 5)
SETTINGS_CLIENTS = (1, 8, SATURATION)
# an archive is unpacked once for each of the settings: of larger ones `undefended` is served in place of `edm`
LARGEST_SWEPT = 2**26


@dataclass(frozen=True)
class Effort:
    """How long and how often: seconds a cell over HTTP and in process, of warming a server, and rounds.

    batches: rows of a call in process. settings_s, settings_rounds: of the settings study, whose cells are many.
    """

    http_s: float = 2.0
    settings_s: float = 1.5
    process_s: float = 0.6
    warm_s: float = 12.0
    rounds: int = 3
    settings_rounds: int = 2
    batches: tuple[int, ...] = (1, 8, 32)


@dataclass(frozen=True, eq=False)
class Subject:
    """A recipe to be measured. archives: by (policy, backend). rows: (n,C,H,W) float32, met by the members in turn."""

    recipe: recipes.Recipe
    archives: Mapping[tuple[str, str], Path]
    rows: NDArray[np.float32]
    members_met: int

    @property
    def architecture(self) -> str:
        return str(self.recipe.tables["victim"]["architecture"])

    @property
    def onnx(self) -> Mapping[str, Path]:
        """The archives for ONNX Runtime, by policy."""
        return {policy: archive for (policy, backend), archive in self.archives.items() if backend == "onnxruntime"}

    @property
    def threads(self) -> int:
        """Of all workers together."""
        as_served = overhttp.serving(self.onnx[UNDEFENDED])
        return as_served.workers * as_served.threads


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot be measured is a message and exit code 1, and nothing is written."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    started = datetime.now(timezone.utc)
    rows: list[BenchRow] = []
    met = {}
    try:
        for name in options.recipes:
            subject = prepare(recipes.read(name), store=options.store, data=options.data)
            rows += measure(subject, Effort(), run_folder=options.run_folder)
            met[subject.architecture] = subject.members_met
    except (recipes.RecipeError, OracleError, LoadError, BenchError, ClientError, TargetError) as error:
        sys.exit(f"loadtests.bench: {error}")
    except KeyboardInterrupt:
        sys.exit("loadtests.bench: interrupted; nothing was written")
    settings = {"effort": dataclasses.asdict(Effort()), "members_met": met}
    run = run_info(seed=inprocess.SEED, started=started, settings=settings)
    write_json(options.output, dataclasses.asdict(Report(run, bench=tuple(rows))))
    print(f"{options.output}: {len(rows)} rows in {run.seconds:.0f} s")


def prepare(recipe: recipes.Recipe, *, store: Path, data: Path | None) -> Subject:
    """Find the recipe's archives and the rows to ask them for. Raises OracleError, LoadError, BenchError."""
    archives = {}
    for name, table in recipe.tables["policies"].items():
        backend = table.get("backend", "onnxruntime")
        archives[name.removesuffix(f"-{backend}"), backend] = store / f"{recipe.name}-{name}.mar"
    images = inprocess.candidates(recipe.section("dataset", datasets.Data), data)
    with InProcessOracle(archives[EDM, "onnxruntime"]) as oracle:
        members = oracle.members(images)
    return Subject(recipe, archives, inprocess.spread(images, members), len(members.unique()))


def measure(subject: Subject, effort: Effort, *, run_folder: Path) -> list[BenchRow]:
    """Every study of one recipe."""
    with tempfile.TemporaryDirectory(prefix="torchwarden-bench-") as private:
        folder = Path(private)
        rows = spinning(subject, effort)
        with oracles(subject, folder) as opened:
            rows += router(subject, opened, effort)
            rows += paths(subject, opened, effort, run_folder)
        return rows + settings(subject, effort, folder, run_folder)


@contextlib.contextmanager
def oracles(subject: Subject, folder: Path) -> Iterator[dict[tuple[str, str], InProcessOracle]]:
    """Every archive open in this process, one worker's pipeline with the threads of all."""
    with contextlib.ExitStack() as stack:
        opened = {}
        for key, archive in subject.archives.items():
            as_served = dataclasses.replace(overhttp.serving(archive), workers=1, threads=subject.threads)
            copy = overhttp.reserve(archive, as_served, folder, archive.stem)
            opened[key] = stack.enter_context(InProcessOracle(copy))
            copy.unlink()
        yield opened


def paths(
    subject: Subject, opened: Mapping[tuple[str, str], InProcessOracle], effort: Effort, run_folder: Path
) -> list[BenchRow]:
    """The study "paths": the server's archives, as the recipe serves them, beside the same work in this process."""
    facts = {"study": "paths", "architecture": subject.architecture}
    threads = {"threads": subject.threads}
    graph = opened[UNDEFENDED, "onnxruntime"].folder / "graphs" / "victim.onnx"
    run = inprocess.bare(graph, threads=subject.threads, spinning=False)
    probes = [
        in_process(
            run,
            subject.rows,
            batch=batch,
            seconds=effort.process_s,
            **facts,
            **threads,
            path="onnxruntime",
            policy=UNDEFENDED,
            backend="onnxruntime",
            spinning=False,
        )
        for batch in effort.batches
    ]
    for (policy, backend), oracle in opened.items():
        named = {**facts, "policy": policy, "backend": backend}
        call = inprocess.pipeline(oracle)
        probes += [
            in_process(call, subject.rows, batch=batch, seconds=effort.process_s, **named, **threads, path="pipeline")
            for batch in effort.batches
        ]
    with overhttp.server(list(subject.archives.values()), run_folder=run_folder) as running:
        for (policy, backend), archive in subject.archives.items():
            overhttp.check(running, archive.stem, opened[policy, backend], subject.rows[: subject.members_met])
            named = {**facts, "policy": policy, "backend": backend}
            probes += [
                overhttp.over_http(
                    running, archive, subject.rows, clients=clients, body=body, seconds=effort.http_s, **named
                )
                for clients in (1, SATURATION)
                for body in (wire.RAW, wire.PNG)
            ]
        overhttp.warm(running, subject.rows, seconds=effort.warm_s)
        return interleaved(probes, rounds=effort.rounds, name=f"{subject.architecture}: paths")


def settings(subject: Subject, effort: Effort, folder: Path, run_folder: Path) -> list[BenchRow]:
    """The study "settings": every layout of the cores with every batch size, and the delays, in one server."""
    policy = EDM if subject.onnx[EDM].stat().st_size <= LARGEST_SWEPT else UNDEFENDED
    archive = subject.onnx[policy]
    chosen = overhttp.serving(archive)
    grid = [
        dataclasses.replace(chosen, workers=workers, threads=subject.threads // workers, batch_size=batch_size)
        for workers in sorted({1, subject.threads})
        for batch_size in BATCH_SIZES
    ]
    grid += [dataclasses.replace(chosen, max_batch_delay_ms=delay) for delay in DELAYS_MS]
    grid = list(dict.fromkeys([*grid, chosen]))
    archives = [overhttp.reserve(archive, each, folder, f"setting-{n}") for n, each in enumerate(grid)]
    facts = {"study": "settings", "architecture": subject.architecture, "policy": policy, "backend": "onnxruntime"}
    with overhttp.server(archives, run_folder=run_folder) as running:
        probes = [
            overhttp.over_http(
                running, each, subject.rows, clients=clients, body=wire.RAW, seconds=effort.settings_s, **facts
            )
            for each in archives
            for clients in SETTINGS_CLIENTS
        ]
        overhttp.warm(running, subject.rows, seconds=effort.warm_s)
        return interleaved(probes, rounds=effort.settings_rounds, name=f"{subject.architecture}: settings")


def spinning(subject: Subject, effort: Effort) -> list[BenchRow]:
    """The study "spinning", on the bare graph."""
    with InProcessOracle(subject.onnx[UNDEFENDED]) as oracle:
        graph = oracle.folder / "graphs" / "victim.onnx"
        calls = {spin: inprocess.bare(graph, threads=subject.threads, spinning=spin) for spin in (False, True)}
    facts: dict[str, Any] = {"study": "spinning", "architecture": subject.architecture, "policy": UNDEFENDED}
    probes: list[Probe] = [
        in_process(
            call,
            subject.rows,
            batch=batch,
            seconds=effort.process_s,
            **facts,
            path="onnxruntime",
            backend="onnxruntime",
            threads=subject.threads,
            spinning=spin,
        )
        for batch in effort.batches
        for spin, call in calls.items()
    ]
    return interleaved(probes, rounds=effort.rounds, name=f"{subject.architecture}: spinning")


def router(subject: Subject, opened: Mapping[tuple[str, str], InProcessOracle], effort: Effort) -> list[BenchRow]:
    """The study "router": batches of 8 through pipelines whose graphs carry clocks."""
    facts = {"study": "router", "architecture": subject.architecture, "path": "pipeline", "backend": "onnxruntime"}
    probes = [
        in_process(
            inprocess.clocked(opened[policy, "onnxruntime"]),
            subject.rows,
            batch=ROUTER_BATCH,
            seconds=effort.process_s,
            **facts,
            policy=policy,
            threads=subject.threads,
        )
        for policy in (UNDEFENDED, EDM)
    ]
    return interleaved(probes, rounds=2 * effort.rounds, name=f"{subject.architecture}: router")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description="what an answer costs")
    parser.add_argument("recipes", nargs="+", help="recipes whose archives are built, such as bench-conv3")
    parser.add_argument("--output", type=Path, default=Path("results/bench.json"), help="(results/bench.json)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="holds the archives (model_store)")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser
