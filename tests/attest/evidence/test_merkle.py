"""The tree against Certificate Transparency's reference vectors, the RFC's own recursion, and changed paths."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.evidence import merkle

# the inputs of Certificate Transparency's merkle_tree_test, and the roots over the first 1 to 8 of them
INPUTS = [
    bytes.fromhex(each)
    for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
# the reference's inclusion proof of the first of eight
PATH_0_OF_8 = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]


def by_the_rfc(lines: Sequence[bytes]) -> bytes:
    """RFC 9162, 2.1.1, word for word."""
    if not lines:
        return hashlib.sha256().digest()
    if len(lines) == 1:
        return hashlib.sha256(b"\x00" + lines[0]).digest()
    k = 1
    while 2 * k < len(lines):
        k *= 2
    return hashlib.sha256(b"\x01" + by_the_rfc(lines[:k]) + by_the_rfc(lines[k:])).digest()


def path_by_the_rfc(lines: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 9162, 2.1.3.1, word for word."""
    if len(lines) == 1:
        return []
    k = 1
    while 2 * k < len(lines):
        k *= 2
    if index < k:
        return [*path_by_the_rfc(lines[:k], index), by_the_rfc(lines[k:])]
    return [*path_by_the_rfc(lines[k:], index - k), by_the_rfc(lines[:k])]


@pytest.mark.parametrize("size", range(1, 9))
def test_the_reference_s_roots(size: int) -> None:
    assert merkle.root(INPUTS[:size]).hex() == ROOTS[size - 1]


def test_the_reference_s_path_and_the_empty_tree() -> None:
    assert [each.hex() for each in merkle.path(INPUTS, 0)] == PATH_0_OF_8
    assert merkle.root([]) == hashlib.sha256(b"").digest()


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=70), st.data())
def test_roots_and_paths_are_the_rfc_s(lines: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(lines) - 1))
    root, path = merkle.root(lines), merkle.path(lines, index)
    assert root == by_the_rfc(lines)
    assert path == path_by_the_rfc(lines, index)
    assert merkle.root_by(lines[index], index, len(lines), path) == root


LINES = [b"line %d" % number for number in range(11)]


@pytest.mark.parametrize("index", range(len(LINES)))
def test_a_changed_path_place_or_line_has_another_root_or_none(index: int) -> None:
    root, path = merkle.root(LINES), merkle.path(LINES, index)

    def holds(line: bytes, place: int, siblings: list[bytes]) -> bool:
        try:
            return merkle.root_by(line, place, len(LINES), siblings) == root
        except merkle.ProofError:
            return False

    assert holds(LINES[index], index, path)
    assert not holds(LINES[index] + b" ", index, path)
    assert not any(holds(LINES[index], place, path) for place in range(len(LINES)) if place != index)
    assert not holds(LINES[index], index, path[:-1])
    assert not holds(LINES[index], index, [*path, bytes(32)])
    assert not holds(LINES[index], index, path[::-1]) or path == path[::-1]
    for place in range(len(path)):
        flipped = [*path[:place], bytes([path[place][0] ^ 1]) + path[place][1:], *path[place + 1 :]]
        assert not holds(LINES[index], index, flipped)


def test_an_inner_node_is_no_line() -> None:
    """Without the first byte, the two hashes below a node could be shown as a line of a smaller tree."""
    left, right = merkle.leaf(LINES[0]), merkle.leaf(LINES[1])
    assert merkle.root([left + right]) != merkle.root(LINES[:2])


@pytest.mark.parametrize("index", [-1, 11])
def test_a_place_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match="expected one of 0 to 10"):
        merkle.path(LINES, index)
    with pytest.raises(merkle.ProofError, match="expected one of 0 to 10"):
        merkle.root_by(LINES[0], index, len(LINES), [])
