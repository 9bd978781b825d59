"""Coherence: vectors worked out by hand, and the rows of real archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.oracles import InProcessOracle
from evaluation.studies import coherence
from report.rows.routing import CoherenceRow
from report.schema import ResultError
from tests.conftest import Smoke
from tests.data_sets import digits_test
from tests.evaluation.studies.command import study
from tests.reached import Reached


def test_the_largest_cosine_of_any_pair() -> None:
    # members 0 and 2 agree; (0.6, 0.8) against an axis has cosine 0.6; orthogonal answers 0
    answers = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]], [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]])
    assert np.allclose(coherence.coherence(answers), [1.0, 0.8])
    assert coherence.coherence(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).tolist() == [0.0]


def test_everyone_answers_and_one_of_them_is_served(smoke: Smoke) -> None:
    images = digits_test().pixels[:70]  # more than the archive takes in one request
    with InProcessOracle(smoke.archive("edm")) as oracle:
        all_members, members, served = oracle.everyone(images), oracle.members(images), oracle(images).probabilities
    assert all_members.shape == (70, 3, 10)
    assert served is not None
    assert torch.allclose(all_members[torch.arange(70), members], served, atol=1e-6)


def test_the_program(smoke: Smoke, tmp_path: Path, reached: Reached) -> None:
    report = study("coherence", "--policies", "edm", run=tmp_path, store=smoke.store)
    rows = {row.traffic: row for row in report.coherence}
    assert {"benign (digits)", "thief (flower)"} <= set(rows)
    reached("more coherent on digits", rows["benign (digits)"].mean - rows["thief (flower)"].mean, above=0.0)
    assert all(list(row.percentiles) == sorted(row.percentiles) for row in rows.values())


def test_one_member_has_nobody_to_agree_with(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="coherence is between members; this policy has one"):
        study("coherence", "--policies", "undefended", run=tmp_path, store=smoke.store)


def test_a_row_holds_a_hundred_and_one_fractions() -> None:
    with pytest.raises(ResultError, match="percentiles: expected 101 fractions"):
        CoherenceRow("digits", "edm", "noise", 10, 0.5, (0.1, 0.2))


def test_archives_tell_how_their_networks_were_trained(smoke: Smoke, tmp_path: Path, reached: Reached) -> None:
    report = study("training", "--policies", "undefended", "edm", "label", run=tmp_path, store=smoke.store)
    rows = {row.predictor: row for row in report.training}
    assert set(rows) == {"victim", "edm"}
    assert (rows["edm"].members, rows["edm"].epochs, rows["edm"].lambda_diversity) == (3, 8, 1.0)
    assert (rows["victim"].members, rows["victim"].lambda_diversity, rows["victim"].coherence) == (1, None, None)
    reached("accuracy", rows["edm"].validation_accuracy, above=0.7)
    with InProcessOracle(smoke.archive("label")) as oracle:  # a TorchScript graph gives the same
        assert oracle.trained("victim")["settings"]["victim"]["architecture"] == "lenet5"
