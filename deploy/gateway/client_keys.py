"""The clients' keys: one or more for each principal, hashed, in the file that nginx verifies them with.

A line is LOGIN:{SSHA}... as auth_basic_user_file reads it: base64 of SHA-1 over key and salt, then the salt. A key is
256 random bits, so there is nothing to guess and a slow hash would guard nothing: finding a key from its hash takes
2^160 tries whatever one costs. A slow one would cost nginx's workers milliseconds a request, at anyone's wish. SHA-1's
broken property, that two texts of one hash can be made, is of no use to anyone who does not make keys. nginx compares
hashes, not keys, and byte by byte; its timing reveals only a hash whose salt is secret.

A client's login is its principal's name. A second key of the same principal has the login NAME+2 and the same
principal, so that a client can change from one to the other: `+` stands in no principal's name.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.errors import RefusedError
from deploy.gateway.folder import put

FILE = "gateway.keys"
# A principal as handlers know it, but for the colon, which ends a login in HTTP Basic.
NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
LOGIN = re.compile(rf"({NAME.pattern})(?:\+([2-9]|[1-9][0-9]+))?")
KEY_BYTES = 32
SALT_BYTES = 16


def add(path: Path, name: str) -> tuple[str, str]:
    """Make a key for a principal: its login, and the key, which is nowhere else. Raises `RefusedError`."""
    if not NAME.fullmatch(name):
        raise RefusedError(f"name {name!r}: expected 1 to 64 of the characters A-Z a-z 0-9 . _ @ -")
    with _changing(path) as known:
        logins = (name, *(f"{name}+{number}" for number in range(2, len(known) + 3)))
        login = next(login for login in logins if login not in known)
        key = secrets.token_urlsafe(KEY_BYTES)
        known[login] = hashed(key, os.urandom(SALT_BYTES))
    return login, key


def revoke(path: Path, login: str) -> None:
    """Forget the key of a login. Raises `RefusedError` where there is none."""
    with _changing(path) as known:
        if login not in known:
            raise RefusedError(f"no key of login {login!r} in {path}; there are {', '.join(known) or 'none'}")
        del known[login]


def read(path: Path) -> dict[str, str]:
    """Hashes by their logins; none where there is no file. Raises `RefusedError` where others can read it."""
    if not path.exists():
        return {}
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise RefusedError(f"{path} has mode {mode:03o}, so others can read it; expected 600: chmod 600 {path}")
    known = {}
    for number, line in enumerate(path.read_text(encoding="ascii", errors="replace").splitlines(), start=1):
        login, _, hash_ = line.partition(":")
        if not LOGIN.fullmatch(login) or not hash_.startswith("{SSHA}") or login in known:
            raise RefusedError(f"{path}, line {number}: expected LOGIN:{{SSHA}}..., each login once")
        known[login] = hash_
    return known


def written(known: Mapping[str, str]) -> str:
    """The file's text."""
    return "".join(f"{login}:{hash_}\n" for login, hash_ in sorted(known.items()))


def hashed(key: str, salt: bytes) -> str:
    """A key as nginx verifies it."""
    digest = hashlib.sha1(key.encode() + salt).digest()
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, str]]:
    """What is in the file, locked against other changes until it is written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read(path)
        yield known
        put(path, written(known), 0o600)
