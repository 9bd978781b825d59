"""A server of our own, with a stand-in for `python -m deploy.server`; a real one is in tests/assurance and bench."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests import own_server
from loadtests.own_server import Instance, Series, ServerError, running


def stand_in(tmp_path: Path, body: str) -> Instance:
    """An instance whose every command notes its words in `said` and then runs `body`."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n{body}\n')
    script.chmod(0o700)
    return Instance("own", tmp_path, (tmp_path / "store" / "a.mar", tmp_path / "store" / "b.mar"), python=script)


def said(tmp_path: Path) -> list[str]:
    return (tmp_path / "said").read_text().splitlines()


def test_a_server_is_started_on_free_ports_and_stopped_whatever_happens(tmp_path: Path) -> None:
    instance = stand_in(tmp_path, "exit 0")

    def fail() -> None:
        with running(instance, seconds=7):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    place = f"--instance own --run-folder {tmp_path}"
    assert said(tmp_path) == [
        f"-m deploy.server start {place} --free-ports --timeout 7 --store {tmp_path}/store --models a b",
        f"-m deploy.server stop {place}",
    ]


def test_a_port_that_another_took_meanwhile_is_tried_again(tmp_path: Path) -> None:
    twice = f'[ "$(wc -l < {tmp_path}/said)" -ge 3 ] || {{ echo Address already in use >&2; exit 1; }}'
    assert stand_in(tmp_path, twice).start() >= 0
    assert len(said(tmp_path)) == 3


def test_a_server_that_does_not_start_is_an_error_that_says_why(tmp_path: Path) -> None:
    instance = stand_in(tmp_path, "echo no key >&2; exit 3")
    with pytest.raises(ServerError, match=r"^`python -m deploy.server start` ended with 3: no key$"):
        instance.start()
    with pytest.raises(ServerError, match=r"^`python -m deploy.server stop` ended with 3: no key$"):
        instance.stop()


def test_metrics_are_read_with_their_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (
        "# HELP rows of each kind\n"
        'rows{ModelName="a",kind="x",} 2.0\n'
        'rows{ModelName="b",kind="x",} 3.0\n'
        'rows_failed{ModelName="a",} 9.0\n'
        "no_labels 1.0\n"
    )
    found = own_server.series(text)
    assert found[0] == Series("rows", {"ModelName": "a", "kind": "x"}, 2.0)
    assert [each.name for each in found] == ["rows", "rows", "rows_failed"]
    monkeypatch.setattr(Instance, "metrics", lambda self: found)
    instance = Instance("own", tmp_path, ())
    assert instance.metric("rows") == 5
    assert instance.metric("rows", ModelName="b", kind="x") == 3
    assert instance.metric("rows", ModelName="c") == 0


def test_an_archive_is_packed_again_with_other_settings_for_its_owner_alone(tmp_path: Path) -> None:
    archive = tmp_path / "a.mar"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(own_server.CONFIG, yaml.safe_dump({"batchSize": 8}))
        packed.writestr("graphs/a.onnx", b"weights")

    def larger(config: dict[str, Any]) -> None:
        config["batchSize"] = 16

    copy = own_server.repack(archive, tmp_path / "copy.mar", larger)
    assert (own_server.batch_size(archive), own_server.batch_size(copy)) == (8, 16)
    assert copy.stat().st_mode & 0o077 == 0
    with zipfile.ZipFile(copy) as packed:
        assert packed.read("graphs/a.onnx") == b"weights"
    with pytest.raises(ServerError, match=r"none\.mar: no such archive; build it first"):
        own_server.batch_size(tmp_path / "none.mar")


def test_waiting_ends_when_it_is_true_or_the_time_is_over() -> None:
    seen: list[int] = []

    def third_time() -> bool:
        seen.append(1)
        if len(seen) == 1:
            raise ConnectionRefusedError
        return len(seen) == 3

    assert own_server.wait_for(third_time, seconds=30) is not None
    assert len(seen) == 3
    assert own_server.wait_for(lambda: False, seconds=0.01) is None
