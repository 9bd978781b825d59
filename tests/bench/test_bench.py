"""The bench on the smoke product: each path really measured, for moments; a real server started, asked and stopped."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
import pytest
import torch

import recipes
from bench import closedloop, inprocess, overhttp, studies
from bench.overhttp import BenchError, Serving
from bench.rounds import Probe, Sample, interleaved
from bench.studies import Effort, Subject
from evaluation.oracles import InProcessOracle
from handlers import wire
from loadtests import target
from loadtests.own_server import ServerError
from report.bench_targets import select
from report.rows.bench import PNG, RAW
from tests.conftest import RECIPE, Smoke
from tests.evaluation.stub import Stub
from zoo import datasets

BENCHED = ("undefended", "edm", "label", "meco", "same-reject")
ONNX = ("undefended", "edm", "meco", "same-reject")
MOMENT = Effort(http_s=0.2, process_s=0.02, warm_s=1.0, rounds=2, settings_rounds=1, batches=(1, 4))


@pytest.fixture(scope="module")
def subject(smoke: Smoke, noisy: Smoke, gated: Smoke) -> Subject:
    return studies.prepare(recipes.read(RECIPE), policies=BENCHED, store=smoke.store, data=None)


def test_rows_go_to_the_members_in_turn() -> None:
    images = torch.arange(5.0).reshape(5, 1, 1, 1)
    rows = inprocess.spread(images, torch.tensor([2, 0, 0, 2, 0])).flatten().tolist()
    assert len(rows) == 2 * inprocess.ROWS_A_MEMBER
    assert rows[:8] == [1, 0, 2, 3, 4, 0, 1, 3]


def test_a_recipes_rows_are_a_png_files_pixels_and_go_to_its_members_in_turn(subject: Subject) -> None:
    assert {("label", "torchscript"), *((policy, "onnxruntime") for policy in ONNX)} == set(subject.archives)
    assert set(subject.members_met) == {"edm"}
    rows, count = subject.rows["edm"], subject.members_met["edm"]
    assert count > 1
    assert all(subject.rows[policy] is rows for policy in BENCHED)
    np.testing.assert_allclose(rows * 255, np.rint(rows * 255), atol=1e-4)
    with InProcessOracle(subject.archives["edm", "onnxruntime"]) as oracle:
        members = oracle.members(torch.from_numpy(rows)).tolist()
    assert len(set(members)) == count
    assert members == members[:count] * inprocess.ROWS_A_MEMBER
    assert subject.member_mb > 0


def test_no_gate_stops_a_row_that_is_measured(subject: Subject) -> None:
    with InProcessOracle(subject.archives["same-reject", "onnxruntime"]) as oracle:
        images = inprocess.candidates(recipes.read(RECIPE).section("dataset", datasets.Data), None)
        assert "reject" in oracle.pipeline(images[-200:].numpy()).decisions
        assert set(oracle.pipeline(subject.rows["same-reject"]).decisions) == {"answer"}


def test_a_bench_needs_the_policies_that_it_compares_with(smoke: Smoke) -> None:
    with pytest.raises(BenchError, match="smoke: expected the policies undefended and edm among those to be measured"):
        studies.prepare(recipes.read(RECIPE), policies=["edm"], store=smoke.store, data=None)


def test_rounds_take_turns_and_the_first_is_not_counted() -> None:
    order: list[str] = []

    def probe(name: str) -> Probe:
        def measure(seconds: float) -> Sample:
            order.append(name)
            turn = float(order.count(name))
            return Sample(
                np.array([turn, turn]), rows_per_s=10 * turn, cpu_ms={"process": turn}, stages_ms={"predict": 2 * turn}
            )

        facts = {"policy": name, "architecture": "none", "path": "pipeline", "batch": 1, "clients": 1}
        return Probe(facts, measure, seconds=1.0)

    rows = interleaved([probe("a"), probe("b")], rounds=3, name="test")
    assert order == ["a", "b"] * 4
    assert [row.policy for row in rows] == ["a", "b"]
    assert rows[0].p50_rounds == (2.0, 3.0, 4.0)
    assert (rows[0].p50_ms, rows[0].rows_per_s, rows[0].cpu_ms, rows[0].rss_mb) == (3.0, 30.0, {"process": 3.0}, None)
    assert (rows[0].stages_ms, rows[0].stages_rounds) == ({"predict": 6.0}, {"predict": (4.0, 6.0, 8.0)})


def test_spinning_and_clocks_in_process(subject: Subject) -> None:
    rows = studies.spinning(subject, MOMENT) + studies.clocks(subject, MOMENT)
    assert [(row.batch, row.spinning) for row in select(rows, study="spinning")] == [
        (batch, spin) for batch in (1, 4) for spin in (False, True)
    ]
    assert [row.batch for row in select(rows, study="clocks")] == [1] * len(ONNX) + [8] * len(ONNX)
    by_policy = {row.policy: row for row in select(rows, study="clocks", batch=8)}
    assert set(by_policy) == set(ONNX)
    assert set(by_policy["undefended"].stages_ms) == {"members", "python"}
    assert set(by_policy["meco"].stages_ms) == {"members", "others", "python"}
    edm = by_policy["edm"]
    assert set(edm.stages_ms) == {"hash", "members", "python"}
    assert all(value > 0 for value in edm.stages_ms.values())
    assert all(len(row.rate_rounds) >= MOMENT.rounds and row.cpu_ms["process"] > 0 for row in rows)


def test_graphs_and_python_are_the_whole_of_a_call(subject: Subject) -> None:
    with InProcessOracle(subject.archives["edm", "onnxruntime"]) as oracle:
        call = inprocess.clocked(oracle)
        started = perf_counter()
        spent = call(subject.rows["edm"][:8])
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
    with pytest.raises(ServerError, match=r"absent\.mar: no such archive; build it first"):
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
def test_every_path_of_a_recipe(subject: Subject, tmp_path: Path) -> None:
    rows = studies.paths(subject, MOMENT, tmp_path / "run")
    assert {(row.path, row.policy, row.backend) for row in rows} == {
        ("onnxruntime", "undefended", "onnxruntime"),
        *((path, *key) for path in ("pipeline", "http") for key in subject.archives),
    }
    for row in select(rows, path="http"):
        assert 0 < row.p50_ms <= row.p99_ms
        assert (row.workers, row.threads, row.batch_size, row.max_batch_delay_ms) == (1, 1, 8, 5)
        assert row.rss_mb is not None
        assert row.pss_mb is not None
        assert 10 < row.pss_mb <= row.rss_mb
        assert set(row.cpu_ms) == {"worker", "java", "client"}
        assert {"decode", "predict", "respond", "encode"} <= set(row.stages_ms)
        assert ("route" in row.stages_ms) == (row.policy == "edm")
    for policy, bodies in (("edm", (wire.RAW, wire.PNG)), ("meco", (wire.RAW,))):
        assert {(row.clients, row.body) for row in select(rows, path="http", policy=policy)} == {
            (clients, body) for clients in (1, studies.SATURATION) for body in bodies
        }
    (twin,) = select(rows, path="http", backend="torchscript")
    assert (twin.clients, twin.body) == (studies.SATURATION, wire.RAW)
    assert not (tmp_path / "run" / "bench" / "server.json").exists(), "the server must be stopped"


@pytest.mark.server
def test_one_client_of_archives_without_batches(subject: Subject, tmp_path: Path) -> None:
    rows = studies.single(subject, MOMENT, tmp_path / "run")
    assert {(row.policy, row.path) for row in rows} == {
        (policy, path) for policy in ONNX for path in ("pipeline", "http")
    }
    for row in rows:
        assert (row.batch, row.clients, row.batch_size) == (1, 1, 1 if row.path == "http" else None)
        assert all(rate > 0 for rate in row.rate_rounds)


@pytest.mark.server
def test_a_failure_stops_the_server_and_a_wrong_answer_is_one(subject: Subject, smoke: Smoke, tmp_path: Path) -> None:
    children: list[psutil.Process] = []

    def ask_the_wrong_archive() -> None:
        with (
            InProcessOracle(smoke.archive("edm")) as other,
            overhttp.server([smoke.archive("undefended")], run_folder=tmp_path) as running,
        ):
            children.append(running.java)
            overhttp.check(running, "smoke-undefended", other, subject.rows["edm"][:4])

    with pytest.raises(
        BenchError, match=r"(?s)^smoke-undefended: over HTTP .*, in process .*: expected equal answers$"
    ):
        ask_the_wrong_archive()
    assert children
    assert not children[0].is_running() or children[0].status() == psutil.STATUS_ZOMBIE


def test_rows_name_bodies_as_the_wire_does() -> None:
    assert (RAW, PNG) == (wire.RAW, wire.PNG)
