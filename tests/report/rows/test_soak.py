"""Slopes of a soak's samples, worked out by hand."""

from __future__ import annotations

import numpy as np

from report.rows.soak import fifth, slope_of


def test_a_slope_is_the_median_of_all_pairs_whatever_one_value_says() -> None:
    times = np.arange(30.0)
    values = 5 + 2 * times
    values[20] = 1000
    found = slope_of(times, values)
    assert found is not None
    assert found == (2.0, 2.0, 2.0)
    noise = np.random.default_rng(0).normal(0, 1, 30)
    slope, low, high = slope_of(times, noise) or (0, 0, 0)
    assert low < 0 < high
    assert low < slope < high
    assert slope_of(times[:2], values[:2]) is None


def test_a_fifth_holds_its_start_and_not_its_end() -> None:
    times = np.arange(10.0)
    assert times[fifth(times, 1, 10)].tolist() == [2.0, 3.0]
    assert times[fifth(times, 4, 10)].tolist() == [8.0, 9.0]
