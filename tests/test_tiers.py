"""Every test belongs to one tier: `make test` runs unit and server, `make test-all` drills as well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import TIERS, TOGETHER, tier, together

CHECKOUT = Path(__file__).resolve().parents[1]


def test_every_test_of_this_run_has_the_marker_of_one_tier(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        markers = [mark.name for mark in item.iter_markers() if mark.name in TIERS]
        assert len(set(markers)) == 1, f"{item.nodeid}: {markers}"


def test_a_test_without_a_marker_is_of_the_first_tier() -> None:
    assert tier("x", []) == "unit"
    assert tier("x", ["drill", "parametrize"]) == "drill"


def test_a_test_of_two_tiers_is_refused() -> None:
    with pytest.raises(pytest.UsageError, match="x: expected a marker of one tier, got server and drill"):
        tier("x", ["drill", "server"])


def test_what_shares_a_server_runs_in_one_process() -> None:
    assert together("tests/e2e/test_served.py::test_x[a::b]") == together("tests/e2e/test_fuzz.py::test_y") == "served"
    assert together("tests/zoo/test_models.py::test_z") == "tests/zoo/test_models.py"
    # a test of another file that asked for `served` of tests/e2e/conftest.py would start a second one
    texts = {f"tests/e2e/{path.name}": path.read_text("utf-8") for path in (CHECKOUT / "tests/e2e").glob("test_*.py")}
    asking = {file for file, text in texts.items() if re.search(r"\ndef test_\w+\([^)]*\bserved: Served", text)}
    own = {file for file in asking if "def served(" in texts[file]}
    assert asking - own <= set(TOGETHER)
    assert all((CHECKOUT / file).is_file() for file in TOGETHER)
