"""What an answer says of its rows: JMESPath to the place, and from there to labels and probabilities.

`answer` may lead to the numbers of one row, to a list of such, or to one flat list of all rows' numbers, as the Open
Inference Protocol has it: what counts is that they are as many as rows times classes. Logits become probabilities by
their softmax. Of top-k answers the classes that are not named have the probability 0.
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
    """labels: int64 (n,). probabilities: float32 (n, K), None where labels alone are told. flagged: bool (n,)."""

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
        self._answer = jmespath.compile(target.answer)
        self._names = jmespath.compile(target.names) if target.names else None
        self._flag = jmespath.compile(target.flag) if target.flag else None

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self._target.class_names)}

    def read(self, body: bytes, rows: int) -> Read:
        """The answer to a request of so many rows. Raises Unread."""
        content = self._content(body)
        found = self._answer.search(content)
        if found is None:
            raise self._unread(f"nothing at {self._target.answer!r} in", body)
        try:
            labels, probabilities = self._rows(found, content, rows)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise self._unread(f"at {self._target.answer!r} {error} in", body) from None
        if probabilities is not None:
            probabilities = probabilities[:, self._order]
        labels = self._positions[labels]
        flagged = np.full(rows, bool(self._flag.search(content)) if self._flag else False)
        return Read(labels, probabilities, flagged)

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
            told = found if isinstance(found, list) else [found]
            if len(told) != rows:
                raise ValueError(f"expected {rows} labels, got {len(told)}")
            return np.array([self._place(each) for each in told], np.int64), None
        if scale == "top-k":
            numbers = self._named(found, content, rows)
        else:
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
        return numbers.argmax(axis=1), numbers

    def _named(self, found: Any, content: Any, rows: int) -> NDArray[np.float32]:
        """Numbers by name, one table for each row: of tables, or of two lists side by side."""
        if self._names is not None:
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
