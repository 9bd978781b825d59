"""What an answer costs, on every path to it: results/bench.json.

    python -m bench bench-conv3 bench-resnet18 [--policies NAME ...] [--studies NAME ...]

`make bench` builds the recipes' archives and calls it. A policy's name may end in -torchscript: the same one on that
backend. One run on one machine measures, in interleaved rounds:

    spinning  the bare graph with ONNX Runtime's threads spinning while they wait, and not
    settings  one archive served with other batch sizes, delays, and workers x threads
    clocks    each policy's pipeline with a clock around every graph, for one row and for 8: what is left is Python
    paths     bare ONNX graph, pipeline in process, HTTP through TorchServe (one client, and enough to saturate it)
    single    one client of archives that are served without batching, and the pipeline in process

In process one process runs as many threads as the server's workers have together. Rows go to the members of a policy
that routes in turn: a batch is split as evenly as it can be, the worst case for its batching. No row is one that a gate
stops: every answer is a whole one. Leave the machine alone meanwhile.

A study that is done is kept in --partial until all of them are: a run that was interrupted goes on behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import recipes
from bench import inprocess, overhttp
from bench.closedloop import ClientError
from bench.inprocess import in_process
from bench.overhttp import BenchError
from bench.partial import Partial
from bench.rounds import Probe, interleaved
from evaluation.oracles import InProcessOracle, OracleError
from handlers import wire
from handlers.errors import LoadError
from loadtests.own_server import ServerError
from loadtests.target import TargetError
from report.bench_targets import CLOCKED
from report.headline import UNDEFENDED
from report.rows.bench import BenchRow
from report.schema import Report, ResultError, run_info, vnni, write
from zoo import datasets

EDM = "edm"
ONNX, TORCHSCRIPT = "onnxruntime", "torchscript"
STUDIES = ("spinning", "settings", "clocks", "paths", "single")
SATURATION = 64
BATCH_SIZES = (1, 8, 16, 32)
DELAYS_MS = (0, 1, 2, 5)
SETTINGS_CLIENTS = (1, 8, SATURATION)
# PNG bodies, and a TorchScript twin, cost the same with any policy: they are measured for these
PICTURED = (UNDEFENDED, EDM)
# an archive is unpacked once for each of the settings: of larger ones `undefended` is served in place of `edm`
LARGEST_SWEPT = 2**26
# one batch a request: nothing to wait for
UNBATCHED = {"batch_size": 1, "max_batch_delay_ms": 1}

Key = tuple[str, str]
"""(policy, backend)"""


@dataclass(frozen=True)
class Effort:
    """How long and how often: seconds a cell over HTTP and in process, of warming a server, and rounds.

    batches: rows of a call in process. settings_s, settings_rounds: of the settings study, whose cells are many.
    """

    http_s: float = 2.0
    settings_s: float = 1.0
    process_s: float = 0.6
    warm_s: float = 12.0
    rounds: int = 5
    settings_rounds: int = 2
    batches: tuple[int, ...] = (1, 8, 32)


@dataclass(frozen=True, eq=False)
class Subject:
    """A recipe to be measured. archives: by policy and backend. rows: (n,C,H,W) float32 by policy, which go to its
    members in turn, so many as members_met says. member_mb: weights of one of EDM's members, as a file."""

    recipe: recipes.Recipe
    archives: Mapping[Key, Path]
    rows: Mapping[str, NDArray[np.float32]]
    members_met: Mapping[str, int]
    member_mb: float

    @property
    def architecture(self) -> str:
        return self.recipe.architecture

    @property
    def onnx(self) -> Mapping[str, Path]:
        """The archives for ONNX Runtime, by policy."""
        return {policy: archive for (policy, backend), archive in self.archives.items() if backend == ONNX}

    @property
    def threads(self) -> int:
        """Of all workers together."""
        as_served = overhttp.serving(self.onnx[UNDEFENDED])
        return as_served.workers * as_served.threads


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot be measured is a message and exit code 1, and --output stays as it was."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    started = datetime.now(timezone.utc)
    rows: list[BenchRow] = []
    met, weights = {}, {}
    partial = Partial(options.partial, started, {"effort": dataclasses.asdict(Effort())})
    try:
        for name in options.recipes:
            recipe = recipes.read(name)
            subject = prepare(
                recipe, policies=options.policies or policies_of(recipe), store=options.store, data=options.data
            )
            for study, measured in measure(subject, Effort(), run_folder=options.run_folder).items():
                if study in options.studies:
                    rows += partial.of(f"{recipe.name}-{study}", subject.archives.values(), measured)
            met[subject.architecture] = dict(subject.members_met)
            weights[subject.architecture] = subject.member_mb
    except (
        recipes.RecipeError,
        OracleError,
        LoadError,
        BenchError,
        ClientError,
        ServerError,
        TargetError,
        ResultError,
    ) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(f"bench: interrupted; what was finished is in {options.partial}, the same command goes on")
    settings = {**partial.settings, "vnni": vnni(), "members_met": met, "member_mb": weights}
    run = run_info(seed=inprocess.SEED, started=started, settings=settings)
    run = dataclasses.replace(run, started=partial.started, seconds=round(run.seconds + partial.saved, 1))
    write(options.output, Report(run, bench=tuple(rows)))
    partial.remove()
    print(f"{options.output}: {len(rows)} rows in {run.seconds:.0f} s")


def policies_of(recipe: recipes.Recipe, study: str = "bench") -> list[str]:
    """What [studies.NAME] of the recipe says is measured. Raises BenchError."""
    stated = recipe.tables.get("studies", {}).get(study, {}).get("policies")
    if not stated:
        raise BenchError(f"{recipe.path}: expected policies in [studies.{study}], or --policies, got none")
    return list(stated)


def prepare(
    recipe: recipes.Recipe, *, store: Path, data: Path | None, policies: Sequence[str] | None = None
) -> Subject:
    """Find the recipe's archives and the rows to ask them for. Raises OracleError, LoadError, BenchError.

    policies: those of them that the recipe has; None: all.
    """
    archives = {}
    for name, table in recipe.tables["policies"].items():
        if policies is None or name in policies:
            backend = table.get("backend", ONNX)
            archives[name.removesuffix(f"-{backend}"), backend] = store / f"{recipe.name}-{name}.mar"
    for needed in (UNDEFENDED, EDM):
        if (needed, ONNX) not in archives:
            raise BenchError(f"{recipe.name}: expected the policies {UNDEFENDED} and {EDM} among those to be measured")
    images = inprocess.candidates(recipe.section("dataset", datasets.Data), data)
    rows, met = {}, {}
    with contextlib.ExitStack() as stack:
        opened = {
            policy: stack.enter_context(InProcessOracle(archive))
            for (policy, backend), archive in archives.items()
            if backend == ONNX
        }
        images = inprocess.unsuspected(list(opened.values()), images)
        for policy, oracle in opened.items():
            if oracle.pipeline.policy.route is not None:
                members = oracle.members(images)
                rows[policy], met[policy] = inprocess.spread(images, members), len(members.unique())
        edm = opened[EDM]
        weights = (edm.folder / "graphs" / f"{edm.pipeline.policy.members[0]}.onnx").stat().st_size
    # who routes nothing is asked what EDM is asked
    rows = {policy: rows.get(policy, rows[EDM]) for policy, _ in archives}
    return Subject(recipe, archives, rows, met, round(weights / overhttp.MIB, 1))


def measure(subject: Subject, effort: Effort, *, run_folder: Path) -> dict[str, Callable[[], list[BenchRow]]]:
    """Every study of one recipe, to be called in this order."""
    return {
        "spinning": lambda: spinning(subject, effort),
        "settings": lambda: settings(subject, effort, run_folder),
        "clocks": lambda: clocks(subject, effort),
        "paths": lambda: paths(subject, effort, run_folder),
        "single": lambda: single(subject, effort, run_folder),
    }


@contextlib.contextmanager
def oracles(subject: Subject, archives: Mapping[Key, Path]) -> Iterator[dict[Key, InProcessOracle]]:
    """The archives open in this process, one worker's pipeline with the threads of all."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torchwarden-bench-")))
        opened = {}
        for key, archive in archives.items():
            as_served = dataclasses.replace(overhttp.serving(archive), workers=1, threads=subject.threads)
            copy = overhttp.reserve(archive, as_served, folder, archive.stem)
            opened[key] = stack.enter_context(InProcessOracle(copy))
            copy.unlink()
        yield opened


def paths(subject: Subject, effort: Effort, run_folder: Path) -> list[BenchRow]:
    """The study "paths": the server's archives, as the recipe serves them, and the same work in this process."""
    facts: dict[str, Any] = {"study": "paths", "architecture": subject.architecture}
    threads = {"threads": subject.threads}
    with (
        oracles(subject, subject.archives) as opened,
        overhttp.server(list(subject.archives.values()), run_folder=run_folder) as running,
    ):
        bare = inprocess.bare(_victim(opened[UNDEFENDED, ONNX]), threads=subject.threads, spinning=False)
        named = {**facts, **threads, "path": "onnxruntime", "policy": UNDEFENDED, "backend": ONNX, "spinning": False}
        probes = [
            in_process(bare, subject.rows[UNDEFENDED], batch=batch, seconds=effort.process_s, **named)
            for batch in effort.batches
        ]
        for (policy, backend), archive in subject.archives.items():
            oracle, rows = opened[policy, backend], subject.rows[policy]
            overhttp.check(running, archive.stem, oracle, rows[: max(subject.members_met.values())])
            named = {**facts, "policy": policy, "backend": backend}
            call = inprocess.pipeline(oracle)
            probes += [
                in_process(call, rows, batch=batch, seconds=effort.process_s, **named, **threads, path="pipeline")
                for batch in effort.batches
            ]
            probes += [
                overhttp.over_http(running, archive, rows, clients=clients, body=body, seconds=effort.http_s, **named)
                for clients, body in asked(policy, backend)
            ]
        overhttp.warm(running, subject.rows[UNDEFENDED], seconds=effort.warm_s)
        return interleaved(probes, rounds=effort.rounds, name=f"{subject.architecture}: paths")


def asked(policy: str, backend: str) -> list[tuple[int, str]]:
    """Clients and bodies of the requests to one archive."""
    if backend != ONNX:
        return [(SATURATION, wire.RAW)]
    bodies = (wire.RAW, wire.PNG) if policy in PICTURED else (wire.RAW,)
    return [(clients, body) for clients in (1, SATURATION) for body in bodies]


def single(subject: Subject, effort: Effort, run_folder: Path) -> list[BenchRow]:
    """The study "single": one row after the other."""
    facts: dict[str, Any] = {"study": "single", "architecture": subject.architecture, "backend": ONNX}
    keys = {key: archive for key, archive in subject.archives.items() if key[1] == ONNX}
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(oracles(subject, keys))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torchwarden-bench-")))
        archives = {
            policy: overhttp.reserve(
                archive, dataclasses.replace(overhttp.serving(archive), **UNBATCHED), folder, f"{archive.stem}-single"
            )
            for (policy, _), archive in keys.items()
        }
        running = stack.enter_context(overhttp.server(list(archives.values()), run_folder=run_folder))
        probes = []
        for policy, archive in archives.items():
            rows, named = subject.rows[policy], {**facts, "policy": policy}
            overhttp.check(running, archive.stem, opened[policy, ONNX], rows[:1])
            call = inprocess.pipeline(opened[policy, ONNX])
            threads = {"threads": subject.threads}
            probes += [
                in_process(call, rows, batch=1, seconds=effort.process_s, **named, **threads, path="pipeline"),
                overhttp.over_http(running, archive, rows, clients=1, body=wire.RAW, seconds=effort.http_s, **named),
            ]
        overhttp.warm(running, subject.rows[UNDEFENDED], seconds=effort.warm_s)
        return interleaved(probes, rounds=effort.rounds, name=f"{subject.architecture}: single")


def settings(subject: Subject, effort: Effort, run_folder: Path) -> list[BenchRow]:
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
    facts = {"study": "settings", "architecture": subject.architecture, "policy": policy, "backend": ONNX}
    with tempfile.TemporaryDirectory(prefix="torchwarden-bench-") as private:
        archives = [overhttp.reserve(archive, each, Path(private), f"setting-{n}") for n, each in enumerate(grid)]
        with overhttp.server(archives, run_folder=run_folder) as running:
            rows = subject.rows[policy]
            probes = [
                overhttp.over_http(
                    running, each, rows, clients=clients, body=wire.RAW, seconds=effort.settings_s, **facts
                )
                for each in archives
                for clients in SETTINGS_CLIENTS
            ]
            overhttp.warm(running, rows, seconds=effort.warm_s)
            return interleaved(probes, rounds=effort.settings_rounds, name=f"{subject.architecture}: settings")


def spinning(subject: Subject, effort: Effort) -> list[BenchRow]:
    """The study "spinning", on the bare graph."""
    with InProcessOracle(subject.onnx[UNDEFENDED]) as oracle:
        graph = _victim(oracle)
        calls = {spin: inprocess.bare(graph, threads=subject.threads, spinning=spin) for spin in (False, True)}
    facts: dict[str, Any] = {"study": "spinning", "architecture": subject.architecture, "policy": UNDEFENDED}
    probes: list[Probe] = [
        in_process(
            call,
            subject.rows[UNDEFENDED],
            batch=batch,
            seconds=effort.process_s,
            **facts,
            path="onnxruntime",
            backend=ONNX,
            threads=subject.threads,
            spinning=spin,
        )
        for batch in effort.batches
        for spin, call in calls.items()
    ]
    return interleaved(probes, rounds=effort.rounds, name=f"{subject.architecture}: spinning")


def clocks(subject: Subject, effort: Effort) -> list[BenchRow]:
    """The study "clocks": one row and batches of 8 through pipelines whose graphs carry clocks. What is compared is
    measured side by side, and more often than the rest."""
    facts = {"study": "clocks", "architecture": subject.architecture, "path": "pipeline", "backend": ONNX}
    keys = {key: archive for key, archive in subject.archives.items() if key[1] == ONNX}
    with oracles(subject, keys) as opened:
        probes = [
            in_process(
                inprocess.clocked(oracle),
                subject.rows[policy],
                batch=batch,
                seconds=effort.process_s,
                **facts,
                policy=policy,
                threads=subject.threads,
            )
            for batch in (1, CLOCKED)
            for (policy, _), oracle in opened.items()
        ]
        return interleaved(probes, rounds=2 * effort.rounds, name=f"{subject.architecture}: clocks")


def _victim(oracle: InProcessOracle) -> Path:
    return oracle.folder / "graphs" / f"{oracle.pipeline.policy.members[0]}.onnx"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="what an answer costs")
    parser.add_argument("recipes", nargs="+", help="recipes whose archives are built, such as bench-conv3")
    parser.add_argument("--policies", nargs="+", help="those of them that a recipe has (its [studies.bench])")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=STUDIES, help="(all)")
    parser.add_argument("--output", type=Path, default=Path("results/bench.json"), help="(results/bench.json)")
    parser.add_argument("--partial", type=Path, default=Path("reports/bench"), help="finished studies (reports/bench)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="holds the archives (model_store)")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser
