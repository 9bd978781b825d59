"""The deployment's key: at least 32 random bytes, as hexadecimal text, in a file or an environment variable.

    python -m handlers.key PATH         makes one, readable by its owner alone

A policy names the variable (`key_env`). With TORCHWARDEN_KEY, $TORCHWARDEN_KEY_FILE is the path of a file,
and $TORCHWARDEN_KEY, read where the former is not set, the key itself. The key's holder knows which member answers
which image, so its bytes appear in no log, error or repr.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from handlers.errors import KeyMissing, KeyUnusable

KEY_BYTES = 32


def read_key(name: str, environ: Mapping[str, str]) -> bytes:
    """The key in the file ${name}_FILE, else in $name. Raises KeyMissing, KeyUnusable."""
    path = environ.get(f"{name}_FILE")
    if path:
        return _parse(_read(Path(path), f"{name}_FILE"), f"the key in {path}")
    if environ.get(name):
        return _parse(environ[name], f"the key in ${name}")
    raise KeyMissing(
        f"no key: neither ${name}_FILE nor ${name} is set. Make one with `python -m handlers.key PATH` "
        f"and start the server with {name}_FILE=PATH, an absolute path"
    )


def make_key(path: Path) -> None:
    """Write a new key to `path`, mode 0600. Raises FileExistsError rather than replace one."""
    write_new(path, (secrets.token_hex(KEY_BYTES) + "\n").encode(), mode=0o600)


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that is not there yet, of just this mode. Raises FileExistsError rather than replace one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask
        file.write(content)


def read_private(path: Path, *, most: int = 4096) -> bytes:
    """The first `most` bytes of a file that nobody else can read. Raises KeyUnusable, OSError."""
    # without waiting: a FIFO has no end until somebody writes to it
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        mode = stat.S_IMODE(state.st_mode)
        if not stat.S_ISREG(state.st_mode):
            raise KeyUnusable(f"key file {path}: expected a regular file, got {stat.filemode(state.st_mode)}")
        if mode & 0o077:
            raise KeyUnusable(f"key file {path}: expected mode 0600, got {mode:04o}. Run `chmod 600 {path}`")
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def _read(path: Path, variable: str) -> str:
    try:
        return read_private(path).decode("ascii", "replace")
    except OSError as error:
        raise KeyMissing(
            f"key file {path} (${variable}): {error.strerror}. Make one with `python -m handlers.key {path}`"
        ) from error


def _parse(text: str, what: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        # `from None`: the chained error would quote a character of the key
        raise KeyUnusable(f"{what}: expected hexadecimal digits, an even number of them") from None
    if len(key) < KEY_BYTES:
        raise KeyUnusable(f"{what}: expected at least {2 * KEY_BYTES} hexadecimal digits, got {2 * len(key)}")
    return key


def main(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit("usage: python -m handlers.key PATH    writes a new key to PATH, readable by you alone")
    path = Path(arguments[0])
    try:
        make_key(path)
    except FileExistsError:
        sys.exit(f"{path} exists: a new key re-routes every image, so remove the old one first if you mean to")
    except OSError as error:
        sys.exit(f"cannot write {path}: {error.strerror}")
    print(f"wrote {path}; keep it out of the archive and out of version control")


if __name__ == "__main__":
    main(sys.argv[1:])
