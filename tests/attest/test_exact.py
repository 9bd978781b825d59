"""Intervals of shares and percentiles of times, by hand."""

from __future__ import annotations

import pytest

from attest.campaign.exact import percentiles, wilson


def test_the_interval_of_a_share() -> None:
    low, high = wilson(0.5, 100)  # Wilson's own: 0.404, 0.596
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)
    assert wilson(1.0, 20)[1] == pytest.approx(1)
    assert 0.8 < wilson(1.0, 20)[0] < 0.9
    assert wilson(0.0, 0) == (0, 1)


def test_percentiles_of_times() -> None:
    assert percentiles([]) == (0, 0)
    assert percentiles([1.0, 2.0, 3.0]) == (2.0, 2.98)
