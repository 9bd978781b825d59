"""Whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from report import atomic


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    atomic.write_text(path, "one ≤")
    assert path.read_text("utf-8") == "one ≤"
    atomic.write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_what_raises_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_text(path, "old")
    with pytest.raises(TypeError), atomic.replacing(path) as unfinished:
        unfinished.write_text(None)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("first", "second"):
        with atomic.replacing(folder) as unfinished:
            unfinished.mkdir()
            (unfinished / name).write_text(name)
            assert folder.exists() == (name == "second")
    assert [path.name for path in folder.iterdir()] == ["second"]
    with pytest.raises(FileNotFoundError), atomic.replacing(folder) as unfinished:
        (unfinished / "third").write_text("no folder was made")
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [folder]
