"""Every test belongs to one tier: `make test` runs unit and server, `make test-all` drills as well."""

from __future__ import annotations

import pytest

from tests.conftest import TIERS, tier


def test_every_test_of_this_run_has_the_marker_of_one_tier(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        markers = [mark.name for mark in item.iter_markers() if mark.name in TIERS]
        assert len(set(markers)) == 1, f"{item.nodeid}: {markers}"
        assert len(list(item.iter_markers("xdist_group"))) == 1, item.nodeid


def test_a_test_without_a_marker_is_of_the_first_tier() -> None:
    assert tier("x", []) == "unit"
    assert tier("x", ["drill", "parametrize"]) == "drill"


def test_a_test_of_two_tiers_is_refused() -> None:
    with pytest.raises(pytest.UsageError, match="x: expected a marker of one tier, got server and drill"):
        tier("x", ["drill", "server"])
