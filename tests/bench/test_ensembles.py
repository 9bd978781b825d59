"""What ensembles cost: a real averaged and a real routed archive, few rounds."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np
import pytest

from bench import inprocess
from bench.costs import ensembles
from bench.costs.ensembles import Resident, Subject
from bench.memory import of_this_process
from evaluation.oracles import InProcessOracle, OracleError
from tests.bench.command import cost
from tests.conftest import Smoke
from tests.evaluation import gated
from zoo import datasets

MEMBERS = ["edm-0", "edm-1", "edm-2"]


def test_the_program(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensembles, "of_a_fresh_process", of_this_process)
    words = ("--batches", "1", "8", "--policies", "undefended", "averaged", "edm")
    report = cost("ensembles", *words, run=tmp_path, store=smoke.store)
    rows = {(row.policy, row.batch): row for row in report.ensemble_costs}
    assert set(rows) == {(policy, batch) for policy in ("undefended", "averaged", "edm") for batch in (1, 8)}
    for row in rows.values():
        assert row.ms == pytest.approx(median(row.ms_rounds), abs=1e-4)
        assert len(row.ms_rounds) == 3
        assert (row.threads, set(row.architectures)) == (1, {"lenet5"})
        assert min(row.ms_rounds) > 0
        assert row.peak_mb is not None
        assert row.held_mb is not None
    assert [rows[policy, 8].forward_passes for policy in ("undefended", "averaged", "edm")] == [1.0, 3.0, 2.0]
    undefended, averaged, routed = (rows[policy, 8] for policy in ("undefended", "averaged", "edm"))
    assert (list(undefended.members_ms_rounds), undefended.routed_ms_rounds, undefended.hash_ms_rounds) == (
        ["victim"],
        {},
        (),
    )
    assert (averaged.members_met, averaged.routed_ms_rounds, averaged.hash_ms_rounds) == (3, {}, ())
    # one checkpoint's members are timed once, for both
    assert list(averaged.members_ms_rounds) == MEMBERS
    assert averaged.members_ms_rounds == routed.members_ms_rounds
    # each of them, one after the other, and what is around them
    assert averaged.ms > 0.8 * sum(median(rounds) for rounds in averaged.members_ms_rounds.values())
    assert len(routed.routed_ms_rounds) == routed.members_met > 1
    assert set(routed.routed_ms_rounds) <= set(MEMBERS)
    assert len(routed.hash_ms_rounds) == 3


def test_a_turn_uses_every_member_equally_often(smoke: Smoke) -> None:
    images = inprocess.candidates(datasets.Data("digits"), None)
    with InProcessOracle(smoke.archive("edm")) as oracle, InProcessOracle(smoke.archive("averaged")) as averaging:
        subject, other = Subject.of("edm", oracle, images), Subject.of("averaged", averaging, images)
        assert (subject.turn, other.turn) == (subject.met, 1)
        for batch in (1, 8):
            met = oracle.pipeline(subject.rows[: batch * subject.turn]).members
            assert set(np.bincount(met)[np.bincount(met) > 0]) == {batch}
        for member, rows in subject.by_member.items():
            assert {oracle.pipeline.policy.members[number] for number in oracle.pipeline(rows).members} == {member}
        assert subject.graph("edm-0") == other.graph("edm-0") != subject.graph("edm-1")
        assert other.by_member == {}


@pytest.mark.parametrize(("batch", "turn"), [(1, 3), (8, 1), (40, 2)])
def test_a_call_is_a_whole_turn_of_batches(batch: int, turn: int) -> None:
    seen: list[int] = []

    def call(images: inprocess.Images) -> dict[str, float]:
        seen.append(len(images))
        return {}

    probe = ensembles._probe(call, np.zeros((32, 1, 2, 2), np.float32), batch, turn, seconds=0.001)
    probe.measure(0.001)
    assert set(seen) == {batch}
    assert len(seen) % turn == 0


def test_a_process_holds_a_whole_archive_or_one_of_its_graphs(smoke: Smoke) -> None:
    images = np.ascontiguousarray(datasets.load("digits", "test").pixels[:4].numpy())
    with InProcessOracle(smoke.archive("edm")) as oracle:
        for resident in (Resident(oracle.folder), Resident(oracle.folder, "edm-1", "onnxruntime", threads=1)):
            with resident.answering() as call:
                stages = call(images)
            assert ("route" in stages) == (resident.graph is None)
        oracle.folder.joinpath("graphs/edm-0.onnx").unlink()
        # the graph alone needs no other
        with Resident(oracle.folder, "edm-1", "onnxruntime", threads=1).answering() as call:
            call(images)


def test_policies_of_different_threads_are_refused(tmp_path: Path) -> None:
    images = datasets.load("digits", "test").pixels[:8]
    with (
        InProcessOracle(gated.archive(tmp_path, "one")) as one,
        InProcessOracle(gated.archive(tmp_path, "two", threads=2)) as two,
    ):
        subjects = [Subject.of(name, oracle, images) for name, oracle in (("one", one), ("two", two))]
        with pytest.raises(OracleError, match=r"threads: expected as many of every policy, got .'one': 1, 'two': 2."):
            list(ensembles.measure(subjects, batch=1, rounds=1, seconds=0.01))


def test_the_command_line_is_checked(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        cost("ensembles", "--policies", "edm", "--batches", "0", run=tmp_path, store=smoke.store)
    with pytest.raises(SystemExit, match=r"smoke-nothing\.mar: no such archive; build it first"):
        cost("ensembles", "--policies", "nothing", run=tmp_path, store=smoke.store)
