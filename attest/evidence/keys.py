"""The key that signs evidence: Ed25519, in PEM (PKCS 8), which OpenSSL and every DSSE tool read.

    python -m attest.evidence.keys secrets/attest.pem       makes it, and secrets/attest.pub.pem for those who verify

The private key is readable by its owner alone and never replaced: evidence that an old key signed must stay verifiable.
Its public half is what an auditor must get by a way of their own, not from the folder with the evidence.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from attest.evidence.errors import EvidenceError
from handlers.errors import KeyUnusable
from handlers.key import read_private, write_new

MOST_BYTES = 65536


class KeyFileError(EvidenceError):
    """A file that is not the key that was expected, or that others can read."""


def make(path: Path) -> Path:
    """Write a new private key to `path`, mode 0600, and its public half beside it, whose path is returned.

    Raises FileExistsError rather than replace either.
    """
    public = public_path(path)
    if public.exists():
        raise FileExistsError(public)
    key = Ed25519PrivateKey.generate()
    write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    write_new(public, _pem(key.public_key()), mode=0o644)
    return public


def public_path(path: Path) -> Path:
    """attest.pem -> attest.pub.pem"""
    return path.with_name(f"{path.stem}.pub.pem")


def private(path: Path) -> Ed25519PrivateKey:
    """The private key in a file that nobody else can read. Raises KeyFileError."""
    try:
        text = read_private(path, most=MOST_BYTES)
    except OSError as error:
        raise KeyFileError(
            f"{path}: {error.strerror}. Make a key with `python -m attest.evidence.keys {path}`"
        ) from None
    except KeyUnusable as error:
        raise KeyFileError(str(error)) from None
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # `from None`: nothing of the key may be quoted
        raise KeyFileError(f"{path}: expected an unencrypted private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
    return key


def public(path: Path) -> Ed25519PublicKey:
    """The public key in a file. Raises KeyFileError."""
    try:
        text = path.read_bytes()
        key = load_pem_public_key(text)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        hint = ": this is a private key; keep it to yourself" if b"PRIVATE KEY" in text else ""
        raise KeyFileError(f"{path}: expected a public key in PEM{hint}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
    if text != _pem(key):
        raise KeyFileError(
            f"{path}: a key, but in another form than it was written in, so it was changed: get it from its owner "
            "again, or compare its fingerprint and write it anew with `openssl pkey -pubin`"
        )
    return key


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo (DER), 64 hexadecimal digits: what two people read to each other."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def main() -> None:
    """Run the command line; an existing file is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m attest.evidence.keys", description="a key that signs evidence")
    parser.add_argument("path", type=Path, help="where to write it, such as secrets/attest.pem")
    path = parser.parse_args().path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        public_half = make(path)
    except FileExistsError as error:
        sys.exit(
            f"attest.evidence.keys: {error.filename or error} exists, and no key is replaced. Choose another path; "
            f"`openssl pkey -in {path} -pubout` prints the public half of a key"
        )
    except OSError as error:
        sys.exit(f"attest.evidence.keys: cannot write {path}: {error.strerror}")
    print(f"wrote {path}, readable by you alone: keep it out of version control")
    print(f"wrote {public_half}: give it to those who verify, by another way than the evidence")
    print(f"fingerprint {fingerprint(public(public_half))}")


if __name__ == "__main__":
    main()
