"""The mark: moved probabilities worked out by hand, and what no image, account or batch may change."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defenses.mark import Mark, Marker, commitment, derived, moved, secret
from tests.defenses.policies import KEY

CLASSES = 5
SECRET = "723e6578b199830ded27bb03e18fbb6fa5a646108ad945b66c46a1e0f1244e4e"
ACCOUNT = "02730057799186471fe30558f2664a6159dc5d70fe77bda30116b76418e8d09c"
DRAWN = [3, 1, 2, 1, 1, 2, 1, 1, 3, 2, 0, 3, 3, 2, 3, 4]
CODES = [6, 1, 6, 2, 5, 3, 7, 2, 6, 5, 5, 5]


def marker(key: bytes = KEY, **fields: float) -> Marker:
    mark = Mark(**{"strength": 0.02, "parts": 8, "width": 32, **fields})  # type: ignore[arg-type]
    return Marker(mark, key=key, channels=1, classes=CLASSES)


def images(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, 1, 12, 12), dtype=np.float32)


def answers(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(CLASSES, 0.2), rows).astype(np.float32)


def test_probability_is_moved_as_worked_out_by_hand() -> None:
    rows = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.34, 0.33, 0.33]], np.float32)
    shown, whole = moved(rows, np.array([0, 0, 0, 0]), np.array([2, 1, 1, 2]), 0.1)
    # 0.01 of room: s = 0.01 / 1.01 / 2
    less = 0.01 / 1.01 / 2
    expected = [
        [0.81, 0.09, 0.1],
        [0.81, 0.19, 0.0],
        [0.5, 0.5, 0.0],
        [0.34 * (1 - less), 0.33 * (1 - less), 0.33 * (1 - less) + less],
    ]
    assert shown == pytest.approx(np.array(expected), abs=1e-6)
    assert whole.tolist() == [True, True, False, False]
    assert shown.dtype == np.float32


@given(seed=st.integers(0, 2**20), strength=st.floats(0.001, 0.1))
def test_labels_stay_and_rows_stay_distributions_at_a_distance_of_twice_the_strength(
    seed: int, strength: float
) -> None:
    rows = answers(16, seed)
    shown, _ = marker(strength=strength)(images(16, seed), rows, ["a"] * 16)
    assert (shown.argmax(1) == rows.argmax(1)).all()
    assert shown.sum(1) == pytest.approx(np.ones(16), abs=1e-5)
    assert shown.min() >= 0
    assert np.abs(shown - rows).sum(1).max() <= 2 * strength + 1e-6


def test_an_image_gets_the_same_mark_alone_and_in_a_batch_and_every_time() -> None:
    rows, seen, accounts = answers(64), images(64), ["a", "b"] * 32
    shown, _ = marker()(seen, rows, accounts)
    assert np.array_equal(shown, marker()(seen, rows, accounts)[0])
    alone = [marker()(seen[row : row + 1], rows[row : row + 1], [accounts[row]])[0][0] for row in range(64)]
    assert np.array_equal(shown, np.stack(alone))


def test_accounts_share_cells_and_have_classes_of_their_own() -> None:
    one = marker()
    a, b = one.keyed("a"), one.keyed("b")
    own = np.arange(one.cells) // 8
    assert (a != own).all()
    assert (b != own).all()
    assert 0 < (a == b).mean() < 0.6, "of four classes, a quarter is the same by chance"
    rows, seen = answers(64), images(64)
    both, _ = one(seen, rows, ["a", "b"] * 32)
    assert np.array_equal(both[::2], one(seen, rows, ["a"] * 64)[0][::2])
    assert np.array_equal(both[1::2], one(seen, rows, ["b"] * 64)[0][1::2])


def test_keyed_classes_are_drawn_evenly() -> None:
    drawn = np.concatenate([marker(parts=1024).keyed(str(account)) for account in range(20)])
    of_zero = drawn.reshape(20, CLASSES, 1024)[:, 0].ravel()
    counts = np.bincount(of_zero, minlength=CLASSES)
    assert counts[0] == 0
    expected = len(of_zero) / (CLASSES - 1)
    assert np.abs(counts[1:] - expected).max() < 5 * expected**0.5


def test_another_key_has_other_cells_and_other_classes() -> None:
    other = marker(key=b"another key of at least 32 bytes!")
    assert (marker().code(images(200)) != other.code(images(200))).mean() > 0.5
    assert (marker().keyed("a") != other.keyed("a")).mean() > 0.5


def test_cells_split_the_images_of_a_label_and_keep_near_copies() -> None:
    seen = images(2000)
    counts = np.bincount(marker(grid=2).code(seen), minlength=8)
    assert (counts > 0).all()
    near = np.clip(seen + np.random.default_rng(5).uniform(-1, 1, seen.shape).astype(np.float32) / 255, 0, 1)
    assert (marker(grid=2).code(seen) == marker(grid=2).code(near)).mean() > 0.95


def test_what_is_drawn_from_a_key_is_the_same_for_ever() -> None:
    """Evidence of years ago is read by this: a change here needs another number in `secret`."""
    assert secret(KEY).hex() == SECRET
    assert derived(secret(KEY), "a").hex() == ACCOUNT
    assert marker().keyed("a")[:16].tolist() == DRAWN
    assert marker().code(images(12)).tolist() == CODES


def test_a_repr_shows_no_secret() -> None:
    assert secret(KEY).hex() not in repr(marker())
    assert repr(marker()).startswith("Marker(Mark(strength=0.02")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"strength": 0}, "strength: expected a number above 0, at most 0.1, got 0"),
        ({"parts": 3}, "parts: expected a power of two, got 3"),
        ({"parts": 2048}, "parts: expected an integer from 1 to 1024, got 2048"),
        ({"width": 0}, "width: expected an integer from 1 to 255, got 0"),
    ],
)
def test_a_wrong_table_is_an_error(fields: dict[str, float], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        marker(**fields)


def test_a_short_key_is_an_error_that_shows_none_of_it() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes, got 5"):
        marker(key=b"short")


def test_a_key_that_nobody_committed_to_marks_nothing() -> None:
    committed, other = commitment(secret(KEY)), commitment(secret(bytes(32)))
    assert committed == hashlib.sha256(hmac.digest(KEY, b"torchwarden/mark/1", "sha256")).hexdigest()
    rows = images(3), answers(3), ["a", "b", "c"]
    both = Marker(Mark(0.02, commitments=(other, committed)), key=KEY, channels=1, classes=CLASSES)
    free = Marker(Mark(0.02), key=KEY, channels=1, classes=CLASSES)
    assert (both(*rows)[0] == free(*rows)[0]).all()
    with pytest.raises(ValueError, match=f"expected a key with one of {other[:12]}, got one with {committed[:12]}"):
        Marker(Mark(0.02, commitments=(other,)), key=KEY, channels=1, classes=CLASSES)
    with pytest.raises(ValueError, match="commitments: expected each as 64 hexadecimal digits, got 'ab'"):
        Mark(0.02, commitments=("ab",))
