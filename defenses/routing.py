"""Routing: which member answers a row, by a secret perceptual hash.

EDM, Kariyappa et al., ICLR 2021, sec. 4.2.1.

A hash turns the hash graph's outputs for an image into one of `values` integers; a table turns that integer
into a member. The paper takes the value modulo the number of members. Here the table is drawn from the
deployment's key, so that a new key gives a new assignment without training a new hash.

The hash graph computes in whole numbers (zoo/hash_net.py), so its outputs and with them a row's member are the
same at every batch size and on every backend, on a border as well as off it.

To add a hash: its class here and its line in HASHES; its fields are the keys that a policy's `route:` gives next to
`hash` and `graph`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from defenses import ranges

Outputs = Mapping[str, NDArray[np.float32]]
Integers = NDArray[np.int64]

KEY_BYTES = 32


class Hash(Protocol):
    """What HASHES holds: N rows of graph outputs -> (N,) int64, each in 0 .. values-1, row by row."""

    @property
    def values(self) -> int:
        """How many hash values there are."""

    @property
    def reads(self) -> Mapping[str, int]:
        """The outputs of the hash graph that it reads: name -> columns."""

    def __call__(self, outputs: Outputs, /) -> Integers: ...


@dataclass(frozen=True)
class ClassConfidence:
    """H(x) = m * c + min(floor(m * r), m - 1), with c = argmax q, v = max q and r = (M v - 1) / (M - 1).

    q is the hash graph's softmax over the M classes of its secret task. v lies in [1/M, 1], so r lies in [0,
    1]; it is clamped, because v = 1 would otherwise open a bin that belongs to class c + 1, and float
    rounding may leave v a little below 1/M. Equal entries of q: the smaller class.

    classes: M, from 2. bins: m, from 1.
    """

    classes: int
    bins: int

    def __post_init__(self) -> None:
        ranges.integer("classes", self.classes, 2, 10_000)
        ranges.integer("bins", self.bins, 1, 1_000)

    @property
    def values(self) -> int:
        return self.classes * self.bins

    @property
    def reads(self) -> Mapping[str, int]:
        return {"probabilities": self.classes}

    def __call__(self, outputs: Outputs, /) -> Integers:
        probabilities = outputs["probabilities"]
        classes = probabilities.argmax(axis=1)
        confidence = probabilities.max(axis=1).astype(np.float64)
        rescaled = (self.classes * confidence - 1) / (self.classes - 1)
        bins = np.clip(np.floor(self.bins * rescaled), 0, self.bins - 1)
        values: Integers = self.bins * classes + bins.astype(np.int64)
        return values


@dataclass(frozen=True)
class Projection:
    """The leaf of a tree of 2^depth - 1 hyperplanes that a row's features fall into, counted from the left.

    Node p asks whether column p of `projections` is above 0; its children are 2p + 1 (no) and 2p + 2 (yes). The
    graph holds the hyperplanes, keyed and balanced on mixed traffic (training/hash_tree.py); none goes through
    what a whole number can be, so no column is 0.

    depth: levels of the tree, from 1.
    """

    depth: int

    def __post_init__(self) -> None:
        ranges.integer("depth", self.depth, 1, 12)

    @property
    def values(self) -> int:
        return 1 << self.depth

    @property
    def reads(self) -> Mapping[str, int]:
        return {"projections": self.values - 1}

    def __call__(self, outputs: Outputs, /) -> Integers:
        above = (outputs["projections"] > 0).tobytes()
        inner = self.values - 1
        leaves = []
        # a handful of rows: steps of Python touch less code, which graphs push out of the caches, than arrays do
        for first in range(0, len(above), inner):
            node = 0
            for _ in range(self.depth):
                node = 2 * node + 1 + above[first + node]
            leaves.append(node - inner)
        return np.array(leaves, np.int64)


HASHES: dict[str, type[Hash]] = {
    "class-confidence": ClassConfidence,
    "projection": Projection,
}


def member_table(key: bytes, *, values: int, members: int) -> Integers:
    """(values,) int64, read-only: the member, 0 .. members-1, of each hash value.

    Each run of `members` consecutive values goes to the members in a separate order, that of
    HMAC-SHA256(HMAC-SHA256(key, "torchwarden/route/table"), run and member): neighbours never share a member, so
    that traffic which knows few neighbouring values still reaches many members, whatever the key. The last run is
    shorter where the division leaves a rest. Raises ValueError on a short key and on fewer values than members (some
    member would never be asked).
    """
    if not isinstance(key, bytes) or len(key) < KEY_BYTES:
        got = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
        raise ValueError(f"the member table needs a key of at least {KEY_BYTES} bytes, got {got}")
    if not 1 <= members <= values:
        raise ValueError(f"expected from 1 to {values} members, one hash value each at least, got {members}")
    subkey = hmac.digest(key, b"torchwarden/route/table", "sha256")
    table = np.empty(values, np.int64)
    for first in range(0, values, members):
        drawn = sorted(range(members), key=lambda member: hmac.digest(subkey, b"%d/%d" % (first, member), "sha256"))
        table[first : first + members] = drawn[: values - first]
    table.setflags(write=False)
    return table


@dataclass(frozen=True, eq=False)
class Router:
    """Hash graph outputs of N rows -> (N,) int64 members. The table is secret and stays out of its repr."""

    hash: Hash
    table: Integers = field(repr=False)

    def __call__(self, outputs: Outputs, /) -> Integers:
        return self.table.take(self.hash(outputs))
