"""Bodies as the server writes them in the form of predictions, for tests of who reads them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from handlers.errors import RequestError
from handlers.forms import PREDICTIONS, Answered, Challenge, Classes


def encode_answers(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32] | None,
    errors: Mapping[int, RequestError],
    challenge: Challenge | None = None,
    *,
    classes: Classes,
) -> bytes:
    """The body of a 200: labels (n,) and probabilities (n,K) or None of the good rows, the others' errors by the row's
    index, and the challenge of the rows that want a proof of work."""
    return PREDICTIONS.answers(Answered(labels, probabilities, errors, None, challenge), classes).body


def encode_error(error: RequestError, challenge: Challenge | None = None) -> bytes:
    """The body of an answer that is not a 200."""
    return PREDICTIONS.error(error, challenge).body
