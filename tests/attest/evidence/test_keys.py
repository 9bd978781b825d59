"""Keys: private, never replaced, and refused where they are anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from attest.evidence import keys


def test_a_key_is_private_and_openssl_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "attest.pem"
    old = os.umask(0)
    try:
        public = keys.make(path)
    finally:
        os.umask(old)
    assert public == tmp_path / "attest.pub.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.fingerprint(keys.private(path).public_key()) == keys.fingerprint(keys.public(public))
    done = subprocess.run(["openssl", "pkey", "-in", path, "-pubout"], capture_output=True, check=True)
    assert done.stdout == public.read_bytes()
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", public, "-outform", "DER"], capture_output=True, check=True
    )
    digest = subprocess.run(["sha256sum"], input=der.stdout, capture_output=True, check=True).stdout.split()[0]
    assert digest.decode() == keys.fingerprint(keys.public(public))


def test_no_key_is_replaced_and_the_command_says_so(tmp_path: Path) -> None:
    path = tmp_path / "new" / "attest.pem"

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "attest.evidence.keys", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    first = run()
    assert first.returncode == 0, first.stderr
    assert keys.fingerprint(keys.public(keys.public_path(path))) in first.stdout
    before = path.read_bytes()
    assert before.splitlines()[1].decode() not in first.stdout + first.stderr
    again = run()
    assert again.returncode == 1
    assert "attest.pub.pem exists, and no key is replaced" in again.stderr
    keys.public_path(path).unlink()
    assert "attest.pem exists, and no key is replaced" in run().stderr
    assert path.read_bytes() == before


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "attest.pem"
    keys.make(path)
    path.chmod(0o640)
    with pytest.raises(keys.KeyFileError, match=r"expected mode 0600, got 0640. Run `chmod 600"):
        keys.private(path)


def test_what_is_no_such_key_is_refused_without_quoting_it(tmp_path: Path) -> None:
    path, public = tmp_path / "attest.pem", tmp_path / "attest.pub.pem"
    with pytest.raises(keys.KeyFileError, match=r"Make a key with `python -m attest\.evidence\.keys"):
        keys.private(path)
    with pytest.raises(keys.KeyFileError, match="No such file"):
        keys.public(public)
    keys.make(path)
    with pytest.raises(keys.KeyFileError, match="this is a private key; keep it to yourself"):
        keys.public(path)
    public.chmod(0o600)
    with pytest.raises(keys.KeyFileError, match="expected an unencrypted private key in PEM"):
        keys.private(public)
    path.write_text("-----BEGIN PRIVATE KEY-----\nsecret-bytes\n-----END PRIVATE KEY-----\n")
    with pytest.raises(keys.KeyFileError) as caught:
        keys.private(path)
    assert "secret-bytes" not in str(caught.value)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(keys.KeyFileError, match="expected a regular file"):
        keys.private(tmp_path / "fifo")


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    path, public = tmp_path / "other.pem", tmp_path / "other.pub.pem"
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    public.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(keys.KeyFileError, match="expected an Ed25519 key, got EC"):
        keys.private(path)
    with pytest.raises(keys.KeyFileError, match="expected an Ed25519 key, got EC"):
        keys.public(public)
