"""What the campaign's process and its senders say to each other: a JSON head, a line feed, and bytes.

Between them it is sealed (Fernet: AES-128-CBC with HMAC-SHA256) by a key that both have in their environment. Locust's
port is open to all who reach it: without the key nobody sees a picture, has a worker send anything, or answers in the
service's place. Secrets of the target never travel: each sender reads its own, and shows by a keyed digest that they
are the campaign's.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.fernet import Fernet

from attest.target.table import Target
from attest.target.wires import WireError

KEY = "TORCHWARDEN_SENDERS_KEY"
MAKE_KEY = ".venv/bin/python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"


def joined(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One message."""
    return orjson.dumps(head) + b"\n" + body


def parted(message: bytes) -> tuple[dict[str, Any], bytes]:
    """A message's head and body."""
    head, _, body = message.partition(b"\n")
    return orjson.loads(head), body


def seal(key: Fernet, head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One message that only who has the key can read or make."""
    return key.encrypt(joined(head, body))


def unseal(key: Fernet, token: bytes) -> tuple[dict[str, Any], bytes]:
    """A sealed message's head and body. Raises cryptography's InvalidToken for what was not sealed by the key."""
    return parted(key.decrypt(token))


def key_of_environment() -> str:
    """The key that all machines of a campaign share. Raises WireError."""
    value = os.environ.get(KEY, "")
    try:
        Fernet(value)
    except ValueError:
        found = "none" if not value else f"{len(value)} letters"
        raise WireError(
            f"{KEY}: expected the key that all machines of the campaign share, got {found}; make it once ({MAKE_KEY}) "
            "and export it on each"
        ) from None
    return value


def terms(target: Target, file_sha256: str, key: str) -> dict[str, str]:
    """What must be the same on every machine: the target file, and by a keyed digest the headers with their secrets.
    Raises TargetError for a variable that is not set."""
    headers = orjson.dumps(target.secrets(), option=orjson.OPT_SORT_KEYS)
    return {"file": file_sha256, "headers": hmac.new(key.encode(), headers, hashlib.sha256).hexdigest()}
