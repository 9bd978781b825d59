"""A Merkle tree over the lines of a ledger, as Certificate Transparency hashes its logs (RFC 9162, section 2.1).

    leaf(d)      = SHA-256(0x00 || d)
    parent(l, r) = SHA-256(0x01 || l || r)
    root({})     = SHA-256()
    root(D)      = parent(root(D[0:k]), root(D[k:n])), k the largest power of two below n

The first byte keeps leaves and inner nodes apart, so that no inner node can be shown as a line. Built from below, a
last node without a sibling moves up unchanged: the same tree. An inclusion proof is the list of the siblings on the way
from a leaf to the root. It shows that one line is in the ledger, and of the others nothing but hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from attest.evidence.errors import EvidenceError


class ProofError(EvidenceError):
    """A path that cannot belong to the leaf and the tree that it is said to belong to."""


def leaf(data: bytes) -> bytes:
    """The hash of a line, 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def root(lines: Sequence[bytes]) -> bytes:
    """The root over all lines in their order, 32 bytes."""
    *_, top = _levels(lines)
    return top[0] if top else hashlib.sha256().digest()


def path(lines: Sequence[bytes], index: int) -> list[bytes]:
    """The siblings from line `index` up to the root. Raises IndexError for a line that is not there."""
    if not 0 <= index < len(lines):
        raise IndexError(f"line {index}: expected one of 0 to {len(lines) - 1}")
    siblings = []
    for level in _levels(lines):
        if index ^ 1 < len(level):
            siblings.append(level[index ^ 1])
        index //= 2
    return siblings


def root_by(line: bytes, index: int, size: int, siblings: Sequence[bytes]) -> bytes:
    """The root of a tree of `size` lines in which `line` is the one at `index`, by its siblings (RFC 9162, 2.1.3.2).

    The caller compares it with a root that it trusts. Raises ProofError if the path has another length than such a
    leaf's.
    """
    if not 0 <= index < size:
        raise ProofError(f"index {index}: expected one of 0 to {size - 1}")
    node, last, rest = leaf(line), size - 1, iter(siblings)
    try:
        while last:
            if index % 2:
                node = _parent(next(rest), node)
            elif index < last:
                node = _parent(node, next(rest))
            index, last = index // 2, last // 2
    except StopIteration:
        raise ProofError(f"the path ends early, after {len(siblings)} hashes") from None
    if next(rest, None) is not None:
        raise ProofError(f"the path goes on above the root: {len(siblings)} hashes are too many")
    return node


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _levels(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The hashes of the leaves, then of each level above them, up to the root alone."""
    level = [leaf(line) for line in lines]
    yield level
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [_parent(left, right) for left, right in pairs]
        level = above + level[-1:] if len(level) % 2 else above
        yield level
