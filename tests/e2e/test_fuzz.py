"""Hostile requests against a real TorchServe: a short run of what `make fuzz` does in full."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from assurance.fuzz import kinds, program
from assurance.fuzz.campaign import Campaign
from assurance.fuzz.case import Seen, load, posted, save
from assurance.fuzz.contract import Contract
from assurance.fuzz.neighbours import Honest, Neighbour
from assurance.fuzz.reference import Row
from handlers import wire
from tests.conftest import RECIPE, Smoke
from tests.e2e.conftest import CHECKOUT, Served, run

pytestmark = pytest.mark.server

CORPUS = CHECKOUT / "tests" / "assurance" / "fuzz" / "corpus"


def options(served: Served, folder: Path, *words: str) -> argparse.Namespace:
    fixed = [str(RECIPE), "--instance", "e2e", "--run-folder", str(served.run_folder), "--kept", str(folder / "kept")]
    return program.parse([*fixed, "--policies", "edm", "label", "fitted", *words])


@pytest.fixture(scope="module")
def campaign(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return program.prepared(options(served, tmp_path_factory.mktemp("fuzz")))


def test_a_round_of_every_idea_on_three_models(campaign: Campaign, tmp_path: Path) -> None:
    section = campaign.run(3 * len(kinds.IDEAS), seed=8, quiet=True)
    assert program.broken(section) == []
    assert sum(sum(endings.values()) for endings in section["kinds"].values()) == 3 * len(kinds.IDEAS)
    kinds_met = {"pictures", "documents", "rows", "inference", "envelopes", "multipart", "messages"}
    assert set(section["kinds"]) == kinds_met
    for kind in kinds_met:
        assert section["kinds"][kind]["200"] > 0, f"{kind}: refusing everything would pass too"
    assert section["kinds"]["pictures"]["200"] > 5, "refusing everything would pass too"
    assert section["kinds"]["pictures"]["400 undecodable"] > 5
    assert section["neighbours"]["asked"] > 20
    assert section["workers"]["count"] >= 2
    assert section["workers"]["memory_mb"]["after"]["smoke-edm"] > 0
    text = json.dumps(section)
    assert campaign.door.authorization.decode().split()[1] not in text


def test_what_was_found_once_stays_mended(campaign: Campaign) -> None:
    files = sorted(CORPUS.glob("*.json"))
    assert len(files) >= 15
    before = campaign.workers.pids(["smoke-edm"])
    for file in files:
        verdict = campaign.verdict(load(file))
        stated = json.loads(file.read_text())["rows"]
        assert verdict.complaint is None, file.name
        assert verdict.label.split()[-1] == ("200" if "" in stated else stated[0]), file.name
    assert campaign.workers.pids(["smoke-edm"]) == before


def test_every_answer_is_one_that_the_api_describes(campaign: Campaign) -> None:
    section = Contract(campaign.door).run(campaign.subjects[:1], 20, number=8)
    assert section["findings"] == []
    assert section["requests"] > 40


def test_a_kept_case_is_sent_again(campaign: Campaign, tmp_path: Path) -> None:
    file = CORPUS / "orientation-6.json"
    assert program.replay(campaign, file) == 0
    lying = tmp_path / "lying.json"
    save(replace(load(file), seen=Seen(wire.JPEG, b"no picture")), lying)
    assert program.replay(campaign, lying) == 1


def test_a_wrong_answer_to_a_neighbour_is_noticed(campaign: Campaign) -> None:
    subject = campaign.subjects[0]
    case = posted("neighbours", "rows", subject, wire.RAW, wire.encode_rows(subject.images[:1], wire.RAW))
    wrong = Neighbour(campaign.door, [Honest(case, [Row(11, None)])], seed=0)
    right = Neighbour(campaign.door, campaign.known, seed=0)
    for neighbour in (wrong, right):
        neighbour.start()
    while wrong.asked < 3 or right.asked < 3:
        assert wrong.is_alive()
        assert right.is_alive()
    for neighbour in (wrong, right):
        neighbour.leave()
    assert len(wrong.wrong) == wrong.asked
    assert "expected 200 label 11" in wrong.wrong[0]
    assert right.wrong == []


def test_a_worker_that_dies_is_a_finding(smoke: Smoke, tmp_path: Path) -> None:
    instance = ("--instance", "mortal", "--run-folder", tmp_path)
    model = "smoke-undefended"
    started = run("deploy.server", "start", *instance, "--store", smoke.store, "--free-ports", "--models", model)
    try:
        assert started.returncode == 0, started.stderr
        words = [*map(str, instance), "--policies", "undefended", "--kept", str(tmp_path / "kept")]
        campaign = program.prepared(program.parse([str(RECIPE), *words]))
        (worker,) = campaign.workers.pids([model])[model]
        killing = threading.Timer(1.0, os.kill, (worker, signal.SIGKILL))
        killing.start()
        section = campaign.run(6 * len(kinds.IDEAS), seed=8, quiet=True)
        killing.join()
    finally:
        run("deploy.server", "stop", *instance)
    assert any(f"[{worker}]" in each for each in section["workers"]["restarts"])
    assert any(fault.startswith("a worker changed") for fault in program.broken(section))
