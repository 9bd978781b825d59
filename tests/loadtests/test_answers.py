"""What a benign client accepts as an answer, and a hostile one as a refusal."""

from __future__ import annotations

import numpy as np
import pytest

from handlers import wire
from handlers.errors import NotFinite, Rejected, RequestError, WorkWanted
from handlers.forms import Classes
from handlers.wire import WireError
from loadtests.answers import check_answer, check_refusal, refused
from tests.answers import encode_answers, encode_error

GOOD = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
LABELS = np.array([0, 2])

CLASSES = Classes(tuple(map(str, range(10))))


def checked(labels: np.ndarray, probabilities: np.ndarray | None, *, rows: int = 2) -> wire.Decoded:
    body = encode_answers(labels, probabilities, {}, classes=CLASSES)
    return check_answer(body, rows=rows, classes=3, sum_tolerance=1e-3)


def test_a_good_answer_passes() -> None:
    answer = checked(LABELS, GOOD)
    assert answer.labels.tolist() == [0, 2]
    assert checked(LABELS, None).probabilities is None


def test_a_tie_may_have_either_label() -> None:
    tie = np.array([[0.5, 0.5, 0.0]], np.float32)
    assert checked(np.array([1]), tie, rows=1).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("labels", "probabilities", "rows", "message"),
    [
        (LABELS, GOOD, 3, "2 answers for 3 rows"),
        (np.array([0, 3]), None, 2, r"labels \[0, 3\] are not all in 0 to 2"),
        (LABELS, GOOD[:, :2], 2, r"probabilities \(2, 2\), expected \(2, 3\)"),
        (LABELS, GOOD * np.float32(1.1), 2, r"sum to 1 \+- 0.1"),
        (LABELS, np.array([[1.5, -0.3, -0.2], [0, 0, 1]], np.float32), 2, r"not in \[0, 1\]"),
        (np.array([0, 1]), GOOD, 2, "not the argmax"),
    ],
)
def test_a_broken_promise_is_named(
    labels: np.ndarray, probabilities: np.ndarray | None, rows: int, message: str
) -> None:
    with pytest.raises(WireError, match=message):
        checked(labels, probabilities, rows=rows)


def test_a_refused_row_of_a_good_request_is_named() -> None:
    body = encode_answers(LABELS[:1], GOOD[:1], {1: NotFinite("bad", row=1)}, classes=CLASSES)
    with pytest.raises(WireError, match="row 1 of a good request was refused: not_finite"):
        check_answer(body, rows=2, classes=3, sum_tolerance=1e-3)


def test_a_page_of_html_is_no_answer() -> None:
    with pytest.raises(WireError, match="expected"):
        check_answer(b"<html>", rows=1, classes=3, sum_tolerance=1e-3)


def test_refusals() -> None:
    body = encode_error(NotFinite("bad"))
    check_refusal(400, body, statuses=(400,), code="not_finite")
    check_refusal(0, b"", statuses=(413, 0), code=None)
    with pytest.raises(WireError, match="status 200, expected 413 or 0"):
        check_refusal(200, body, statuses=(413, 0), code=None)
    with pytest.raises(WireError, match="code 'not_finite', expected 'undecodable'"):
        check_refusal(400, body, statuses=(400,), code="undecodable")
    with pytest.raises(WireError, match="expected"):
        check_refusal(400, b'{"code": 400}', statuses=(400,), code="not_finite")


@pytest.mark.parametrize("kind", [Rejected, WorkWanted])
def test_a_gate_may_refuse_some_rows_of_a_good_request_and_the_others_are_checked(kind: type[RequestError]) -> None:
    refusal = {1: kind("no", row=1)}
    body = encode_answers(LABELS[:1], GOOD[:1], refusal, classes=CLASSES)
    assert check_answer(body, rows=2, classes=3, sum_tolerance=1e-3).labels.tolist() == [0, -1]
    wrong = encode_answers(LABELS[:1], GOOD[:1] * np.float32(1.1), refusal, classes=CLASSES)
    with pytest.raises(WireError, match="sum to 1"):
        check_answer(wrong, rows=2, classes=3, sum_tolerance=1e-3)
    with pytest.raises(WireError, match="row 1 of a good request was refused: not_finite"):
        check_answer(
            encode_answers(LABELS[:1], None, {1: NotFinite("no", row=1)}, classes=CLASSES),
            rows=2,
            classes=3,
            sum_tolerance=1e-3,
        )


def test_a_gates_refusal_is_distinguished_from_other_errors() -> None:
    assert refused(403, encode_error(Rejected("no", row=0)))
    assert refused(428, encode_error(WorkWanted("pay", row=0)))
    assert not refused(400, encode_error(NotFinite("no", row=0)))
    with pytest.raises(WireError):
        refused(403, b"<html>a gateway's own</html>")
