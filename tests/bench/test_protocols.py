"""The protocols measured for moments, on a real server: each gives a row its one answer, and each is counted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bench import protocols
from bench.overhttp import BenchError
from bench.protocols import Form
from report.rows.bench import PROTOCOLS
from report.schema import read
from tests.conftest import RECIPE, Smoke


@pytest.mark.server
def test_every_form_is_measured(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "protocols.json"
    command = ["protocols", str(RECIPE), "--store", str(smoke.store), "--rounds", "2", "--seconds", "0.2"]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(output)])
    monkeypatch.setattr(protocols, "WARM_S", 1.0)
    monkeypatch.setattr(protocols, "ROWS", 4)
    protocols.main()
    report = read(output)
    assert [(row.body, row.clients) for row in report.bench] == [
        (name, clients) for clients in (1, protocols.SATURATION) for name in PROTOCOLS
    ]
    for row in report.bench:
        grpc = row.body == PROTOCOLS[-1]
        assert (row.study, row.policy, row.path) == ("protocols", "undefended", "grpc" if grpc else "http")
        assert len(row.p50_rounds) == len(row.rate_rounds) == 2
        assert min(*row.p50_rounds, *row.rate_rounds) > 0
        assert set(row.cpu_ms) == {"java", "worker", "client", *(["front"] if grpc else [])}
    lengths = report.run.settings["bytes"]
    assert lengths["raw float32"] == 28 * 28 * 4
    assert lengths["PNG"] < lengths["raw float32"] < lengths["OIP v2, gRPC"] < lengths["OIP v2, JSON"]


def test_a_form_with_another_answer_is_not_measured() -> None:
    def form(label: int, likely: float) -> Form:
        def never(clients: int, seconds: float) -> object:
            raise AssertionError("not to be asked")

        return Form(1, never, lambda: [(label, np.float32([likely, 1 - likely]))])  # type: ignore[arg-type]

    protocols.check({"raw float32": form(0, 0.75), "PNG": form(0, 0.75)})
    for other in (form(1, 0.75), form(0, 0.7)):
        with pytest.raises(BenchError, match=r"row 0 as PNG: .*, as raw float32: .*: expected equal answers"):
            protocols.check({"raw float32": form(0, 0.75), "PNG": other})
