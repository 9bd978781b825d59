"""Each thing that must not be is complained of, and what may be is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from assurance.fuzz import frontend
from assurance.fuzz.case import Case, Seen
from assurance.fuzz.door import ANSWERED, CUT, GARBLED, SILENT, Reply
from assurance.fuzz.judge import CODES, FRONT_END, OURS, judge
from assurance.fuzz.reference import Row, refused
from handlers import forms, wire
from handlers.errors import Internal, Rejected, Undecodable, WorkWanted, WrongShape
from handlers.forms import STOCK, Answered, Classes, Form
from handlers.oip import Inference
from tests.answers import encode_answers, encode_error

CASE = Case("kind", "idea", "model", b"POST / HTTP/1.1\r\n\r\n", b"body", seen=Seen("image/png", b"body"))
FREE = replace(CASE, seen=None, refusable=True)
TORCHSERVE = json.dumps({"code": 400, "type": "BadRequestException", "message": "Invalid HTTP message."}).encode()
SHOWN = np.array([0.25, 0.75], np.float32)
ROW = Row(1, SHOWN)

CLASSES = Classes(tuple(map(str, range(10))))


def answered(status: int, body: bytes, **more: bytes) -> Reply:
    return Reply(ANSWERED, status, {}, body, **more)


def answers(*rows: Row) -> Reply:
    good = [row for row in rows if not row.code]
    bad = {place: Undecodable("expected another", row=place) for place, row in enumerate(rows) if row.code}
    labels = np.array([row.label for row in good])
    shown = np.array([row.probabilities for row in good])
    return answered(200, encode_answers(labels, shown, bad, classes=CLASSES))


def error(kind: type[Undecodable] | type[Rejected] | type[Internal] | type[WorkWanted]) -> Reply:
    return answered(kind.status, encode_error(kind("expected another")))


def never() -> list[Row]:
    raise AssertionError("asked what to expect where nothing is")


FINE: list[tuple[Case, Reply, Callable[[], list[Row]], str]] = [
    (CASE, answers(ROW), lambda: [ROW], "200"),
    (CASE, answers(ROW, refused("undecodable")), lambda: [ROW, refused("undecodable")], "200"),
    (CASE, error(Undecodable), lambda: [refused("undecodable")], "400 undecodable"),
    (CASE, error(WorkWanted), lambda: [refused("wrong_shape"), refused("proof_of_work")], "428 proof_of_work"),
    (replace(CASE, also=("rejected",)), error(Rejected), never, "403 rejected"),
    (FREE, answered(400, TORCHSERVE), never, "400 BadRequestException"),
    (FREE, answered(413, b""), never, "413 empty"),
    (FREE, answered(200, b"{}"), never, "200"),
    (FREE, answered(200, b"{}", more=b"HTTP/1.1 200"), never, "200"),
    (FREE, answered(505, b"<html>"), never, "505 other"),
    (replace(FREE, head=b"GET /\r\n\r\n"), Reply(GARBLED, body=b"{}"), never, "garbled"),
    (FREE, Reply(CUT), never, "cut"),
    (replace(FREE, complete=False), Reply(SILENT), never, "silent"),
]


@pytest.mark.parametrize(("case", "reply", "expected", "label"), FINE)
def test_what_may_be(case: Case, reply: Reply, expected: Callable[[], list[Row]], label: str) -> None:
    verdict = judge(case, reply, expected)
    assert (verdict.label, verdict.complaint) == (label, None)


FAULTS: list[tuple[Case, Reply, list[Row], str, str]] = [
    (FREE, Reply(SILENT), [], "no answer within the deadline", FRONT_END),
    (CASE, Reply(CUT), [], "closed without an answer", FRONT_END),
    (FREE, Reply(GARBLED, body=b"x"), [], "no HTTP came back: b'x'", FRONT_END),
    (CASE, error(Internal), [], "status 500", OURS),
    (FREE, answered(503, b'{"type": "InternalServerException"}'), [], "status 503", OURS),
    (FREE, answered(500, b'{"type": "ArrayIndexOutOfBoundsException"}'), [], "status 500", FRONT_END),
    (CASE, answered(400, TORCHSERVE), [], "refused by the front end", FRONT_END),
    (CASE, answered(400, b'{"error": {"code": "new", "message": "", "row": null}}'), [], "not documented", OURS),
    (CASE, answered(403, encode_error(Undecodable("a"))), [], "not documented", OURS),
    (CASE, answered(200, b"{}"), [ROW], 'expected {"predictions"', OURS),
    (CASE, error(Undecodable), [refused("wrong_shape")], "expected wrong_shape, got 400 undecodable", OURS),
    (CASE, error(Undecodable), [ROW], "expected answers, got 400 undecodable", OURS),
    (CASE, answers(ROW), [refused("undecodable")], "expected undecodable, got 200 label 1", OURS),
    (CASE, answers(ROW), [ROW, ROW], "expected 2 rows, got 1", OURS),
    (CASE, answers(ROW), [Row(0, SHOWN)], "row 0: expected 200 label 0", OURS),
    (CASE, answers(ROW), [Row(1, SHOWN + np.float32(2e-6))], "row 0: expected 200 label 1", OURS),
    (CASE, answers(ROW), [Row(1, None)], "row 0", OURS),
    (CASE, answers(ROW, refused("undecodable")), [ROW, ROW], "row 1: expected 200 label 1", OURS),
    (
        replace(FREE, head=b"POST / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n"),
        answered(200, b"{}", more=b"HTTP/1.1 200"),
        [],
        "two answers",
        FRONT_END,
    ),
    (replace(CASE, idea="two-at-once"), answered(200, b"{}"), [ROW], "not what the contract says", FRONT_END),
]


NAMES = CLASSES.names
MANY = np.linspace(0, 0.2, 10, dtype=np.float32)
FULL = Row(9, MANY)
STOCK_CASE = replace(CASE, seen=Seen("image/png", b"body", (("accept", forms.TORCHSERVE),)))
INFERENCE = replace(CASE, seen=Seen(wire.JSON, b'{"inputs": []}'))
BAD = refused("wrong_shape")


def encoded(form: Form, *rows: Row) -> Reply:
    good = [row for row in rows if not row.code]
    faults = {place: WrongShape("another", row=place) for place, row in enumerate(rows) if row.code}
    labels = np.array([row.label for row in good])
    shown = None if good[0].probabilities is None else np.array([row.probabilities for row in good])
    foremost = next(iter(faults.values()), None)
    made = form.answers(Answered(labels, shown, faults, foremost), CLASSES)
    return Reply(ANSWERED, made.status, {name.lower(): value for name, value in made.headers.items()}, made.body)


V2, BINARY = Inference("m"), Inference("m", binary=True)
SOME = Inference("m", outputs=(("label", True), ("name", True)))
HIDDEN = Row(9, None)


@pytest.mark.parametrize(
    ("case", "reply", "rows", "label"),
    [
        (STOCK_CASE, encoded(STOCK, FULL), [FULL], "200"),
        (STOCK_CASE, encoded(STOCK, FULL, BAD, FULL), [FULL, BAD, FULL], "200"),
        (STOCK_CASE, encoded(STOCK, HIDDEN), [HIDDEN], "200"),
        (STOCK_CASE, error(Undecodable), [refused("undecodable")], "400 undecodable"),
        *((INFERENCE, encoded(form, FULL, FULL), [FULL, FULL], "200") for form in (V2, BINARY, SOME)),
        (INFERENCE, encoded(V2, HIDDEN), [HIDDEN], "200"),
        (INFERENCE, encoded(V2, FULL, BAD), [FULL, BAD], "400 wrong_shape"),
    ],
)
def test_every_form_of_an_answer_is_read(case: Case, reply: Reply, rows: list[Row], label: str) -> None:
    verdict = judge(case, reply, lambda: rows, NAMES)
    assert (verdict.label, verdict.complaint) == (label, None)


OTHER = Row(9, MANY + np.float32(1e-5))


@pytest.mark.parametrize(
    ("case", "reply", "rows", "words"),
    [
        (STOCK_CASE, encoded(STOCK, FULL), [OTHER], "row 0: expected 200 label 9"),
        (STOCK_CASE, encoded(STOCK, FULL), [Row(8, MANY)], "row 0: expected 200 label 8"),
        (STOCK_CASE, encoded(STOCK, FULL, BAD), [FULL, FULL], "row 1: expected 200 label 9"),
        (STOCK_CASE, encoded(STOCK, FULL), [FULL, FULL], "expected 2 rows, got 1"),
        (STOCK_CASE, answers(FULL), [FULL], "not what the contract says"),
        (INFERENCE, encoded(V2, FULL), [OTHER], "expected probabilities"),
        (INFERENCE, encoded(BINARY, FULL), [OTHER], "expected probabilities"),
        (INFERENCE, encoded(V2, FULL), [HIDDEN], "expected probabilities"),
        (INFERENCE, encoded(SOME, FULL), [Row(8, MANY)], "expected labels [8], got [9]"),
        (INFERENCE, encoded(V2, FULL), [BAD], "expected wrong_shape, got outputs"),
        (INFERENCE, encoded(V2, FULL, BAD), [FULL, FULL], "expected outputs, got 400 wrong_shape"),
        (
            INFERENCE,
            encoded(V2, FULL, BAD),
            [FULL, refused("undecodable")],
            "expected undecodable, got 400 wrong_shape",
        ),
        (INFERENCE, answers(FULL), [FULL], "not what the contract says"),
        (INFERENCE, answered(400, b'{"error": "without a code"}'), [BAD], "not documented"),
    ],
)
def test_every_form_of_an_answer_can_be_wrong(case: Case, reply: Reply, rows: list[Row], words: str) -> None:
    verdict = judge(case, reply, lambda: rows, NAMES)
    assert verdict.complaint is not None
    assert words in verdict.complaint


@pytest.mark.parametrize(("case", "reply", "rows", "words", "whose"), FAULTS)
def test_what_must_not_be(case: Case, reply: Reply, rows: list[Row], words: str, whose: str) -> None:
    verdict = judge(case, reply, lambda: rows)
    assert verdict.complaint is not None
    assert words in verdict.complaint
    assert verdict.whose == whose


def test_rows_may_differ_by_what_a_batch_does_to_sums() -> None:
    assert judge(CASE, answers(ROW), lambda: [Row(1, SHOWN + np.float32(5e-7))]).complaint is None


def test_every_code_has_its_status() -> None:
    assert CODES["undecodable"] == 400
    assert CODES["proof_of_work"] == 428
    assert CODES["internal"] == 500
    assert len(CODES) >= 15


def test_only_what_was_seen_of_the_front_end_is_known_of_it() -> None:
    known = judge(FREE, answered(500, b'{"type": "ArrayIndexOutOfBoundsException"}'), never)
    news = judge(FREE, answered(500, b'{"type": "NullPointerException"}'), never)
    assert frontend.mended(FREE, known) is not None
    assert frontend.mended(FREE, news) is None
