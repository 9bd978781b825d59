"""Is this the answer? A 200 is not enough: what a benign client checks about a body, and a hostile one too."""

from __future__ import annotations

import numpy as np

from handlers import oip, wire
from handlers.errors import Rejected, WorkWanted

# what a gate says of a row in place of an answer
GATE = (Rejected.code, WorkWanted.code)


def check_answer(body: bytes, *, rows: int, classes: int, sum_tolerance: float, protocol: bool = False) -> wire.Decoded:
    """The decoded body of a 200, proven to answer `rows` good rows of a `classes`-way classifier. protocol: it is the
    Open Inference Protocol's.

    Raises WireError, saying which promise is broken: a row each, no row at fault (a gate may refuse some), labels in
    range; where probabilities are returned, `classes` of them in [0, 1] that sum to 1 within `sum_tolerance`, the
    label's a largest one.
    """
    decoded = tensors(body) if protocol else wire.decode_answers(body)
    labels, probabilities, errors = decoded
    if len(labels) != rows:
        raise wire.WireError(f"{len(labels)} answers for {rows} rows")
    for row, fault in errors.items():
        if fault.code not in GATE:
            raise wire.WireError(f"row {row} of a good request was refused: {fault.code}: {fault.message}")
    answered = [row for row in range(rows) if row not in errors]
    labels, probabilities = labels[answered], None if probabilities is None else probabilities[answered]
    if not ((labels >= 0) & (labels < classes)).all():
        raise wire.WireError(f"labels {sorted(set(labels.tolist()))} are not all in 0 to {classes - 1}")
    if probabilities is None:
        return decoded
    if probabilities.shape != (len(answered), classes):
        raise wire.WireError(f"probabilities {probabilities.shape}, expected {(len(answered), classes)}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise wire.WireError("a probability is not in [0, 1]")
    off = np.abs(probabilities.sum(axis=1) - 1).max()
    if off > sum_tolerance:
        raise wire.WireError(f"probabilities sum to 1 +- {off:.4f}, allowed is {sum_tolerance}")
    if not (probabilities[np.arange(len(answered)), labels] == probabilities.max(axis=1)).all():
        raise wire.WireError("a label is not the argmax of its probabilities")
    return decoded


def tensors(body: bytes) -> wire.Decoded:
    """An answer of the Open Inference Protocol, which has no errors of rows. Raises WireError."""
    try:
        return wire.Decoded(*oip.decode_answers(body), {})
    except ValueError as error:
        raise wire.WireError(str(error)) from error


def refused(status: int, body: bytes, *, protocol: bool = False) -> bool:
    """Whether an answer that is not a 200 is a gate's refusal. protocol: as above."""
    if status not in (Rejected.status, WorkWanted.status):
        return False
    return (oip.code_of(body) if protocol else wire.decode_error(body).code) in GATE


def check_refusal(status: int, body: bytes, *, statuses: tuple[int, ...], code: str | None) -> None:
    """That a hostile request got a stated status and, unless `code` is None, our error body with that code.

    `code` is None where TorchServe answers before our code runs. Raises WireError.
    """
    if status not in statuses:
        raise wire.WireError(f"status {status}, expected {' or '.join(map(str, statuses))}; body {body[:120]!a}")
    if code is not None:
        fault = wire.decode_error(body)
        if fault.code != code:
            raise wire.WireError(f"code {fault.code!r}, expected {code!r}")
