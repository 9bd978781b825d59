"""An earlier build of this product against the checkout's commit, on raw rows: results/builds.json.

    python -m bench.builds --against 92917af

Each commit is checked out in a temporary folder of its own (`git worktree`), where its own code trains, packs and
serves the undefended archive of the recipe; the environment is this one. Both servers run at once and rows go to them
in turn, from one client and from as many as saturate a server: what is compared is the whole way of a row, TorchServe's
part and the handler's. Changes that are not committed are not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import recipes
from bench import inprocess, overhttp
from bench.closedloop import ClientError
from bench.inprocess import Images
from bench.overhttp import BenchError, Server
from bench.rounds import interleaved
from evaluation.oracles import CHECKOUT
from handlers import wire
from loadtests.own_server import ServerError
from loadtests.target import TargetError
from report.headline import UNDEFENDED
from report.rows.builds import BuildRow
from report.schema import Report, run_info, write
from zoo import datasets

RECIPE = "digits"
CLIENTS = (1, 64)
ROUNDS = 11
SECONDS = 2.0
WARM_S = 8.0
ROWS = 64
# lines of a program that failed
SHOWN = 20
# what makes the archive
PROGRAMS = (
    ("training.victim", RECIPE),
    ("export.graphs", RECIPE),
    ("export.archive", RECIPE, "--policies", UNDEFENDED),
)


def main() -> None:
    """Run the command line; what cannot be measured is a message and exit code 1, and nothing is written."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        commits = [_commit(name) for name in (options.against, "HEAD")]
        if commits[0] == commits[1]:
            raise BenchError(f"--against {options.against}: expected another commit than HEAD, {commits[1][:12]}")
        recipe = recipes.read(RECIPE)
        images = inprocess.candidates(recipe.section("dataset", datasets.Data), options.data).numpy()[:ROWS]
        rows = measured(commits, images, rounds=options.rounds, seconds=options.seconds)
    except (recipes.RecipeError, BenchError, ClientError, ServerError, TargetError, OSError) as error:
        sys.exit(f"bench.builds: {error}")
    settings = {
        "against": commits[0],
        "commit": commits[1],
        "archive": f"{RECIPE}-{UNDEFENDED}",
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    write(options.output, Report(run_info(seed=inprocess.SEED, started=started, settings=settings), builds=rows))
    print(options.output)


def measured(commits: Sequence[str], images: Images, *, rounds: int, seconds: float) -> tuple[BuildRow, ...]:
    """A row of each commit for one client and for many. Raises BenchError, ClientError, ServerError."""
    with contextlib.ExitStack() as opened:
        archives = {commit: packed(opened.enter_context(checkout(commit))) for commit in commits}
        # as the earlier one asks to be, or the settings would be compared
        alike = overhttp.serving(archives[commits[0]])
        for commit, archive in archives.items():
            archives[commit] = overhttp.reserve(archive, alike, archive.parent, f"{archive.stem}-alike")
        servers = {commit: opened.enter_context(serving(archive)) for commit, archive in archives.items()}
        for running in servers.values():
            overhttp.warm(running, images, seconds=WARM_S)
        cells = [(commit, clients) for clients in CLIENTS for commit in commits]
        probes = [
            overhttp.over_http(
                servers[commit],
                archives[commit],
                images,
                clients=clients,
                body=wire.RAW,
                seconds=seconds,
                policy=UNDEFENDED,
                architecture=RECIPE,
            )
            for commit, clients in cells
        ]
        rows = interleaved(probes, rounds=rounds, name="builds")
    return tuple(
        BuildRow(commit, clients, row.p50_rounds, row.rate_rounds)
        for (commit, clients), row in zip(cells, rows, strict=True)
    )


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The commit's files in a temporary folder, removed at the end. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix=f"build-{commit[:12]}-") as temporary:
        folder = Path(temporary).resolve() / "checkout"
        _run(["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], CHECKOUT)
        try:
            yield folder
        finally:
            _run(["git", "worktree", "remove", "--force", str(folder)], CHECKOUT)


def packed(folder: Path) -> Path:
    """The recipe's undefended archive, trained and packed by a checkout's own code. Raises BenchError.

    By its programs and not by its make, which in older commits trains every network of the recipe, and in any may
    install the commit's packages.
    """
    for words in PROGRAMS:
        _run([sys.executable, "-m", *words], folder)
    return folder / "model_store" / f"{RECIPE}-{UNDEFENDED}.mar"


@contextlib.contextmanager
def serving(archive: Path) -> Iterator[Server]:
    """The server of the checkout that an archive stands in."""
    folder = archive.parents[1]
    with overhttp.server([archive], run_folder=folder / "run", checkout=folder) as running:
        yield running


def _commit(name: str) -> str:
    """The hash of a commit. Raises BenchError."""
    return _run(["git", "rev-parse", "--verify", f"{name}^{{commit}}"], CHECKOUT).strip()


def _run(words: Sequence[str], folder: Path) -> str:
    """What a command prints. Raises BenchError with the end of what it says where it fails."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-SHOWN:])
        raise BenchError(f"`{' '.join(words)}` ended with {done.returncode}: {said}")
    return done.stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.builds", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", required=True, metavar="COMMIT", help="an earlier commit of this repository")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"({ROUNDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"of a cell ({SECONDS:g})")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--output", type=Path, default=Path("results/builds.json"), metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    # so that a measurement that is terminated stops its servers and removes its folders, as it does at Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
