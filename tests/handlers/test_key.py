from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.errors import KeyMissing, KeyUnusable, LoadError
from handlers.key import make_key, read_key

ROOT = Path(__file__).resolve().parents[2]
KEY = bytes(range(32))


def key_file(folder: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path = folder / "key"
    path.write_text(text)
    path.chmod(mode)
    return {"SOME_KEY_FILE": str(path)}


def test_a_key_is_read_from_the_environment_or_from_a_file_which_comes_first(tmp_path: Path) -> None:
    assert read_key("SOME_KEY", {"SOME_KEY": KEY.hex()}) == KEY
    from_file = key_file(tmp_path, KEY[::-1].hex() + "\n")
    assert read_key("SOME_KEY", from_file) == KEY[::-1]
    assert read_key("SOME_KEY", {**from_file, "SOME_KEY": KEY.hex()}) == KEY[::-1]


def test_a_missing_key_says_how_to_make_one() -> None:
    with pytest.raises(KeyMissing, match=r"neither \$SOME_KEY_FILE nor \$SOME_KEY is set. Make one with `python -m ha"):
        read_key("SOME_KEY", {"OTHER": "x"})
    assert issubclass(KeyMissing, LoadError)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "key"
    with pytest.raises(KeyMissing, match=rf"{path} \(\$SOME_KEY_FILE\): No such file.* -m handlers.key {path}`"):
        read_key("SOME_KEY", {"SOME_KEY_FILE": str(path)})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyUnusable, match=rf"expected mode 0600, got {mode:04o}. Run `chmod 600 .*key`"):
        read_key("SOME_KEY", key_file(tmp_path, KEY.hex(), mode))


def test_a_link_to_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key_file(tmp_path, KEY.hex(), 0o644)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "key")
    with pytest.raises(KeyUnusable, match=r"link: expected mode 0600, got 0644"):
        read_key("SOME_KEY", {"SOME_KEY_FILE": str(link)})
    (tmp_path / "key").chmod(0o600)
    assert read_key("SOME_KEY", {"SOME_KEY_FILE": str(link)}) == KEY


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(tmp_path: Path, make: Callable[..., None]) -> None:
    make(tmp_path / "key", 0o600)
    with pytest.raises(KeyUnusable, match=r"key: expected a regular file, got [pd]rw-------"):
        read_key("SOME_KEY", {"SOME_KEY_FILE": str(tmp_path / "key")})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least 64 hexadecimal digits, got 0"),
        (KEY[:31].hex(), "at least 64 hexadecimal digits, got 62"),
        (KEY.hex()[:-1], "expected hexadecimal digits, an even number"),
        ("z" * 64, "expected hexadecimal digits"),
        ("\xff" * 64, "expected hexadecimal digits"),
    ],
)
def test_a_key_of_another_form_is_refused_and_not_quoted(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(KeyUnusable, match=message) as caught:
        read_key("SOME_KEY", key_file(tmp_path, text))
    text_of_error = f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not text or text[:8] not in text_of_error


def test_making_a_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    old = os.umask(0)
    try:
        make_key(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_key("K", {"K_FILE": str(path)})) == 32
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        make_key(path)
    assert path.read_bytes() == before
    make_key(tmp_path / "second")
    assert (tmp_path / "second").read_bytes() != before


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "handlers.key", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_makes_a_key_once_and_never_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = run(str(path))
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith(f"wrote {path};")
    assert path.read_text().strip() not in made.stdout
    again = run(str(path))
    assert again.returncode == 1
    assert f"{path} exists: a new key re-routes every image" in again.stderr
    nowhere = run(str(tmp_path / "no" / "key"))
    assert nowhere.returncode == 1
    assert "No such file or directory" in nowhere.stderr
    assert "usage: python -m handlers.key PATH" in run().stderr
