"""A campaign of ten clients against a running server: it asks and hears what the attack in process does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

import recipes
from attacks import registry
from attacks.clone import Cloning
from attacks.oracle import Ledger
from attacks.service import Service
from attacks.thief import steal
from attacks.transfer import TransferSet
from evaluation.oracles import InProcessOracle
from evaluation.tables import parameters
from report.schema import Report, read
from tests.conftest import RECIPE, Smoke
from tests.e2e.conftest import Served, run

pytestmark = pytest.mark.server

CLIENTS, DILUTION, SEED = 10, 50, 4


@pytest.fixture(scope="module")
def folder(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `loadtests.attack` and `report.html`, done once."""
    path = tmp_path_factory.mktemp("campaign")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    where = ("--instance", "e2e", "--run-folder", served.run_folder, "--store", served.smoke.store)
    campaign = ("--clients", CLIENTS, "--dilution", DILUTION, "--seed", SEED, "--quiet", 2)
    for command in (
        ("loadtests.attack", RECIPE, "--policies", "edm", "--run", path, *where, *campaign),
        ("report.html", path),
    ):
        done = run(*map(str, command))
        assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return read(folder / "report.json")


def in_process(smoke: Smoke) -> TransferSet:
    recipe = recipes.read(RECIPE)
    how = parameters(recipe, "knockoff")
    thief = registry.attack("knockoff").prepare(
        how, Service(1, 28, 10), cloning=recipe.section("clone", Cloning), seed=SEED
    )
    with InProcessOracle(smoke.archive("edm")) as oracle:
        for _ in steal(thief, Ledger(oracle, how.budget), rows=how.rows):
            pass
    return thief.transfer_set()


def test_ten_clients_steal_what_one_attacker_in_process_does(served: Served, folder: Path) -> None:
    (path,) = (folder / "transfer").glob("knockoff-*/transfer.npz")
    got, expected = TransferSet.load(path), in_process(served.smoke)
    assert torch.equal(got.images, expected.images)
    assert torch.equal(got.labels, expected.labels)
    assert got.probabilities is not None
    assert expected.probabilities is not None
    torch.testing.assert_close(got.probabilities, expected.probabilities, rtol=0, atol=1e-4)
    assert got.charged == expected.charged == 300


def test_the_report_has_the_clones_and_the_impact_on_benign_users(folder: Path, report: Report) -> None:
    assert {(row.labels, row.queries) for row in report.attacks} == {("soft", 300), ("hard", 300)}
    before, during = report.felt
    assert (before.stretch, during.stretch) == ("before", "during")
    for row in report.felt:
        assert (row.clients, row.dilution, row.stolen, row.sent) == (CLIENTS, DILUTION, 300, 600)
        assert row.requests > 0
        assert row.errors == 0
        assert row.accuracy is not None
        assert row.accuracy > 0.6
    page = (folder / "report.html").read_text()
    assert "Impact of the attacks on benign users" in page


def test_every_client_took_its_turn(folder: Path) -> None:
    (path,) = folder.glob("attack-edm-*.json")
    (thief,) = [kind for kind in json.loads(path.read_text())["kinds"] if kind["role"] == "thief"]
    # 160 stolen images and as many benign ones make ten requests of 32; the other 140 make nine
    assert thief["requests"] == 19
    assert thief["failures"] == 0


def test_an_attack_that_trains_its_own_clone_trains_it_next_to_the_clients(served: Served, tmp_path: Path) -> None:
    where = ("--instance", "e2e", "--run-folder", served.run_folder, "--store", served.smoke.store)
    campaign = ("--attacks", "dfme", "--labels", "soft", "--clients", 4, "--quiet", 1)
    done = run(
        *map(str, ("loadtests.attack", RECIPE, "--policies", "undefended", "--run", tmp_path, *where, *campaign))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = read(tmp_path / "report.json").attacks
    assert (row.attack, row.clone_recipe, row.labels, row.queries) == ("dfme", "own", "soft", 400)
    assert 0 < row.held_out < 1


def test_attacks_in_process_and_over_http_agree(served: Served, tmp_path: Path) -> None:
    where = ("--store", served.smoke.store, "--run-folder", served.run_folder)
    over = ("--instance", "e2e", "--clients", 3, "--only", "plain", "--run", tmp_path)
    done = run(*map(str, ("loadtests.agreement", RECIPE, *where, *over)))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read(tmp_path / "report.json").agreement
    assert {(row.policy, row.labels, row.budget) for row in rows} == {
        *(("undefended", labels, budget) for labels in ("soft", "hard") for budget in (60, 120)),
        *(("label", "hard", budget) for budget in (60, 120)),
    }
    for row in rows:
        assert (row.same_images, row.label_differences) == (1.0, 0)
        assert row.largest_difference is None or row.largest_difference < 1e-4
        assert row.agrees
