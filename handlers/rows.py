"""A request's rows: the good ones as images, the others as faults."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from defenses.policy import Policy
from handlers.errors import NoRows, RequestError, TooManyRows
from handlers.forms import PREDICTIONS, Form
from pictures.geometry import Geometry

Images = NDArray[np.float32]


class Accepts(NamedTuple):
    """What reading a request asks of a policy, as far as a client knows it."""

    input: Geometry
    max_rows: int


Expects: TypeAlias = "Policy | Accepts"


@dataclass(frozen=True, eq=False)
class Rows:
    """A request's rows: the good ones as images (n,C,H,W) float32 in [0, 1], in order; the others' faults.

    errors: by the row's index. A request at fault as a whole has no images and one fault. paid: whether the request
    came with a proof of work for all its rows. form: of the answer.
    """

    images: Images
    errors: dict[int, RequestError] = field(default_factory=dict)
    paid: bool = False
    form: Form = PREDICTIONS

    @classmethod
    def refused(cls, error: RequestError, expects: Geometry, form: Form = PREDICTIONS) -> Rows:
        """A request of which nothing can be answered."""
        return cls(np.empty((0, *expects.shape), np.float32), {0: error}, form=form)

    @classmethod
    def gathered(cls, read: Iterable[Images | RequestError], count: int, expects: Geometry, form: Form) -> Rows:
        """Of `count` rows read one by one, those that could not be read as their errors."""
        images = np.empty((count, *expects.shape), np.float32)
        errors: dict[int, RequestError] = {}
        good = 0
        for row, each in enumerate(read):
            if isinstance(each, RequestError):
                each.row = row
                errors[row] = each
            else:
                images[good] = each
                good += 1
        return cls(images[:good], errors, form=form)

    def as_refused(self, error: RequestError) -> Rows:
        """The same request with none of its rows to be answered."""
        return Rows(self.images[:0], {0: error}, form=self.form)

    def as_paid(self) -> Rows:
        """The same request with a proof of work for all its rows."""
        return replace(self, paid=True)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the images: the same for the same pixels, whatever content type brought them."""
        hasher = hashlib.sha256(str(self.images.shape).encode())
        hasher.update(np.ascontiguousarray(self.images, "<f4").data)
        return hasher.digest()

    @property
    def places(self) -> list[int]:
        """For each image, the index of its row in the request."""
        return [row for row in range(len(self.images) + len(self.errors)) if row not in self.errors]


def check_count(rows: int, expects: Expects) -> None:
    """Raises NoRows, TooManyRows."""
    if rows == 0:
        raise NoRows("expected at least one row, got none")
    if rows > expects.max_rows:
        raise TooManyRows(f"expected at most {expects.max_rows} rows, got {rows}")
