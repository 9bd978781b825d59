"""The interval of Clopper and Pearson, held against another library's."""

from __future__ import annotations

import pytest

from report.intervals import clopper_pearson


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    # of scipy.stats.beta.ppf
    [(0, 200, 0.0, 0.018275), (2, 200, 0.001213, 0.035655), (10, 10, 0.691503, 1.0), (5, 10, 0.187086, 0.812914)],
)
def test_clopper_pearson(hits: int, rows: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, rows) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
