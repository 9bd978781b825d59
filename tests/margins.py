"""How far what trainings reach stays from the tests' bounds: python -m tests.margins [TESTS ...]

Runs the tests that state it (tests/reached.py) once for every seed and every set of CPU kernels, each in a fresh
process, writes tests/margins.json after each, and the table of tests/README.md from it. What is measured again takes
the place of what was; other tests' figures and other kernels' stay. It fails where a bound is nearer to the mean than
SPREADS standard deviations of the seeds, and where a test fails of anything else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from tests.reached import MARGINS, read

CHECKOUT = Path(__file__).resolve().parent.parent
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- margins: begin -->\n", "<!-- margins: end -->\n"
SPREADS = 4
# torch's own kernels, and what oneDNN may use next to them
KERNELS = {"default": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"}
SIDES = ("above", "below")

Rows = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", metavar="TESTS", help="files or test ids; all, if none")
    parser.add_argument("--seeds", type=int, default=8, help="seeds from 0 on")
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=["default", "avx2"])
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table again")
    chosen = parser.parse_args()
    before, rows, failed = read(), read(), []
    if not chosen.table:
        found: Rows = {}
        for seed, kernel in product(range(chosen.seeds), chosen.kernels):
            print(f"seed {seed}, {kernel}", file=sys.stderr, flush=True)
            failed += measure(found, chosen.tests, kernel, seed)
            rows = merged(before if chosen.tests else {name: before[name] for name in before.keys() & found}, found)
            MARGINS.write_text(json.dumps({"quantities": rows}, indent=1) + "\n", "utf-8")
    head, _, rest = README.read_text("utf-8").partition(BEGIN)
    README.write_text(head + BEGIN + table(rows) + END + rest.partition(END)[2], "utf-8")
    failed += [f"{name}: too near to what was reached" for name, row in rows.items() if not holds(row)]
    if failed:
        raise SystemExit("\n".join(failed))


def merged(before: Rows, found: Rows) -> Rows:
    """What was found in place of what was known, kernel by kernel."""
    rows = dict(before)
    for name, row in found.items():
        rows[name] = {**row, "values": {**before.get(name, row)["values"], **row["values"]}}
    return dict(sorted(rows.items()))


def measure(rows: Rows, tests: list[str], kernel: str, seed: int) -> list[str]:
    """Add to `rows` what one run of the tests reached; which of them failed of something else."""
    environment = {"ATEN_CPU_CAPABILITY": kernel, "ONEDNN_MAX_CPU_ISA": KERNELS[kernel], "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "reached.jsonl"
        words = ["-m", "pytest", "-m", "not server", f"--training-seed={seed}", f"--record-reached={record}", *tests]
        done = subprocess.run(
            [sys.executable, *words], cwd=CHECKOUT, env={**os.environ, **environment}, capture_output=True, text=True
        )
        if done.returncode not in (0, 1) or not record.exists():
            raise SystemExit(done.stdout[-8000:] + done.stderr[-2000:])
        lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    if {line["kernel"] for line in lines} != {kernel}:
        raise SystemExit(f"torch does not run its kernels {kernel} here; this processor lacks them")
    for line in lines:
        bounds = {side: line[side] for side in SIDES}
        row = rows.setdefault(line["quantity"], {**bounds, "values": {}})
        assert bounds == {side: row[side] for side in SIDES}, f"{line['quantity']}: two bounds"
        row["values"].setdefault(kernel, []).append(float(f"{line['value']:.6g}"))
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return [f"seed {seed}, {kernel}: {line}" for line in failures]


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation over the seeds."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def holds(row: dict[str, Any]) -> bool:
    """Whether under all kernels the bounds are SPREADS standard deviations from the mean."""
    for mean, deviation in map(spread, row["values"].values()):
        if row["above"] is not None and not row["above"] <= mean - SPREADS * deviation:
            return False
        if row["below"] is not None and not row["below"] >= mean + SPREADS * deviation:
            return False
    return True


def table(rows: Rows) -> str:
    """A line for every test and quantity."""
    kernels = [kernel for kernel in KERNELS if any(kernel in row["values"] for row in rows.values())]
    head = ["test", "quantity", "n", *(f"{kernel}: mean ± sd" for kernel in kernels), "bound"]
    lines = [head, ["---"] * len(head)]
    for name, row in sorted(rows.items()):
        test, _, quantity = name.partition(": ")
        cells = [
            "{:.3g} ± {:.2g}".format(*spread(row["values"][kernel])) if kernel in row["values"] else "-"
            for kernel in kernels
        ]
        bounds = ", ".join(
            f"{sign} {row[side]:.3g}" for side, sign in zip(SIDES, "><", strict=True) if row[side] is not None
        )
        lines.append([f"`{test}`", quantity, str(max(map(len, row["values"].values()))), *cells, bounds])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    main()
