"""What the answer must be: our decoder's word on the bytes, and the answers to the same pixels asked plainly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assurance.fuzz.case import Seen, Subject, posted
from assurance.fuzz.door import ANSWERED, Door, Reply
from handlers import wire
from handlers.bodies import form_of
from handlers.errors import RequestError, WorkWanted
from handlers.forms import FIVE, PREDICTIONS, STOCK
from handlers.oip import Inference

# between a row's probabilities in one batch and in another
TOLERANCE = 1e-6


class Row(NamedTuple):
    """The response to a row: a label with its probabilities (None: not shown), or a code."""

    label: int
    probabilities: NDArray[np.float32] | None
    code: str = ""

    def like(self, other: Row) -> bool:
        """Whether both say the same."""
        if (self.label, self.code) != (other.label, other.code):
            return False
        if self.probabilities is None or other.probabilities is None:
            return self.probabilities is other.probabilities
        return bool(np.abs(self.probabilities - other.probabilities).max() <= TOLERANCE)


def refused(code: str) -> Row:
    """A row without an answer."""
    return Row(-1, None, code)


class ReferenceFailedError(RuntimeError):
    """The plain request was not answered: the message says how."""


def read_rows(reply: Reply, rows: int) -> list[Row]:
    """What an answer of ours says of each of `rows` rows; an error of the whole is every row's. Raises WireError."""
    if reply.status != 200:
        return [refused(wire.decode_error(reply.body).code)] * max(rows, 1)
    labels, probabilities, errors = wire.decode_answers(reply.body)
    shown = [None] * len(labels) if probabilities is None else list(probabilities)
    return [
        refused(errors[row].code) if row in errors else Row(int(labels[row]), shown[row]) for row in range(len(labels))
    ]


def asked(door: Door, subject: Subject, images: NDArray[np.float32]) -> list[Row]:
    """The rows' answers to an honest request. Raises ReferenceFailedError."""
    case = posted("reference", "plain", subject, wire.RAW, wire.encode_rows(images, wire.RAW))
    reply = door.ask(case)
    if reply.how != ANSWERED or reply.status >= 500:
        raise ReferenceFailedError(
            f"{subject.model}: an honest request got {reply.how} {reply.status} {reply.body[:200]!a}"
        )
    return read_rows(reply, len(images))


def expected(door: Door, subject: Subject, seen: Seen) -> list[Row]:
    """What the rows of a body must get. Raises ReferenceFailedError."""
    try:
        rows = wire.decode_message(seen.message, expects=subject.accepts)
    except RequestError as error:
        return [refused(error.code)]
    answers = iter(asked(door, subject, rows.images) if len(rows.images) else [])
    count = len(rows.images) + len(rows.errors)
    return [refused(rows.errors[row].code) if row in rows.errors else next(answers) for row in range(count)]


def agrees(reply: Reply, rows: list[Row], seen: Seen | None = None, names: Sequence[str] = ()) -> str | None:
    """What is wrong with one of our answers to these rows, or None. seen: the request, whose form the answer is to
    have; names: of the classes. Raises WireError."""
    form = PREDICTIONS if seen is None else form_of(seen.message)
    if isinstance(form, Inference):
        return _inferred(reply, rows, names)
    if form is STOCK and reply.status == 200:
        labels, shown, errors = wire.decode_stock(reply.body, names)
        assert shown is not None
        read = [
            refused(errors[row].code) if row in errors else Row(int(labels[row]), shown[row])
            for row in range(len(labels))
        ]
        return _different(read, [row if row.code else likeliest(row, len(names)) for row in rows])
    if all(row.code for row in rows):
        owing = [row.code for row in rows if row.code == WorkWanted.code]
        wanted = (owing or [row.code for row in rows])[0]
        got = read_rows(reply, 1)[0]
        return (
            None if reply.status != 200 and got.code == wanted else f"expected {wanted}, got {_said(reply.status, got)}"
        )
    if reply.status != 200:
        return f"expected answers, got {_said(reply.status, read_rows(reply, 1)[0])}"
    return _different(read_rows(reply, len(rows)), rows)


def likeliest(row: Row, classes: int) -> Row:
    """What TorchServe's form shows of a row: five classes; the label alone where there are no probabilities."""
    shown = np.zeros(classes, np.float32)
    if row.probabilities is None:
        shown[row.label] = 1
    else:
        order = np.argsort(-row.probabilities, kind="stable")[:FIVE]
        shown[order] = row.probabilities[order]
    return Row(row.label, shown)


def _inferred(reply: Reply, rows: list[Row], names: Sequence[str]) -> str | None:
    """The same of the Open Inference Protocol, which has no answer for a row."""
    wrong = [row.code for row in rows if row.code]
    if wrong:
        wanted = WorkWanted.code if WorkWanted.code in wrong else wrong[0]
        if reply.status == 200:
            return f"expected {wanted}, got outputs"
        got = wire.decode_inference_error(reply.body).code
        return None if got == wanted else f"expected {wanted}, got {reply.status} {got}"
    if reply.status != 200:
        return f"expected outputs, got {reply.status} {wire.decode_inference_error(reply.body).code}"
    outputs = wire.decode_inference(reply.body, reply.headers)
    labels = np.array([row.label for row in rows])
    if "label" in outputs and not np.array_equal(outputs["label"], labels):
        return f"expected labels {labels.tolist()}, got {outputs['label'].tolist()}"
    if "name" in outputs and outputs["name"].tolist() != [names[label] for label in labels]:
        return f"expected the names of {labels.tolist()}, got {outputs['name'].tolist()}"
    if "probabilities" in outputs:
        shown = [row.probabilities for row in rows if row.probabilities is not None]
        if len(shown) != len(rows) or not np.abs(outputs["probabilities"] - shown).max() <= TOLERANCE:
            return f"expected probabilities {shown}, got {outputs['probabilities'].tolist()}"
    return None if outputs else "expected outputs, got none"


def _different(got_rows: list[Row], rows: list[Row]) -> str | None:
    if len(got_rows) != len(rows):
        return f"expected {len(rows)} rows, got {len(got_rows)}"
    for place, (got, wanted_row) in enumerate(zip(got_rows, rows, strict=True)):
        if not got.like(wanted_row):
            return f"row {place}: expected {_said(200, wanted_row)}, got {_said(200, got)}"
    return None


def _said(status: int, row: Row) -> str:
    shown = "" if row.probabilities is None else f" {row.probabilities.tolist()}"
    return f"{status} {row.code or f'label {row.label}'}{shown}"
