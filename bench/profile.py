"""Where a worker's time goes, function by function: results/profile.json.

    python -m bench.profile bench-resnet18 --policies undefended misleader [--output results/profile.json]

py-spy (its command, from PyPI; nothing of it runs in the worker) looks at the stack of a live worker while a closed
loop of clients keeps it busy, waiting included, so that shares of samples are shares of wall time;
report/rows/profile.py says whose each of them is. Graphs' own threads have no Python and are not seen. Leave the
machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import psutil

import recipes
from bench import closedloop, overhttp, studies
from bench.closedloop import ClientError
from bench.overhttp import BenchError
from evaluation.oracles import OracleError
from evaluation.traffic import SEED
from handlers import wire
from handlers.errors import LoadError
from loadtests.own_server import ServerError
from loadtests.target import TargetError
from report.headline import UNDEFENDED
from report.rows.profile import WHO, ProfileRow
from report.schema import Report, run_info, write

SAMPLES_A_SECOND = 200
SECONDS = 20.0
WARM_S = 10.0
# a stack that is rarer says nothing, and the file stays small
LEAST_SHARE = 0.0005

# one frame as py-spy writes it: function (file:line), or function (file)
FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]+?)(?::\d+)?\)")
PACKED = re.compile(r".*/((?:handlers|defenses)/[^/]+\.py)")
LIBRARY = re.compile(r".*/(?:site-packages|python3\.\d+)/(.+)")


class ProfileError(RuntimeError):
    """py-spy is not there, or saw nothing."""


def parse(folded: str) -> dict[str, int]:
    """py-spy's raw format: a line a stack, with its samples; files become the names that they have everywhere."""
    stacks: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [named(frame) for frame in stack.split(";") if FRAME.fullmatch(frame)]
        if frames:
            stacks[";".join(frames)] += int(count)
    return dict(stacks)


def named(frame: str) -> str:
    """`function (file)` with the file's name inside its archive or package."""
    found = FRAME.fullmatch(frame)
    assert found is not None
    file = found["file"]
    for known in (PACKED, LIBRARY):
        if (inside := known.fullmatch(file)) is not None:
            return f"{found['function']} ({inside[1]})"
    return f"{found['function']} ({Path(file).name})"


def sampled(worker: psutil.Process, seconds: float) -> dict[str, int]:
    """The stacks of a process for so long. Raises ProfileError."""
    command = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))
    if command is None:
        raise ProfileError("py-spy is not installed: `pip install py-spy`, then again")
    with tempfile.TemporaryDirectory(prefix="torchwarden-profile-") as private:
        out = Path(private) / "stacks.txt"
        words = [
            "record",
            "--pid",
            str(worker.pid),
            "--idle",
            "--function",
            "--full-filenames",
            "--format",
            "raw",
            "--output",
            str(out),
        ]
        words += ["--rate", str(SAMPLES_A_SECOND), "--duration", str(round(seconds))]
        done = subprocess.run([command, *words], capture_output=True, text=True, check=False)
        if done.returncode or not out.is_file():
            raise ProfileError(f"py-spy ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        stacks = parse(out.read_text("utf-8"))
    if not stacks:
        raise ProfileError(f"py-spy saw no Python in process {worker.pid}")
    return stacks


def frequent(stacks: Mapping[str, int]) -> dict[str, int]:
    """The stacks, those that are rare shortened frame by frame until they are not."""
    least = max(1.0, LEAST_SHARE * sum(stacks.values()))
    kept: dict[str, int] = {}
    rest = Counter(stacks)
    while rest:
        shorter: Counter[str] = Counter()
        for stack, count in rest.items():
            parent, _, _ = stack.rpartition(";")
            if count >= least or not parent:
                kept[stack] = kept.get(stack, 0) + count
            else:
                shorter[parent] += count
        rest = shorter
    return dict(sorted(kept.items()))


def profile(subject: studies.Subject, policies: Iterable[str], *, seconds: float, run_folder: Path) -> list[ProfileRow]:
    """Serve the policies of a recipe, keep each busy in turn, and look. Raises ProfileError and what a bench raises."""
    found = []
    archives = {policy: subject.onnx[policy] for policy in policies}
    with overhttp.server(list(archives.values()), run_folder=run_folder) as running:
        overhttp.warm(running, subject.rows[UNDEFENDED], seconds=WARM_S)
        for policy, archive in archives.items():
            rows = subject.rows[policy]
            messages = overhttp.messages(running, archive.stem, rows, wire.RAW)
            (worker, *_) = running.workers[archive.stem]
            with ThreadPoolExecutor(1) as pool:
                looking = pool.submit(sampled, worker, seconds)
                driven = closedloop.drive(running.target, messages, clients=studies.SATURATION, seconds=seconds)
                stacks = looking.result()
            rate = round(len(driven.latencies_ms) / driven.seconds, 2)
            kept = frequent(stacks)
            found.append(ProfileRow(subject.recipe.name, policy, studies.SATURATION, sum(kept.values()), rate, kept))
            shares = found[-1].shares()
            print(f"{policy}: " + ", ".join(f"{name} {shares[name]:.1%}" for name in WHO), flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot be measured is a message and exit code 1, and nothing is written."""
    options = _parser().parse_args(arguments)
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        policies = options.policies or studies.policies_of(recipe, "profile")
        wanted = [UNDEFENDED, studies.EDM, *policies]
        subject = studies.prepare(recipe, policies=wanted, store=options.store, data=options.data)
        absent = [policy for policy in policies if policy not in subject.onnx]
        if absent:
            raise ProfileError(f"{options.recipe}: expected policies of {', '.join(subject.onnx)}, got {absent[0]!r}")
        found = profile(subject, policies, seconds=options.seconds, run_folder=options.run_folder)
    except (
        recipes.RecipeError,
        OracleError,
        LoadError,
        BenchError,
        ClientError,
        ServerError,
        TargetError,
        ProfileError,
    ) as error:
        sys.exit(f"bench.profile: {error}")
    settings = {"rate": SAMPLES_A_SECOND, "seconds": options.seconds}
    run = run_info(seed=SEED, started=started, settings=settings)
    write(options.output, Report(run, profiles=tuple(found)))
    print(options.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description="where a worker's time goes")
    parser.add_argument("recipe", help="a recipe whose archives are built, such as bench-resnet18")
    parser.add_argument("--policies", nargs="+", help="whose workers are looked at (the recipe's [studies.profile])")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for each of them ({SECONDS})")
    parser.add_argument("--output", type=Path, default=Path("results/profile.json"), help="(results/profile.json)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="holds the archives (model_store)")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser


if __name__ == "__main__":
    main()
