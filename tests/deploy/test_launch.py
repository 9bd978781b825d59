"""What Java and its workers are given: a short environment, the keys that are needed, no working tree."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy import archive, launch
from deploy.errors import RefusedError
from deploy.instance import Instance
from tests.deploy import tiny


@pytest.fixture
def keyed(tmp_path: Path) -> list[archive.Archive]:
    """An archive that needs a key, next to one that does not."""
    return [
        archive.read(tiny.build(tmp_path, "plain")),
        archive.read(tiny.build(tmp_path, "keyed", key_env="TORCHWARDEN_KEY")),
    ]


def test_only_the_short_list_is_passed(tmp_path: Path) -> None:
    environ = {
        "PATH": "/bin",
        "PYTHONPATH": ".",
        "AWS_SECRET_ACCESS_KEY": "x",
        "TORCHWARDEN_KEY": "y",
        "TORCHWARDEN_STATE": "/elsewhere",
        "TORCHWARDEN_STORE": "redis://:z@cache",
        "LANG": "C",
    }
    state = tmp_path / "state"
    given = launch.environment(
        {"TORCHWARDEN_KEY": "y"},
        temp=tmp_path,
        state=state,
        audit=tmp_path / "audit.jsonl",
        budgets=tmp_path / "budgets.sqlite3",
        environ=environ,
    )
    assert given == launch.FIXED | {
        "PATH": "/bin",
        "TORCHWARDEN_AUDIT": str(tmp_path / "audit.jsonl"),
        "TORCHWARDEN_BUDGETS": str(tmp_path / "budgets.sqlite3"),
        "TORCHWARDEN_PYTHON": sys.executable,
        "TORCHWARDEN_STATE": str(state),
        "TORCHWARDEN_STORE": "redis://:z@cache",
        "TMPDIR": str(tmp_path),
        "TEMP": str(tmp_path),
        "TORCHWARDEN_KEY": "y",
    }
    assert given["ORT_DISABLE_TELEMETRY"] == "1"
    assert given["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("variable", ["TORCHWARDEN_AUDIT", "TORCHWARDEN_BUDGETS"])
def test_what_outlives_the_server_may_stand_elsewhere(tmp_path: Path, variable: str) -> None:
    asked = {"temp": tmp_path, "state": tmp_path, "audit": tmp_path / "audit.jsonl", "budgets": tmp_path / "budgets"}
    given = launch.environment({}, environ={variable: "kept/file"}, **asked)
    assert given[variable] == str(Path("kept/file").absolute())


def test_the_command_leaves_the_working_folder_off_the_class_path(tmp_path: Path) -> None:
    command = launch.command(
        Path("/java"), tmp_path / "config.properties", vmargs="-Xmx1g -XX:+A", temp=tmp_path, log="file"
    )
    assert command[0] == "/java"
    assert {"-Xmx1g", "-XX:+A", "-Dtorchwarden.log=file", f"-Djava.io.tmpdir={tmp_path}"} <= set(command)
    classes = command[command.index("-cp") + 1]
    ours, theirs = classes.split(":")
    assert ours == Instance(tmp_path, "a").classes.name
    assert Path(theirs).is_absolute()
    assert theirs.endswith("/ts/frontend/*")


def test_a_key_file_is_passed_by_its_absolute_path(
    keyed: list[archive.Archive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key").touch(mode=0o600)
    environ = {"TORCHWARDEN_KEY_FILE": "key", "TORCHWARDEN_KEY": "not used", "OTHER": "x"}
    assert launch.key_variables(keyed, environ) == {"TORCHWARDEN_KEY_FILE": str(tmp_path / "key")}


def test_a_key_that_others_can_read_is_refused_before_java_runs(keyed: list[archive.Archive], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    for mode in (0o640, 0o604, 0o620):
        key.chmod(mode)
        with pytest.raises(RefusedError, match=rf"key file .*: expected mode 0600, got {mode:04o}. Run `chmod 600"):
            launch.key_variables(keyed, {"TORCHWARDEN_KEY_FILE": str(key)})


def test_a_key_may_stand_in_the_environment(keyed: list[archive.Archive]) -> None:
    assert launch.key_variables(keyed, {"TORCHWARDEN_KEY": "00"}) == {"TORCHWARDEN_KEY": "00"}
    assert launch.key_variables(keyed[:1], {"TORCHWARDEN_KEY": "00"}) == {}


@pytest.mark.parametrize("environ", [{}, {"TORCHWARDEN_KEY": "", "TORCHWARDEN_KEY_FILE": ""}])
def test_a_missing_key_says_how_to_make_one(keyed: list[archive.Archive], environ: dict[str, str]) -> None:
    with pytest.raises(
        RefusedError,
        match=r"keyed\.mar needs a secret key.*python -m handlers\.key PATH.*TORCHWARDEN_KEY_FILE=PATH",
    ):
        launch.key_variables(keyed, environ)


def test_a_key_file_that_is_not_there_is_named(keyed: list[archive.Archive], tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"\$TORCHWARDEN_KEY_FILE names no file: .*absent"):
        launch.key_variables(keyed, {"TORCHWARDEN_KEY_FILE": str(tmp_path / "absent")})
