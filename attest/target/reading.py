"""What an answer says of its rows: JMESPath to the place, and from there to labels and probabilities.

`answer` may lead to the numbers of one row, to a list of such, or to one flat list of all rows' numbers, as the Open
Inference Protocol has it: what counts is that they are as many as rows times classes. Logits become probabilities by
their softmax. Of top-k answers the classes that are not named have the probability 0. An answer that has nothing at
`answer` and something at `label` withholds its numbers, and counts as flagged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jmespath
import numpy as np
import orjson
from numpy.typing import NDArray

from attest.target.table import SENDS, Target
from deploy.grpc_front.messages import message

# of an answer that a message quotes
LETTERS = 160
# of a flat list in a message of the Open Inference Protocol
RAW = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "INT64": "<i8", "INT32": "<i4", "UINT8": "u1"}
FIELDS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents", "INT32": "int_contents"}
# a softmax in float16 may be as far from 0 or 1
SLACK = 1e-3


class Unread(ValueError):  # noqa: N818 - of the service, not of ours
    """An answer without what the target file says is in it; the message says what was found there."""


@dataclass(frozen=True)
class Read:
    """labels: int64 (n,). probabilities: float32 (n, K), as they are told: rows may sum to anything above 0; None where
    labels alone are told. flagged: bool (n,)."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32] | None
    flagged: NDArray[np.bool_]


class Reader:
    """Reads the answers of one target. classes: all of its classes, in the order in which labels and numbers are given,
    as the owner's images have them; (): the file's."""

    def __init__(self, target: Target, classes: Sequence[str] = ()) -> None:
        self._target = target
        self._order = np.array([target.class_names.index(name) for name in classes or target.class_names])
        self._positions = self._order.argsort()
        # nothing is there until a file says so
        self._answer, self._names, self._flag, self._label = (
            jmespath.compile(place or "`null`") for place in (target.answer, target.names, target.flag, target.label)
        )

    @property
    def columns(self) -> int:
        """How many probabilities an answer has, 0: labels alone are told."""
        return 0 if self._target.scale == "label" else len(self._order)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self._target.class_names)}

    def read(self, body: bytes, rows: int) -> Read:
        """The answer to a request of so many rows. Raises Unread."""
        content, place = self._content(body), self._target.answer
        try:
            found, label = self._answer.search(content), self._label.search(content)
            flagged = bool(self._flag.search(content))
            withheld = found in (None, []) and label not in (None, [])
            if withheld:
                place = self._target.label
                labels, probabilities = self._told(label, rows), None
            elif found is None:
                raise self._unread(f"nothing at {place!r} in", body)
            else:
                labels, probabilities = self._rows(found, content, rows)
        except Unread:
            raise
        # JMESPath's own functions raise its errors, which are ValueErrors, at values of another type
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
            raise self._unread(f"at {place!r} {error} in", body) from None
        if probabilities is not None:
            probabilities = probabilities[:, self._order]
        return Read(self._positions[labels], probabilities, np.full(rows, flagged or withheld))

    def _content(self, body: bytes) -> Any:
        if SENDS[self._target.send].grpc:
            return outputs(body)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            if self._target.scale == "label" and self._target.answer == "@":
                return body.decode("utf-8", "replace").strip()
            raise self._unread("expected JSON, got", body) from None

    def _rows(self, found: Any, content: Any, rows: int) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        scale, classes = self._target.scale, len(self._target.class_names)
        if scale == "label":
            return self._told(found, rows), None
        if scale == "top-k":
            numbers = self._named(found, content, rows)
        else:
            with np.errstate(over="ignore"):  # what is too large for a float32 is not finite, and said below
                flat = np.array(found, np.float32).ravel()
            if flat.size != rows * classes:
                raise ValueError(f"expected {rows} x {classes} numbers, got {flat.size}")
            numbers = flat.reshape(rows, classes)
        if not np.isfinite(numbers).all():
            raise ValueError("expected finite numbers, got others")
        if scale == "logits":
            numbers = softmax(numbers)
        elif numbers.min() < -SLACK or numbers.max() > 1 + SLACK:
            raise ValueError(f"expected {scale} from 0 to 1, got {numbers.min():.4g} to {numbers.max():.4g}")
        elif numbers.max(axis=1).min() <= 0:
            raise ValueError(f"expected {scale}, got a row without any above 0")
        return numbers.argmax(axis=1), numbers

    def _told(self, found: Any, rows: int) -> NDArray[np.int64]:
        """Labels as positions in the file's classes."""
        told = found if isinstance(found, list) else [found]
        if len(told) != rows:
            raise ValueError(f"expected {rows} labels, got {len(told)}")
        return np.array([self._place(each) for each in told], np.int64)

    def _named(self, found: Any, content: Any, rows: int) -> NDArray[np.float32]:
        """Numbers by name, one table for each row: of tables, or of two lists side by side."""
        if self._target.names:
            names = self._names.search(content)
            if names is None:
                raise ValueError(f"nothing at {self._target.names!r}")
            nested = bool(names) and isinstance(names[0], list)
            pairs = zip(names, found, strict=True) if nested else [(names, found)]
            tables = [dict(zip(map(str, keys), values, strict=True)) for keys, values in pairs]
        else:
            tables = found if isinstance(found, list) else [found]
        if len(tables) != rows or not all(isinstance(table, dict) and table for table in tables):
            raise ValueError(f"expected {rows} tables of numbers by name")
        numbers = np.zeros((rows, len(self._target.class_names)), np.float32)
        for row, table in enumerate(tables):
            for name, value in table.items():
                numbers[row, self._place(name)] = value
        return numbers

    def _place(self, told: Any) -> int:
        """The position of a class that was told by name, or by its position."""
        if str(told) in self._places:
            return self._places[str(told)]
        if isinstance(told, int) and not isinstance(told, bool) and 0 <= told < len(self._places):
            return told
        raise ValueError(
            f"expected a class of the file, or a position below {len(self._places)}, got {str(told)[:40]!r}"
        )

    def _unread(self, what: str, body: bytes) -> Unread:
        return Unread(self._target.hidden(f"{what} {body[:LETTERS].decode('utf-8', 'replace')!r}"))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp z_k / sum_j exp z_j of each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def outputs(body: bytes) -> dict[str, Any]:
    """A ModelInferResponse as the protocol's JSON has it, numbers alone. Raises Unread."""
    try:
        answered = message("ModelInferResponse").FromString(body)
    except Exception as error:  # protobuf's own class differs between its implementations
        raise Unread(f"expected a ModelInferResponse, got {len(body)} bytes ({type(error).__name__})") from None
    found = []
    for place, tensor in enumerate(answered.outputs):
        if tensor.datatype not in RAW:
            data: list[Any] = []
        elif place < len(answered.raw_output_contents):
            data = np.frombuffer(answered.raw_output_contents[place], RAW[tensor.datatype]).tolist()
        else:
            data = list(getattr(tensor.contents, FIELDS.get(tensor.datatype, "uint_contents")))
        found.append({"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "data": data})
    return {"outputs": found}
