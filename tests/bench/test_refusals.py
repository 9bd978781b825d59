"""What refusals cost: a real gateway is measured, and each of its ways does what its name says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import refusals
from bench.overhttp import BenchError
from report.rows.refusals import WAYS
from report.schema import read
from tests.conftest import Smoke


@pytest.mark.drill
def test_a_real_gateway_is_measured(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "refusals.json"
    command = ["refusals", "smoke-undefended", "--store", str(smoke.store), "--rounds", "1", "--seconds", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(output)])
    monkeypatch.setattr(refusals, "COLD_SECONDS", 0.5)
    refusals.main()
    found = {row.way: row for row in read(output).refusals}
    assert tuple(found) == WAYS
    assert [found[way].refused for way in WAYS] == [0, pytest.approx(0.5, abs=0.02), pytest.approx(0.5, abs=0.02)]
    # other tests open connections meanwhile
    assert found["kept"].connections_rounds[0] < 0.3 < found["closed"].connections_rounds[0]
    for row in found.values():
        assert min(row.rate_rounds[0], *row.cpu_ms.values()) > 0


def test_exactly_one_line_of_the_settings_is_taken_out() -> None:
    text = "a;\n    proxy_set_header Torchwarden-Refusals redirect;\nb;\n"
    assert refusals.without(text, "proxy_set_header Torchwarden-Refusals ") == "a;\nb;\n"
    for other in ("a;\n", 2 * text):
        with pytest.raises(BenchError, match=r"nginx\.conf: expected one line 'proxy_set_header"):
            refusals.without(other, "proxy_set_header Torchwarden-Refusals ")
    assert refusals.unlimited("zone=rate:10m rate=2000r/s; zone=x rate=600r/m") == (
        "zone=rate:10m rate=1000000r/s; zone=x rate=600r/m"
    )
    assert refusals.unlimited("http {\n    a;\n}\n") == "http {\n    keepalive_requests 1000000000;\n    a;\n}\n"
