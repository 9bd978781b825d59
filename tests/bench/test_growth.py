"""Ensembles that are made of one archive, and stores that are filled for days and never exceed what was computed."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import recipes
from bench import inprocess
from bench.growth import command, members, stores
from bench.growth.command import Effort
from bench.overhttp import BenchError
from evaluation.oracles import InProcessOracle
from handlers.store import SqliteStore
from report.rows.growth import ALL, BUDGETS, LIMITS, REDIS, SOLUTIONS, SQLITE, StoreGrowthRow
from report.schema import read
from tests.conftest import RECIPE, Smoke

ACCOUNTS = 200
# the pages of a file of so few entries are no measure of growth
DAYS = 3


def test_an_archive_gets_any_number_of_members_and_rows_for_each(smoke: Smoke, tmp_path: Path) -> None:
    images = torch.from_numpy(inprocess.shuffled(recipes.read(RECIPE), None))
    with InProcessOracle(smoke.archive("edm")) as oracle:
        own = oracle.pipeline.graphs
        ensemble = members.opened(members.resized(oracle.folder, 7, tmp_path / "seven"), images)
        files = sorted(each.name for each in (ensemble.folder / "graphs").iterdir())
        assert files == ["hash.onnx", *(f"member-{number}.onnx" for number in range(7))]
        seven = members.loading.load(ensemble.folder)
        assert seven(ensemble.rows[:14]).members.tolist() == 2 * list(range(7))
        # member 4 is the second copy of the second of three
        row = ensemble.rows[4:5]
        np.testing.assert_array_equal(seven(row).probabilities, own["edm-1"](row)["probabilities"])
        alone = members.weights_mb(oracle.folder, ["edm-0", "edm-1", "edm-2"])
    assert ensemble.weights_mb == pytest.approx(7 / 3 * alone, rel=0.01)


def test_an_ensemble_without_rows_for_all_of_it_is_not_measured(smoke: Smoke, tmp_path: Path) -> None:
    few = torch.zeros(3, 1, 28, 28)
    with (
        InProcessOracle(smoke.archive("edm")) as oracle,
        pytest.raises(BenchError, match="smoke-edm: expected rows for each of 5 members, got 1"),
    ):
        members.opened(members.resized(oracle.folder, 5, tmp_path / "five"), few)


@pytest.mark.parametrize("kind", stores.KINDS, ids=lambda kind: kind.table)
def test_an_sqlite_store_is_as_large_as_was_computed_and_no_larger(kind: stores.Kind) -> None:
    row = stores.sqlite(kind, ACCOUNTS, days=DAYS)
    assert (row.store, row.kept, row.accounts, len(row.mb)) == (SQLITE, kind.kept, ACCOUNTS, DAYS)
    # an account each day, and all of them in each slot of one window
    rush = 0 if kind.kept == BUDGETS else stores.HELD
    assert row.operations == (DAYS + rush) * ACCOUNTS
    # the rush does reach what can be there; the oldest slot of solutions has just been forgotten
    assert row.bound_entries - ACCOUNTS <= row.most_entries <= row.bound_entries
    assert row.peak_mb <= row.bound_mb < 5 * row.peak_mb


def test_a_store_that_never_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    forgetting = stores.SqliteStore

    def hoarding(path: Path, *, clock: stores.Clock) -> SqliteStore:
        store = forgetting(path, clock=clock)
        change = store._file.change
        monkeypatch.setattr(
            store._file, "change", lambda words, *values: 0 if words.startswith("DELETE") else change(words, *values)
        )
        return store

    monkeypatch.setattr(stores, "SqliteStore", hoarding)
    for kind in stores.KINDS[:2]:
        assert not stores.sqlite(kind, ACCOUNTS, days=DAYS).bounded


def test_an_entry_is_counted_in_the_table_and_its_index(tmp_path: Path) -> None:
    clock = stores.Clock()
    with contextlib.closing(SqliteStore(tmp_path / "state", clock=clock)) as store:
        stores.rows_taken(store, 60.0)([7])
        account = len("growth/60/principal/customer-000007")
        # account, slot, rows, expires; and expires, account, slot
        assert stores.File(tmp_path / "state", "taken").entry() == 2 * stores.HEADER + 2 * account + 5 * 8
        stores.solutions(store, clock)([7])
        assert stores.File(tmp_path / "state", "spent").entry() == 2 * stores.HEADER + 2 * 32 + 2 * 8


def test_all_is_measured_by_the_command(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "growth.json"
    words = ["growth", str(RECIPE), "--quick", "--store", str(smoke.store), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    moment = Effort(rounds=2, seconds=0.02, days=2, redis_days=1, accounts=(60,))
    monkeypatch.setattr(command, "QUICK", moment)
    monkeypatch.setattr(members, "MEMBERS", (2, 4))
    command.main()
    report = read(output)
    assert [(row.members, len(row.row_ms_rounds)) for row in report.ensemble_growth] == [(2, 2), (4, 2)]
    least, most = report.ensemble_growth
    assert most.weights_mb == pytest.approx(2 * least.weights_mb, abs=0.2)
    assert most.held_mb is not None
    kept = [(row.store, row.kept) for row in report.store_growth]
    assert kept == [(SQLITE, LIMITS), (SQLITE, SOLUTIONS), (SQLITE, BUDGETS), (REDIS, ALL)]
    redis: StoreGrowthRow = report.store_growth[-1]
    # in a rush a row and a solution of each account in each slot; before it, one budget each
    assert redis.operations == (2 * stores.HELD + 1) * 60
    assert redis.peak_mb > redis.mb[-1] > 0
    lines = [*command.grown(report.ensemble_growth), *command.filled(report.store_growth)]
    assert capsys.readouterr().out.splitlines() == [*lines, str(output)]
