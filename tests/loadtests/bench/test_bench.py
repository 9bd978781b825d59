"""The bench on the smoke product: each path really measured, for moments; a real server started, asked and stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
import pytest
import torch

import recipes
from handlers import wire
from loadtests import target
from loadtests.bench import closedloop, inprocess, overhttp, studies
from loadtests.bench.overhttp import BenchError, Serving
from loadtests.bench.rounds import Probe, Sample, interleaved
from loadtests.bench.studies import Effort, Subject
from loadtests.bench.targets import select
from loadtests.oracles import InProcessOracle
from tests.conftest import RECIPE, Smoke
from tests.loadtests.stub import Stub

BENCHED = ("undefended", "edm", "label")
MOMENT = Effort(http_s=0.2, process_s=0.02, warm_s=1.0, rounds=2, settings_rounds=1, batches=(1, 4))
Opened = Mapping[tuple[str, str], InProcessOracle]


@pytest.fixture(scope="module")
def subject(smoke: Smoke) -> Subject:
    recipe = recipes.read(RECIPE)
    archived = {name: table for name, table in recipe.tables["policies"].items() if name in BENCHED}
    recipe = dataclasses.replace(recipe, tables={**recipe.tables, "policies": archived})
    return studies.prepare(recipe, store=smoke.store, data=None)


@pytest.fixture(scope="module")
def opened(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    with studies.oracles(subject, tmp_path_factory.mktemp("bench")) as oracles:
        yield oracles


def test_rows_meet_the_members_in_turn() -> None:
    images = torch.arange(5.0).reshape(5, 1, 1, 1)
    rows = inprocess.spread(images, torch.tensor([2, 0, 0, 2, 0])).flatten().tolist()
    assert len(rows) == 2 * inprocess.ROWS_A_MEMBER
    assert rows[:8] == [1, 0, 2, 3, 4, 0, 1, 3]


def test_a_recipes_rows_are_a_png_files_pixels_and_meet_its_members_in_turn(subject: Subject) -> None:
    assert {("undefended", "onnxruntime"), ("edm", "onnxruntime"), ("label", "torchscript")} == set(subject.archives)
    assert subject.members_met > 1
    np.testing.assert_allclose(subject.rows * 255, np.rint(subject.rows * 255), atol=1e-4)
    with InProcessOracle(subject.archives["edm", "onnxruntime"]) as oracle:
        members = oracle.members(torch.from_numpy(subject.rows)).tolist()
    assert len(set(members)) == subject.members_met
    assert members == members[: subject.members_met] * inprocess.ROWS_A_MEMBER


def test_rounds_take_turns_and_the_first_is_not_counted() -> None:
    order: list[str] = []

    def probe(name: str) -> Probe:
        def measure(seconds: float) -> Sample:
            order.append(name)
            turn = float(order.count(name))
            return Sample(np.array([turn, turn]), rows_per_s=10 * turn, cpu_ms={"process": turn}, stages_ms={})

        facts = {"policy": name, "architecture": "none", "path": "pipeline", "batch": 1, "clients": 1}
        return Probe(facts, measure, seconds=1.0)

    rows = interleaved([probe("a"), probe("b")], rounds=3, name="test")
    assert order == ["a", "b"] * 4
    assert [row.policy for row in rows] == ["a", "b"]
    assert rows[0].p50_rounds == (2.0, 3.0, 4.0)
    assert (rows[0].p50_ms, rows[0].rows_per_s, rows[0].cpu_ms, rows[0].rss_mb) == (3.0, 30.0, {"process": 3.0}, None)


def test_spinning_and_router_in_process(subject: Subject, opened: Opened) -> None:
    rows = studies.spinning(subject, MOMENT) + studies.router(subject, opened, MOMENT)
    assert [(row.batch, row.spinning) for row in select(rows, study="spinning")] == [
        (batch, spin) for batch in (1, 4) for spin in (False, True)
    ]
    by_policy = {row.policy: row for row in select(rows, study="router")}
    assert set(by_policy["undefended"].stages_ms) == {"members", "python"}
    edm = by_policy["edm"]
    assert set(edm.stages_ms) == {"hash", "members", "python"}
    assert all(value > 0 for value in edm.stages_ms.values())
    assert all(len(row.rate_rounds) >= MOMENT.rounds and row.cpu_ms["process"] > 0 for row in rows)


def test_graphs_and_python_are_the_whole_of_a_call(subject: Subject, opened: Opened) -> None:
    call = inprocess.clocked(opened["edm", "onnxruntime"])
    started = perf_counter()
    spent = call(subject.rows[:8])
    wall = perf_counter() - started
    assert 0 < sum(spent.values()) <= wall


def test_an_archive_served_otherwise_answers_the_same(smoke: Smoke, tmp_path: Path) -> None:
    original, other = smoke.archive("edm"), Serving(workers=2, threads=1, batch_size=3, max_batch_delay_ms=7)
    copy = overhttp.reserve(original, other, tmp_path, "other")
    assert overhttp.serving(original) == Serving(workers=1, threads=1, batch_size=8, max_batch_delay_ms=5)
    assert overhttp.serving(copy) == other
    assert copy.stat().st_mode & 0o077 == 0
    images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with InProcessOracle(original) as before, InProcessOracle(copy) as after:
        assert torch.equal(before(images).labels, after(images).labels)
    with pytest.raises(BenchError, match=r"absent\.mar: no such archive; build it first"):
        overhttp.serving(tmp_path / "absent.mar")


def test_the_client_counts_answers_and_stops_at_a_wrong_status(smoke: Smoke, tmp_path: Path) -> None:
    with Stub({"smoke-undefended": smoke.archive("undefended")}, tmp_path) as stub:
        server = target.read("default", run_folder=tmp_path)
        body = wire.encode_rows(np.zeros((1, 1, 28, 28), np.float32), wire.RAW)
        good = closedloop.request(server, "smoke-undefended", body, wire.RAW)
        assert wire.decode_answers(closedloop.ask(server, good)).labels.shape == (1,)
        before = stub.queries
        driven = closedloop.drive(server, [good], clients=3, seconds=0.3)
        assert len(driven.latencies_ms) == stub.queries - before > 3
        assert driven.seconds >= 0.3
        assert 0 < driven.latencies_ms.min() <= driven.latencies_ms.max() < 1000 * driven.seconds
        bad = closedloop.request(server, "smoke-undefended", b"no image", wire.PNG)
        with pytest.raises(closedloop.ClientError, match="expected status 200, got"):
            closedloop.drive(server, [bad], clients=1, seconds=0.3)


@pytest.mark.server
def test_every_path_of_a_recipe(subject: Subject, opened: Opened, tmp_path: Path) -> None:
    rows = studies.paths(subject, opened, MOMENT, tmp_path / "run")
    assert {(row.path, row.policy, row.backend) for row in rows} == {
        ("onnxruntime", "undefended", "onnxruntime"),
        *((path, *key) for path in ("pipeline", "http") for key in subject.archives),
    }
    for row in select(rows, path="http"):
        assert 0 < row.p50_ms <= row.p99_ms
        assert (row.workers, row.threads, row.batch_size, row.max_batch_delay_ms) == (1, 1, 8, 5)
        assert row.rss_mb is not None
        assert row.pss_mb is not None
        assert 100 < row.pss_mb <= row.rss_mb
        assert set(row.cpu_ms) == {"worker", "java", "client"}
        assert {"decode", "predict", "respond", "encode"} <= set(row.stages_ms)
        assert ("route" in row.stages_ms) == (row.policy == "edm")
    assert {(row.clients, row.body) for row in select(rows, path="http", policy="edm")} == {
        (clients, body) for clients in (1, studies.SATURATION) for body in (wire.RAW, wire.PNG)
    }
    assert not (tmp_path / "run" / "bench" / "server.json").exists(), "the server must be stopped"


@pytest.mark.server
def test_a_failure_stops_the_server_and_a_wrong_answer_is_one(subject: Subject, smoke: Smoke, tmp_path: Path) -> None:
    met: list[psutil.Process] = []

    def ask_the_wrong_archive() -> None:
        with (
            InProcessOracle(smoke.archive("edm")) as other,
            overhttp.server([smoke.archive("undefended")], run_folder=tmp_path) as running,
        ):
            met.append(running.java)
            overhttp.check(running, "smoke-undefended", other, subject.rows[:4])

    with pytest.raises(
        BenchError, match=r"(?s)^smoke-undefended: over HTTP .*, in process .*: expected equal answers$"
    ):
        ask_the_wrong_archive()
    assert met
    assert not met[0].is_running() or met[0].status() == psutil.STATUS_ZOMBIE
