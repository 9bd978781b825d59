"""Each rule of RULES meets the same properties and its own golden rows: a new rule needs a line in GOLDEN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from defenses.responses import RULES, Rounded, TopK

ONE_HOT = [0.0, 1.0, 0.0, 0.0]
UNIFORM = [0.25, 0.25, 0.25, 0.25]
TIES = [0.375, 0.125, 0.375, 0.125]
PLAIN = [0.0625, 0.1875, 0.5, 0.25]
CLOSE = [0.445, 0.455, 0.06, 0.04]

# rule -> its fields, and rows worked by hand: what comes in, what goes out (None: nothing is shown).
GOLDEN: dict[str, list[tuple[dict[str, Any], list[float], list[float] | None]]] = {
    "soft": [({}, row, row) for row in (ONE_HOT, UNIFORM, TIES, PLAIN)],
    "label": [({}, row, None) for row in (ONE_HOT, UNIFORM, TIES, PLAIN)],
    "top_k": [
        ({"k": 2}, PLAIN, [0.0, 0.0, 0.5, 0.25]),
        ({"k": 2}, ONE_HOT, ONE_HOT),
        ({"k": 2}, UNIFORM, [0.25, 0.25, 0.0, 0.0]),
        ({"k": 1}, TIES, [0.375, 0.0, 0.0, 0.0]),
        ({"k": 3}, TIES, [0.375, 0.125, 0.375, 0.0]),
        ({"k": 4}, PLAIN, PLAIN),
    ],
    "rounded": [
        ({"digits": 2}, PLAIN, [0.06, 0.19, 0.5, 0.25]),
        ({"digits": 1}, PLAIN, [0.1, 0.2, 0.5, 0.2]),  # 2.5 goes to the even 2
        ({"digits": 1}, ONE_HOT, ONE_HOT),
        ({"digits": 1}, UNIFORM, [0.2, 0.2, 0.2, 0.2]),  # sums to 0.8: rows are not renormalised
        ({"digits": 2}, TIES, [0.38, 0.12, 0.38, 0.12]),  # 37.5 to 38 and 12.5 to 12, the even ones
        ({"digits": 1}, CLOSE, [0.4, 0.5, 0.1, 0.0]),
    ],
}
CASES = [(name, options) for name, rows in GOLDEN.items() for options, _, _ in rows]


def distributions() -> st.SearchStrategy[np.ndarray]:
    """(N,4) float32 rows that sum to 1, the edge rows often among them."""
    edges = st.sampled_from([ONE_HOT, UNIFORM, TIES, PLAIN, CLOSE])
    drawn = arrays(np.float32, 4, elements=st.floats(0, 1, width=32)).map(lambda row: (row + 1e-6) / (row + 1e-6).sum())
    return st.lists(edges | drawn, min_size=1, max_size=6).map(lambda rows: np.array(rows, np.float32))


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_golden_rows(name: str) -> None:
    line = f'    "{name}": [({{...}}, PLAIN, [...]), ...],'
    assert name in GOLDEN, f"{name!r} has no golden rows; add to GOLDEN in tests/defenses/test_responses.py:\n{line}"
    met = {tuple(row) for _, row, _ in GOLDEN[name]}
    missing = {tuple(row) for row in (ONE_HOT, UNIFORM, TIES)} - met
    assert not missing, f"{name!r} lacks golden rows for {missing} in tests/defenses/test_responses.py"


@pytest.mark.parametrize(
    ("name", "options", "row", "expected"),
    [(name, *golden) for name, rows in GOLDEN.items() for golden in rows],
)
def test_golden_rows(name: str, options: Mapping[str, Any], row: list[float], expected: list[float] | None) -> None:
    shown = RULES[name](**options)(np.array([row], np.float32))
    if expected is None:
        assert shown is None
    else:
        assert shown is not None
        np.testing.assert_array_equal(shown, np.array([expected], np.float32))


@pytest.mark.parametrize(("name", "options"), CASES)
@given(probabilities=distributions())
def test_properties(name: str, options: Mapping[str, Any], probabilities: np.ndarray) -> None:
    rule = RULES[name](**options)
    before = probabilities.copy()
    shown = rule(probabilities)
    np.testing.assert_array_equal(probabilities, before)
    if shown is None:
        assert rule.keeps_label
        return
    assert shown.shape == probabilities.shape
    assert shown.dtype == np.float32
    assert np.isfinite(shown).all()
    assert (shown >= 0).all()
    if rule.keeps_label:
        of_label = np.take_along_axis(shown, probabilities.argmax(axis=1)[:, np.newaxis], axis=1)
        assert (of_label[:, 0] == shown.max(axis=1)).all()
    for row, alone in enumerate(probabilities):
        np.testing.assert_array_equal(shown[row : row + 1], rule(alone[np.newaxis]))


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "2"])
def test_top_k_refuses(k: Any) -> None:
    with pytest.raises(ValueError, match=r"k: expected an integer from 1 to 10000, got"):
        TopK(k)


@pytest.mark.parametrize("digits", [0, 7, None])
def test_rounded_refuses(digits: Any) -> None:
    with pytest.raises(ValueError, match=r"digits: expected an integer from 1 to 6, got"):
        Rounded(digits)
