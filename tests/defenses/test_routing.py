from __future__ import annotations

import hashlib
import hmac
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from defenses.routing import HASHES, ClassConfidence, Projection, Router, member_table
from tests.defenses.policies import KEY


def one_row(classes: int, label: int, confidence: float) -> np.ndarray:
    """(1,classes): `confidence` on the label, the rest spread evenly."""
    row = np.full((1, classes), (1 - confidence) / (classes - 1), np.float32)
    row[0, label] = confidence
    return row


@pytest.mark.parametrize(
    ("label", "confidence", "value"),
    [
        (0, 0.3, 0),
        (0, 0.54, 0),
        (0, 0.56, 1),  # r = (10 * 0.56 - 1) / 9 = 0.511: with M = 10, m = 2 the border is v = 0.55
        (3, 0.54, 6),
        (3, 0.56, 7),
        (9, 0.2, 18),
        (9, 1.0, 19),  # r = 1: without the clamp 20, a value that does not exist
        (4, 1.0, 9),  # and here 10, which belongs to class 5
    ],
)
def test_class_confidence_by_hand(label: int, confidence: float, value: int) -> None:
    hashed = ClassConfidence(classes=10, bins=2)({"probabilities": one_row(10, label, confidence)})
    assert hashed.dtype == np.int64
    assert hashed.tolist() == [value]


def test_a_uniform_row_and_one_rounded_below_it_are_in_the_first_bin_of_the_first_class() -> None:
    rows = np.full((2, 3), 1 / 3, np.float32)
    rows[1] = np.nextafter(np.float32(1 / 3), np.float32(0)) - np.float32(1e-6)
    assert ClassConfidence(classes=3, bins=4)({"probabilities": rows}).tolist() == [0, 0]


@given(
    raw=arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32)),
    bins=st.integers(1, 7),
)
def test_class_confidence_equals_the_formula_row_by_row(raw: np.ndarray, bins: int) -> None:
    rows = (raw + np.float32(1e-3)) / (raw + np.float32(1e-3)).sum(axis=1, keepdims=True)
    expected = []
    for row in rows.tolist():
        value = max(row)
        cut = min(max(math.floor(bins * (4 * value - 1) / 3), 0), bins - 1)
        expected.append(bins * row.index(value) + cut)
    hash_ = ClassConfidence(classes=4, bins=bins)
    assert hash_({"probabilities": rows}).tolist() == expected
    assert hash_.values == 4 * bins
    assert hash_.reads == {"probabilities": 4}


@pytest.mark.parametrize(
    ("projections", "leaf"),
    [
        # node 0, then 1 or 2, then 3 to 6; only the nodes on the way count
        ([-0.5, -0.5, 9.5, -0.5, 9.5, 9.5, 9.5], 0),
        ([-0.5, -0.5, 9.5, 0.5, -9.5, -9.5, -9.5], 1),
        ([-7.5, 0.5, -9.5, 9.5, -0.5, 9.5, 9.5], 2),
        ([-0.5, 0.5, -9.5, -9.5, 0.5, -9.5, -9.5], 3),
        ([0.5, 9.5, -0.5, 9.5, 9.5, -0.5, 9.5], 4),
        ([0.5, -9.5, -0.5, -9.5, -9.5, 0.5, -9.5], 5),
        ([0.5, -9.5, 0.5, -9.5, -9.5, 9.5, -0.5], 6),
        ([0.5, -9.5, 0.5, -9.5, -9.5, -9.5, 0.5], 7),
    ],
)
def test_projection_by_hand(projections: list[float], leaf: int) -> None:
    hashed = Projection(depth=3)({"projections": np.array([projections], np.float32)})
    assert hashed.dtype == np.int64
    assert hashed.tolist() == [leaf]


@given(
    depth=st.integers(1, 6),
    data=st.data(),
)
def test_projection_equals_a_walk_down_the_tree_row_by_row(depth: int, data: st.DataObject) -> None:
    odd = st.integers(-9, 9).map(lambda whole: whole + 0.5)
    rows = data.draw(arrays(np.float32, (4, 2**depth - 1), elements=odd))
    expected = []
    for row in rows.tolist():
        low, high, node = 0, 2**depth, 0
        while high - low > 1:
            middle = (low + high) // 2
            right = row[node] > 0
            low, high = (middle, high) if right else (low, middle)
            node = 2 * node + (2 if right else 1)
        expected.append(low)
    hash_ = Projection(depth=depth)
    assert hash_({"projections": rows}).tolist() == expected
    assert hash_.values == 2**depth
    assert hash_.reads == {"projections": 2**depth - 1}


def test_a_tree_has_a_depth() -> None:
    with pytest.raises(ValueError, match="depth: expected an integer from 1 to 12, got 0"):
        Projection(depth=0)


def test_the_registry_names_the_hashes() -> None:
    assert {"class-confidence": ClassConfidence, "projection": Projection} == HASHES


@given(
    key=st.binary(min_size=32, max_size=48),
    values=st.integers(1, 60),
    members=st.integers(1, 60),
)
def test_the_table_is_balanced_and_covers_every_member(key: bytes, values: int, members: int) -> None:
    if members > values:
        with pytest.raises(ValueError, match=rf"expected from 1 to {values} members, .* got {members}"):
            member_table(key, values=values, members=members)
        return
    table = member_table(key, values=values, members=members)
    counts = np.bincount(table, minlength=members)
    assert table.shape == (values,)
    assert table.dtype == np.int64
    assert counts.sum() == values
    assert len(counts) == members
    assert counts.max() - counts.min() == (values % members > 0)


def test_each_run_of_values_is_dealt_in_a_keyed_order() -> None:
    subkey = hmac.new(KEY, b"torchwarden/route/table", hashlib.sha256).digest()
    expected = []
    for run in (0, 5, 10):
        digests = {member: hmac.new(subkey, b"%d/%d" % (run, member), hashlib.sha256).digest() for member in range(5)}
        expected += sorted(digests, key=lambda member: digests[member])
    assert member_table(KEY, values=12, members=5).tolist() == expected[:12]


@given(key=st.binary(min_size=32, max_size=32), members=st.integers(2, 9), runs=st.integers(1, 6))
def test_neighbouring_values_reach_every_member(key: bytes, members: int, runs: int) -> None:
    table = member_table(key, values=members * runs, members=members)
    assert (np.sort(table.reshape(runs, members), axis=1) == np.arange(members)).all()


def test_another_key_gives_another_table_and_the_same_key_the_same() -> None:
    tables = [member_table(bytes([seed]) * 32, values=20, members=5).tolist() for seed in range(20)]
    assert len({tuple(table) for table in tables}) == 20
    assert tables[3] == member_table(bytes([3]) * 32, values=20, members=5).tolist()


@pytest.mark.parametrize(("key", "got"), [(None, "NoneType"), ("a" * 64, "str"), (b"short", "5 bytes")])
def test_a_table_needs_a_key(key: Any, got: str) -> None:
    with pytest.raises(ValueError, match=rf"needs a key of at least 32 bytes, got {got}$"):
        member_table(key, values=20, members=5)


def test_a_router_looks_up_each_row_and_does_not_show_its_table() -> None:
    table = member_table(KEY, values=20, members=5)
    router = Router(ClassConfidence(classes=10, bins=2), table)
    rows = np.concatenate([one_row(10, label, confidence) for label in range(10) for confidence in (0.3, 0.9)])
    assert router({"probabilities": rows}).tolist() == table.tolist()
    assert "table" not in repr(router)
    assert "array" not in repr(router)
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1
