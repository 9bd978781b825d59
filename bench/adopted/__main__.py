"""What an adopted model of real size costs (bench/adopted/__init__.py): results/adopted-bench.json.

    python -m bench.adopted
    python -m bench.adopted --only gate meco

Every row is written at once, and replaces its like alone: a run that was interrupted goes on with `--only`; each part
makes what it needs. All of it stands in a temporary folder and is removed at the end. The machine's load before each
part is written down: figures of a machine that does other work are ratios at best.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.adopted import adopting, gating, perturbing, picturing, reading, serving
from bench.adopted.programs import ProgramError
from bench.adopted.workplace import Workplace, room_for
from bench.closedloop import ClientError
from evaluation.oracles import OracleError
from loadtests.own_server import ServerError
from report.rows.adopted import PictureRow, ProgramRow, ReadingRow
from report.schema import Report, ResultError, merge, run_info

PARTS: Mapping[str, Callable[[Workplace], Iterator[Any]]] = {
    "adopt": adopting.measure,
    "serving": serving.measure,
    "pictures": picturing.measure,
    "reading": reading.measure,
    "gate": gating.measure,
    "meco": perturbing.measure,
}
# where a row stands in the results; others are costs of defenses
SECTIONS: Mapping[type, str] = {
    ProgramRow: "adopted_programs",
    ReadingRow: "adopted_reading",
    PictureRow: "adopted_pictures",
}
# of 20,000 photographs and their map, and what else is made
DISK = 8 * 10**9
SEED = 0


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.adopted", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary folder is made")
    parser.add_argument("--output", type=Path, default=Path("results/adopted-bench.json"), metavar="FILE")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="adopted-", dir=options.folder) as folder:
            measure(Path(folder).resolve(), options.only, options.output)
    except (ProgramError, OracleError, ServerError, ClientError, ResultError, ValueError, OSError) as error:
        sys.exit(f"bench.adopted: {error}")
    print(options.output)


def measure(folder: Path, parts: list[str], output: Path) -> None:
    """The parts, each row merged into the results as soon as it is there.

    Raises ProgramError, OracleError, ResultError.
    """
    room_for(folder, DISK)
    place = Workplace(folder, SEED)
    os.environ.update(place.environment())
    for name in parts:
        begun = started = datetime.now(timezone.utc)
        settings = {f"load before {name}": round(os.getloadavg()[0], 2)}
        print(f"{name}:", flush=True)
        rows: list[Any] = []
        for row in PARTS[name](place):
            print(f"  {row}", flush=True)
            rows.append(row)
            # those before it too: rows of one batch are of one scope, and replace what stands there together
            merge(output, report(rows, started, settings))
            started = datetime.now(timezone.utc)
        print(f"  {name} took {(started - begun).total_seconds():.0f} s", flush=True)


def report(rows: list[Any], started: datetime, settings: Mapping[str, Any]) -> Report:
    """The rows by section."""
    sections: dict[str, list[Any]] = {name: [] for name in (*SECTIONS.values(), "defense_costs")}
    for row in rows:
        sections[SECTIONS.get(type(row), "defense_costs")].append(row)
    return Report(
        run_info(seed=SEED, started=started, settings=settings),
        **{name: tuple(each) for name, each in sections.items()},
    )


if __name__ == "__main__":
    # so that a measurement that is terminated ends its program and removes its folder, as it does at Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
