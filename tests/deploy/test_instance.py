"""An instance's folder: made fresh, private, short enough for sockets, and never somebody else's."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploy import shutdown
from deploy.errors import RefusedError
from deploy.instance import LONGEST_TEMP, Instance, Record

RECORD = Record(
    instance="default",
    inference="http://127.0.0.1:18080",
    management="http://127.0.0.1:18081",
    metrics="http://127.0.0.1:18082",
    grpc_inference="127.0.0.1:17070",
    grpc_management="127.0.0.1:17071",
    key_file="key_file.json",
    pid=os.getpid(),
    started=psutil.Process().create_time(),
    models=["a"],
    temp="/nowhere",
    log="torchserve.log",
)


def test_the_folder_is_made_fresh_and_private(tmp_path: Path) -> None:
    instance = Instance(tmp_path, "default")
    temp = instance.make()
    (temp / "left").touch()
    (instance.state / "left").touch()
    assert instance.make() == temp == tmp_path / "default" / "tmp"
    assert [list(folder.iterdir()) for folder in (temp, instance.state)] == [[], []]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (instance.folder, instance.state)] == [0o700] * 2


def test_a_deep_folder_gets_a_short_temporary_one_that_goes_with_it(tmp_path: Path) -> None:
    instance = Instance(tmp_path / ("deep" * 25), "default")
    instance.folder.parent.mkdir()
    temp = instance.make()
    assert temp.parent == Path(tempfile.gettempdir())
    assert len(os.fsencode(temp)) <= LONGEST_TEMP < len(os.fsencode(instance.folder / "tmp"))
    assert stat.S_IMODE(temp.stat().st_mode) == 0o700
    instance.announce(replace(RECORD, temp=str(temp)))
    instance.clear()
    assert not temp.exists()


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "models.py").touch()
    with pytest.raises(RefusedError, match=r"zoo holds something that is no instance's"):
        Instance(tmp_path, "zoo").make()
    assert (tmp_path / "zoo" / "models.py").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", "-x"])
def test_a_name_stays_inside_the_run_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedError, match="expected a name that matches"):
        Instance(tmp_path, name)


def test_one_start_at_a_time(tmp_path: Path) -> None:
    with (
        Instance(tmp_path, "default").starting(),
        pytest.raises(RefusedError, match="another start of instance default is under way"),
        Instance(tmp_path, "default").starting(),
    ):
        pytest.fail("the lock let two through")
    with Instance(tmp_path, "default").starting():
        pass


def test_server_json_is_private_and_reads_back(tmp_path: Path) -> None:
    instance = Instance(tmp_path, "default")
    assert instance.record() is None
    instance.make()
    instance.announce(RECORD)
    assert instance.record() == RECORD
    assert stat.S_IMODE(instance.server.stat().st_mode) == 0o600


def test_a_record_knows_its_process_from_one_with_the_same_pid(tmp_path: Path) -> None:
    found = RECORD.process()
    assert found is not None
    assert found.pid == os.getpid()
    assert replace(RECORD, started=RECORD.started - 60).process() is None


def test_stopping_spares_a_process_that_only_inherited_the_pid(tmp_path: Path) -> None:
    instance = Instance(tmp_path, "default")
    instance.make()
    instance.announce(replace(RECORD, started=RECORD.started - 60))
    assert shutdown.stop(instance) is None
    assert instance.record() is None
