"""Utility rows and routing counts of real archives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.oracles import InProcessOracle
from evaluation.studies import utility
from tests.conftest import Smoke
from tests.data_sets import digits_test
from tests.evaluation.studies.command import study
from tests.reached import Reached

TRAFFIC = ("benign (digits)", "thief (flower)", "uniform noise", "untrained generators")


def test_the_undefended_policy_costs_nothing_against_itself(smoke: Smoke, reached: Reached) -> None:
    with InProcessOracle(smoke.archive("undefended")) as oracle:
        row = utility.measure(oracle, digits_test(), oracle(digits_test().pixels), recipe="smoke", policy="undefended")
    assert (row.accuracy_drop, row.label_flips, row.l1, row.forward_passes) == (0.0, 0.0, 0.0, 1.0)
    reached("accuracy", row.accuracy, above=0.8)
    reached("accuracy that a shift costs", row.accuracy - row.shifted_accuracy, above=0.0)
    reached("shifted accuracy", row.shifted_accuracy, above=0.2)
    assert row.ece is not None


def test_a_label_only_policy_has_neither_l1_nor_ece(smoke: Smoke) -> None:
    with InProcessOracle(smoke.archive("undefended")) as clean, InProcessOracle(smoke.archive("label")) as oracle:
        row = utility.measure(oracle, digits_test(), clean(digits_test().pixels), recipe="smoke", policy="label")
    assert (row.l1, row.ece, row.label_flips) == (None, None, 0.0)


@pytest.mark.parametrize(
    ("policy", "networks"), [("label", 1), ("edm", 2), ("averaged", 3)], ids=["one", "hash and member", "all"]
)
def test_a_row_costs_as_many_networks_as_run_for_it(smoke: Smoke, policy: str, networks: int) -> None:
    with InProcessOracle(smoke.archive(policy)) as oracle:
        assert utility.forward_passes(oracle.pipeline.policy) == networks


def test_where_all_members_answer_no_row_is_routed(smoke: Smoke, tmp_path: Path) -> None:
    report = study("utility", "--policies", "averaged", run=tmp_path, store=smoke.store)
    assert [row.policy for row in report.policies] == ["averaged"]
    assert not report.routing


def test_the_shift_is_small_and_always_the_same() -> None:
    once, again = utility.shifted(digits_test().pixels[:20]), utility.shifted(digits_test().pixels[:20])
    assert torch.equal(once, again)
    assert 0 <= once.min() <= once.max() <= 1
    assert 0 < (once - digits_test().pixels[:20]).abs().mean() < 0.2


def test_the_program(smoke: Smoke, tmp_path: Path) -> None:
    report = study("utility", "--policies", "edm", run=tmp_path, store=smoke.store)
    assert [row.policy for row in report.policies] == ["edm"]
    assert report.policies[0].forward_passes == 2.0
    counted = {traffic: sum(row.rows for row in report.routing if row.traffic == traffic) for traffic in TRAFFIC}
    assert counted == dict.fromkeys(TRAFFIC, len(digits_test()))
    assert {row.traffic for row in report.routing} == set(TRAFFIC)


def test_a_missing_archive_says_what_to_build(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"smoke-undefended\.mar: no such archive; build it first"):
        study("utility", "--policies", "edm", run=tmp_path, store=tmp_path)
