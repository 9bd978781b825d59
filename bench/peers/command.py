"""This server and others around the same float32 and int8 file of a network: results/peers.json.

    python -m bench.peers
    python -m bench.peers bench-conv3 --servers TorchWarden LitServe --quick

The files are those that the archives `undefended` and `undefended-int8` hold (export/quantise.py: static QDQ). In each
round every server is started once around each file, alone, with two workers of one thread; it has to give the file's
own answers (bench/peers/unit.py), and is timed by one client and by 32, which are this process (bench/closedloop.py).
What a round has measured is kept below build/peers/rounds until the results are written: the same command goes on where
it was interrupted. A server that cannot be started, or answers anything else, is a row that says why.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import signal
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

import recipes
from attest.examples.servers import VENVS, PeerError
from bench import inprocess
from bench.closedloop import ClientError
from bench.overhttp import BenchError
from bench.peers.table import ENTRIES, Entry, Model
from bench.peers.unit import EVERY, MANY, PICTURES, TOLERANCE, Effort, Golden, Sample, in_process, measured
from loadtests.own_server import ServerError
from loadtests.target import TargetError
from recipes.policies import INT8, suffixed
from report import atomic
from report.headline import UNDEFENDED
from report.rows.peers import FLOAT32, PeerRow
from report.schema import Report, commit, run_info, vnni, write
from zoo import datasets

RECIPE = "bench-resnet18"
ROUNDS, QUICK_ROUNDS = 3, 1
EFFORT, QUICK = Effort(warm_s=8.0, single_s=4.0, many_s=6.0), Effort(warm_s=1.0, single_s=1.0, many_s=1.0)
OUTPUT = Path("results/peers.json")
# what a quick run writes is no result
QUICK_OUTPUT = VENVS / "quick.json"
KEPT = VENVS / "rounds"
FAULTS = (PeerError, BenchError, ClientError, ServerError, TargetError, OSError)

Unit = tuple[Entry, Model]


def main() -> None:
    """Run the command line; what cannot be measured at all is a message and exit code 1, and nothing is written."""
    options = _options()
    started = datetime.now(timezone.utc)
    effort = QUICK if options.quick else EFFORT
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    entries = [entry for entry in ENTRIES if entry.name in options.servers]
    try:
        golden = {model: answers for name in options.recipes for model, answers in models(name, options)}
    except (recipes.RecipeError, datasets.DatasetError, *FAULTS) as error:
        sys.exit(f"bench.peers: {error}")
    settings = {
        "graphs": {f"{model.network} {model.file}": model.sha256 for model in golden},
        "rounds": rounds,
        "seconds": dataclasses.asdict(effort),
        "clients": MANY,
        "pictures": PICTURES,
        "tolerance": TOLERANCE,
        "every": EVERY,
        "vnni": vnni(),
    }
    kept = Kept(KEPT, {"commit": commit(), **settings, "entries": [_facts(entry) for entry in ENTRIES]})
    rows = in_rounds(entries, golden, effort, rounds=rounds, kept=kept)
    write(options.output, Report(run_info(seed=inprocess.SEED, started=started, settings=settings), peers=rows))
    kept.clear()
    print(options.output)


def models(name: str, options: argparse.Namespace) -> Iterator[tuple[Model, Golden]]:
    """A recipe's float32 file and its int8 twin with golden answers. Raises PeerError, RecipeError, DatasetError."""
    recipe = recipes.read(name)
    candidates = inprocess.shuffled(recipe, options.data)
    for file in (FLOAT32, INT8):
        graph = options.build / recipe.name / f"{suffixed('victim', file)}.onnx"
        archive = options.store / f"{recipe.name}-{suffixed(UNDEFENDED, file)}.mar"
        for path in (graph, archive):
            if not path.is_file():
                asked = f"make bench-archives RECIPE={recipe.name}"
                raise PeerError(f"{path}: no such file; expected the graph and its archive: {asked}")
        with zipfile.ZipFile(archive) as packed:
            if packed.read(f"graphs/{graph.name}") != graph.read_bytes():
                raise PeerError(
                    f"{archive}: expected the graph {graph}, got another of its name: make the archive again"
                )
        yield Model(recipe.architecture, file, graph, archive), in_process(graph, candidates)


class Kept:
    """Samples of rounds that are done, a file each, of one state of code and settings: those of another are removed."""

    def __init__(self, folder: Path, state: Mapping[str, Any]) -> None:
        self.folder, stated = folder, json.loads(json.dumps(state))
        file = folder / "state.json"
        if file.is_file() and json.loads(file.read_text("utf-8")) != stated:
            print(f"{folder}: measured by other code or settings; measured again", flush=True)
            self.clear()
        atomic.write_json(file, stated)

    def _file(self, unit: Unit, number: int) -> Path:
        entry, model = unit
        return self.folder / f"{number}-{model.network}-{model.file}-{entry.name.replace(' ', '-')}.json"

    def read(self, unit: Unit, number: int) -> Sample | None:
        """A unit's sample of a round; None where it is to be measured."""
        file = self._file(unit, number)
        return Sample(**json.loads(file.read_text("utf-8"))) if file.is_file() else None

    def add(self, unit: Unit, number: int, sample: Sample) -> None:
        """Keep a unit's sample of a round."""
        atomic.write_json(self._file(unit, number), dataclasses.asdict(sample))

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def in_rounds(
    entries: Sequence[Entry], golden: Mapping[Model, Golden], effort: Effort, *, rounds: int, kept: Kept
) -> tuple[PeerRow, ...]:
    """Every server around every file once a round; a row for each. One that fails is not tried in a later round."""
    units = [(entry, model) for model in golden for entry in entries]
    samples: dict[Unit, list[Sample]] = {unit: [] for unit in units}
    failed: dict[Unit, str] = {}
    with tqdm(total=rounds * len(units), desc="peers", unit="server") as bar:
        for number in range(rounds):
            for unit in units:
                entry, model = unit
                bar.set_postfix_str(f"round {number + 1}, {model.network} {model.file}, {entry.name}")
                sample = kept.read(unit, number)
                try:
                    if sample is None and unit not in failed:
                        sample = measured(entry, model, golden[model], effort)
                        kept.add(unit, number, sample)
                except FAULTS as error:
                    failed[unit] = without_folders(str(error))
                    tqdm.write(f"{entry.name}, {model.network} {model.file}: not measured: {error}")
                if sample is not None:
                    samples[unit].append(sample)
                bar.update()
    return tuple(row(entry, model, samples[entry, model], failed.get((entry, model))) for entry, model in units)


def without_folders(text: str) -> str:
    """The same with paths reduced to their last names: no row holds a path of the machine."""
    return re.sub(r"(?<![\w:/])(?:/[^\s/'\"]+)+/(?=[^\s/])", "", text)


def row(entry: Entry, model: Model, samples: Sequence[Sample], why: str | None) -> PeerRow:
    """A server's row of all its rounds, or of none where it failed in one."""
    counted = [] if why else samples
    return PeerRow(
        server=entry.name,
        version=entry.version,
        network=model.network,
        file=model.file,
        sends=entry.sends,
        workers=entry.settings.workers,
        threads=entry.settings.threads,
        batch=entry.settings.batch_size,
        delay_ms=entry.settings.max_batch_delay_ms,
        about=entry.about,
        p50_rounds=tuple(each.p50_ms for each in counted),
        p99_rounds=tuple(each.p99_ms for each in counted),
        single_rounds=tuple(each.single_per_s for each in counted),
        rate_rounds=tuple(each.rows_per_s for each in counted),
        memory_rounds=tuple(each.memory_mb for each in counted),
        checked=sum(each.checked for each in counted),
        apart=max((each.apart for each in counted), default=None),
        why=why,
    )


def _facts(entry: Entry) -> dict[str, Any]:
    """What a sample of an entry depends on."""
    return {"name": entry.name, "version": entry.version, "settings": dataclasses.asdict(entry.settings)}


def _options() -> argparse.Namespace:
    names = [entry.name for entry in ENTRIES]
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "recipes", nargs="*", default=[RECIPE], metavar="RECIPE", help=f"({RECIPE}); bench-conv3: small"
    )
    parser.add_argument(
        "--servers", nargs="+", choices=names, default=names, metavar="NAME", help=f"{', '.join(names)}"
    )
    parser.add_argument("--quick", action="store_true", help=f"a smoke test: moments, one round, to {QUICK_OUTPUT}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"({ROUNDS}; quick: {QUICK_ROUNDS})")
    parser.add_argument("--store", type=Path, default=Path("model_store"), metavar="FOLDER", help="(model_store)")
    parser.add_argument("--build", type=Path, default=Path("build"), metavar="FOLDER", help="of the graphs (build)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"({OUTPUT})")
    options = parser.parse_args()
    options.output = options.output or (QUICK_OUTPUT if options.quick else OUTPUT)
    # so that a measurement that is terminated stops its server, as it does at Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return options
