"""How an answer is written: this product's predictions, or TorchServe's own map of names to probabilities.

    predictions   {"predictions": [{"label", "name", "probabilities"}, ...]}, a row each, in order; of the top-k rule,
                  `top_k` has the names of what it shows, the likeliest first. A row at fault is
                  {"error": {"code", "message", "row"}} at its place
    TorchServe    {"name": probability, ...} of the likeliest five, the likeliest first, and a list of these for several
                  rows; 1 for the label where a policy shows no probabilities

Where every row is at fault, or the request as a whole is, the error is the body and its status the request's. Where
rows want a proof of work, either body has a `challenge` also. The Open Inference Protocol's form is handlers/oip.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from defenses.policy import Policy
from handlers.errors import RequestError

Challenge = Mapping[str, Any]  # as ALTCHA's libraries write and read it

JSON = "application/json"
# what an `Accept` header asks TorchServe's own form with
TORCHSERVE = "application/vnd.torchserve+json"
# classes that TorchServe's image classifier names
FIVE = 5


class Classes(NamedTuple):
    """names: of the classes. top_k: how many a top-k rule shows; 0: the rule is another."""

    names: tuple[str, ...]
    top_k: int = 0

    @classmethod
    def of(cls, policy: Policy) -> Classes:
        """A policy's."""
        top_k = policy.response.options["k"] if policy.response.rule == "top_k" else 0
        return cls(policy.class_names, int(top_k))


class Answered(NamedTuple):
    """labels (n,) and probabilities (n,K), or None, of the good rows, in order; the others' errors by the row's index,
    the `foremost` of them (None: there is none), and the challenge of those that want a proof of work."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32] | None
    errors: Mapping[int, RequestError] = {}
    foremost: RequestError | None = None
    challenge: Challenge | None = None


class Encoded(NamedTuple):
    """One answer as HTTP has it."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = {}


class Form(Protocol):
    """What writes answers."""

    def answers(self, answered: Answered, classes: Classes) -> Encoded:
        """Of a request with at least one good row."""

    def error(self, error: RequestError, challenge: Challenge | None = None) -> Encoded:
        """Of a request without any."""


class _Ours:
    def error(self, error: RequestError, challenge: Challenge | None = None) -> Encoded:
        """The error's status, and what it says."""
        return Encoded(error.status, orjson.dumps({**_error(error), **_with(challenge)}))


class Predictions(_Ours):
    """This product's."""

    def answers(self, answered: Answered, classes: Classes) -> Encoded:
        """Probabilities are written in the shortest form that reads back to the same float32."""
        rows = _in_order(_predictions(answered, classes), answered)
        body = {"predictions": rows, **_with(answered.challenge)}
        return Encoded(HTTPStatus.OK, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


class Stock(_Ours):
    """TorchServe's own, for clients that were written for its image classifier."""

    def answers(self, answered: Answered, classes: Classes) -> Encoded:
        """An object for one row, a list of them for several; a challenge stands in a row's error."""
        rows = _in_order(_likeliest(answered, classes), answered)
        for row in rows:
            if "error" in row:
                row.update(_with(answered.challenge))
        return Encoded(HTTPStatus.OK, orjson.dumps(rows[0] if len(rows) == 1 else rows))


PREDICTIONS, STOCK = Predictions(), Stock()


def _predictions(answered: Answered, classes: Classes) -> Iterable[dict[str, Any]]:
    labels = answered.labels.tolist()
    if answered.probabilities is None:
        return ({"label": label, "name": classes.names[label]} for label in labels)
    pairs = zip(labels, np.ascontiguousarray(answered.probabilities), strict=True)
    if classes.top_k:
        return (
            {
                "label": label,
                "name": classes.names[label],
                "top_k": _named(row, classes, classes.top_k),
                "probabilities": row,
            }
            for label, row in pairs
        )
    return ({"label": label, "name": classes.names[label], "probabilities": row} for label, row in pairs)


def _likeliest(answered: Answered, classes: Classes) -> Iterable[dict[str, Any]]:
    if answered.probabilities is None:
        return ({classes.names[label]: 1.0} for label in answered.labels.tolist())
    return (_named(row, classes, FIVE) for row in answered.probabilities)


def _named(row: NDArray[np.float32], classes: Classes, most: int) -> dict[str, Any]:
    order = np.argsort(-row, kind="stable")[:most]
    return {classes.names[label]: float(row[label]) for label in order.tolist()}


def _in_order(good: Iterable[dict[str, Any]], answered: Answered) -> list[dict[str, Any]]:
    answers = iter(good)
    count = len(answered.labels) + len(answered.errors)
    return [_error(answered.errors[row]) if row in answered.errors else next(answers) for row in range(count)]


def _with(challenge: Challenge | None) -> dict[str, Any]:
    return {} if challenge is None else {"challenge": challenge}


def _error(error: RequestError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": error.message, "row": error.row}}
