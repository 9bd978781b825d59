"""Every bad request is answered as its line in CASES says, by the handler's own code."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from evaluation.oracles import InProcessOracle
from loadtests.answers import check_answer, check_refusal
from loadtests.malformed import CASES, Case
from tests.conftest import Smoke
from zoo import datasets


@cache
def one_row() -> np.ndarray:
    return datasets.load("digits", "test").pixels[:1].numpy()


OURS = [case for case in CASES if case.code is not None]


@pytest.fixture(scope="module")
def oracle(smoke: Smoke) -> Iterator[InProcessOracle]:
    with InProcessOracle(smoke.archive("edm")) as opened:
        yield opened


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_a_bad_request_gets_its_stated_answer(oracle: InProcessOracle, case: Case) -> None:
    request = case.make(one_row(), 1000)
    check_refusal(*oracle.post(request.body, request.content_type), statuses=case.statuses, code=case.code)


def test_the_other_cases_are_torchserves_or_good() -> None:
    assert {case.name for case in CASES} - {case.name for case in OURS} == {
        "huge-body",
        "no-token",
        "wrong-token",
        "describe-header",
    }


def test_a_good_row_under_a_describe_header_is_a_good_row(oracle: InProcessOracle) -> None:
    request = next(case for case in CASES if case.name == "describe-header").make(one_row(), 1000)
    status, body = oracle.post(request.body, request.content_type)
    assert status == 200
    check_answer(body, rows=1, classes=10, sum_tolerance=1e-3)
    assert request.headers == {"describe": "True"}


def test_a_huge_body_is_one_byte_too_long() -> None:
    huge = next(case for case in CASES if case.name == "huge-body")
    assert len(huge.make(one_row(), 5000).body) == 5001


def test_making_a_bad_request_leaves_the_good_row_alone() -> None:
    before = one_row().copy()
    for case in CASES:
        case.make(one_row(), 100)
    assert np.array_equal(before, one_row())
