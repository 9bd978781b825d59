"""The command's words, its verdict on a run, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assurance.fuzz import program
from report.rows.fuzz import DIRECT, GATEWAY
from report.schema import ResultError, read
from tests.conftest import RECIPE
from tests.report import synthetic


def section(**changed: Any) -> dict[str, Any]:
    whole = {
        "cases": 10,
        "seconds": 1.0,
        "findings": [],
        "front_end": [{"idea": "form"}],
        "neighbours": {"asked": 5, "wrong": 0, "examples": []},
        "workers": {"count": 2, "restarts": []},
        "contract": {"findings": []},
    }
    return {**whole, **changed}


FINDING = {"kind": "pictures", "idea": "cut", "complaint": "status 503", "first": 7}


def test_a_run_in_which_all_is_well_has_no_faults() -> None:
    assert program.broken(section()) == []
    assert program.summary(section()) == (
        "10 cases in 1 s: 0 kinds of findings, 1 known ones of TorchServe's own; "
        "0 of 5 neighbours answered wrongly; 0 of 2 workers restarted"
    )


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"findings": [FINDING]}, "pictures, cut: status 503 (case 7)"),
        ({"workers": {"count": 2, "restarts": ["about case 3"]}}, "a worker changed about case 3"),
        ({"neighbours": {"asked": 5, "wrong": 9, "examples": ["a: b"]}}, "a neighbour was answered wrongly: a: b"),
        ({"contract": {"findings": ["UndefinedStatusCode"]}}, "contract: UndefinedStatusCode"),
    ],
)
def test_each_thing_that_must_be_true_breaks_a_run(changed: dict[str, Any], fault: str) -> None:
    assert program.broken(section(**changed)) == [fault]


def test_a_run_takes_the_place_of_the_last_one_and_leaves_the_other_door(tmp_path: Path) -> None:
    file = tmp_path / "fuzz.json"
    whole = {
        **section(front_end=[]),
        "kinds": {"rows": {"200": 10}},
        "ideas": {"rows": {"tiny": 10}},
        "workers": {"count": 2, "restarts": [], "memory_mb": {"after": {"smoke-edm": 70.0}}},
        "contract": {"schemathesis": "4.3", "requests": 5, "answers": {"image/png 200": 5}, "findings": []},
    }
    without_contract = {name: value for name, value in whole.items() if name != "contract"}
    program.write(file, DIRECT, {**whole, "cases": 1}, synthetic.RUN)
    program.write(file, GATEWAY, {**whole, "cases": 2}, synthetic.RUN)
    program.write(file, DIRECT, {**without_contract, "cases": 3}, synthetic.RUN)
    rows = {row.door: row for row in read(file).fuzz}
    assert {door: row.cases for door, row in rows.items()} == {"direct": 3, "gateway": 2}
    assert rows["direct"].contract is None
    assert rows["gateway"].contract is not None
    with pytest.raises(ResultError, match="fuzz: direct: cases: expected an integer, got 'x'"):
        program.write(file, DIRECT, {**whole, "cases": "x"}, synthetic.RUN)


def test_an_instance_that_does_not_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([str(RECIPE), "--run-folder", str(tmp_path), "--policies", "edm"]) == 2
    assert "server.json: no such file; is the instance running?" in capsys.readouterr().err


def test_a_login_at_the_gateway_is_basic() -> None:
    assert program.basic("acme:key") == "Basic YWNtZTprZXk="
