"""Reading what `make serve` leaves for clients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests import target
from loadtests.target import TargetError


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "default"
    folder.mkdir()
    keys = folder / "key_file.json"
    keys.write_text(json.dumps({"inference": {"key": "s3cret", "expiration time": "x"}, "API": {"key": "y"}}))
    record = {"inference": "http://127.0.0.1:8080", "models": ["digits-edm"], "key_file": str(keys), "pid": 1}
    (folder / "server.json").write_text(json.dumps(record))
    (folder / "config.properties").write_text("# made\nmax_request_size=123\njob_queue_size=7\n")
    return tmp_path


def test_an_instance(run_folder: Path) -> None:
    server = target.read("default", run_folder=run_folder)
    assert server.path("digits-edm") == "/predictions/digits-edm"
    assert server.max_request_size == 123
    assert server.authorization == {"Authorization": "Bearer s3cret"}


def test_the_token_is_never_shown(run_folder: Path) -> None:
    server = target.read("default", run_folder=run_folder)
    assert "s3cret" not in f"{server} {server!r}"


def test_torchserves_own_limit_where_the_settings_are_silent(run_folder: Path) -> None:
    (run_folder / "default" / "config.properties").write_text("")
    assert target.read("default", run_folder=run_folder).max_request_size == 6_553_500


def test_a_model_that_is_not_served(run_folder: Path) -> None:
    with pytest.raises(TargetError, match="does not serve 'digits-meco', only digits-edm; build the archive"):
        target.read("default", run_folder=run_folder).path("digits-meco")


def test_an_instance_that_is_not_running(run_folder: Path) -> None:
    with pytest.raises(TargetError, match=r"server\.json: no such file; is the instance running\? \(make serve\)"):
        target.read("other", run_folder=run_folder)


def test_a_damaged_record(run_folder: Path) -> None:
    (run_folder / "default" / "server.json").write_text("{}")
    with pytest.raises(TargetError, match=r"not what `make serve` writes \(KeyError: 'key_file'\)"):
        target.read("default", run_folder=run_folder)
