"""A soak of seconds on a real server: it found saturation, asked at a share of it, and reported the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.schema import read
from tests.conftest import RECIPE, Smoke
from tests.e2e.conftest import run

pytestmark = [pytest.mark.drill, pytest.mark.alone]

SECONDS = 9.0
# memory and p99 of so few seconds are the warm-up's
JUDGED = (
    "answers with a 5xx",
    "answers that were not what was promised",
    "requests without an answer",
    "requests due and never sent",
    "sets of processes seen, less one",
)


def test_a_short_soak(smoke: Smoke, tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    short = ("--minutes", SECONDS / 60, "--warm", 2, "--level", 3, "--trying", 4, "--every", 0.5)
    where = ("--store", smoke.store, "--run-folder", tmp_path / "run", "--output", output)
    done = run("loadtests.soak", RECIPE, "--policies", "undefended", "edm", *map(str, short), *where)
    assert output.exists(), done.stdout + done.stderr
    (soak,) = read(output).soak
    assert soak.unfinished is None, done.stdout
    kept = {bound.what: bound.met for bound in soak.verdict}
    assert all(kept[what] for what in JUDGED), done.stdout
    assert done.returncode == (0 if all(kept.values()) else 1), done.stdout
    *higher, saturation = soak.tries
    assert not any(each.kept_up for each in higher), "the highest rate that is kept up"
    assert saturation.kept_up
    assert soak.rate == pytest.approx(0.8 * saturation.rate, abs=0.1)
    assert sum(soak.outcomes.values()) == int(soak.rate * SECONDS)
    assert {process.name for process in soak.samples[0].processes} >= {"java", "worker 0", "worker 1"}
