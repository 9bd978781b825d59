"""The envelope against the specification's example, another implementation, and OpenSSL."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attest.evidence import dsse

TYPE = "application/vnd.in-toto+json"
# RFC 8032, 7.1, test 1
KEY = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
)
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
# made by securesystemslib 1.6.0 (Envelope.sign with a CryptoSigner of KEY), which gives the same bytes each time
PAYLOAD = '{"_type": "https://in-toto.io/Statement/v1", "ä": "é"}'.encode()
THEIRS: dict[str, Any] = {
    "payload": "eyJfdHlwZSI6ICJodHRwczovL2luLXRvdG8uaW8vU3RhdGVtZW50L3YxIiwgIsOkIjogIsOpIn0=",
    "payloadType": TYPE,
    "signatures": [
        {
            "keyid": "74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916",
            "sig": "DvUtmkDSsPknk0cmXvH36ZQO8Zi+OHOIshGiLijnE/PNSeFhrOOpxsEiOaC1bGdCt3YzTPzi9F39sjAImCoiBA==",
        }
    ],
}


def test_the_specification_s_example() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == expected


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        ("", b"", b"DSSEv1 0  0 "),
        ("ä", b"\x00\xff", b"DSSEv1 2 \xc3\xa4 2 \x00\xff"),
        (TYPE, b"", b"DSSEv1 28 application/vnd.in-toto+json 0 "),
    ],
)
def test_lengths_are_of_bytes(kind: str, payload: bytes, expected: bytes) -> None:
    assert dsse.pae(kind, payload) == expected


def test_another_implementation_signs_the_same_and_is_verified() -> None:
    keyid = THEIRS["signatures"][0]["keyid"]
    assert dsse.sign(PAYLOAD, TYPE, KEY, keyid=keyid) == THEIRS
    assert dsse.verify(THEIRS, KEY.public_key(), payload_type=TYPE)[0] == PAYLOAD


def test_either_alphabet_of_base64_is_taken() -> None:
    url_safe = str.maketrans("+/", "-_")
    signature = {"sig": THEIRS["signatures"][0]["sig"].translate(url_safe)}
    assert "-" in signature["sig"]
    found = dsse.verify({**THEIRS, "signatures": [signature]}, KEY.public_key(), payload_type=TYPE)
    assert found[0] == PAYLOAD


def test_openssl_verifies_it(tmp_path: Path) -> None:
    """No line of ours: OpenSSL's Ed25519 over the bytes that the specification names."""
    envelope = dsse.sign(b'{"a": 1}', TYPE, KEY, keyid="")
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(public)
    (tmp_path / "signed").write_bytes(b'DSSEv1 28 application/vnd.in-toto+json 8 {"a": 1}')
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        "key.pem",
        "-in",
        "signed",
        "-sigfile",
        "sig",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Signature Verified Successfully" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"payload": base64.b64encode(PAYLOAD + b" ").decode()}, "by this key over these bytes"),
        ({"payloadType": "application/vnd.example+json"}, "by this key over these bytes"),
        ({"signatures": []}, "none of the envelope's 0"),
        ({"signatures": [{"sig": ""}]}, "by this key over these bytes"),
        ({"signatures": {}}, "expected `payload` and `payloadType`"),
        ({"signatures": ["x"]}, "sig: expected a string of base64"),
        ({"signatures": [{"sig": "*"}]}, "sig: not base64"),
        ({"payload": 7}, "payload: expected a string of base64, got int"),
        ({"payloadType": "\ud800"}, "payloadType: half of a surrogate pair"),
        ({"payloadType": None}, "expected `payload` and `payloadType`"),
    ],
)
def test_what_is_changed_or_malformed_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(dsse.EnvelopeError, match=message):
        dsse.verify({**THEIRS, **changed}, KEY.public_key(), payload_type=TYPE)


def test_another_key_and_another_type_are_refused() -> None:
    with pytest.raises(dsse.EnvelopeError, match="another key signed it"):
        dsse.verify(THEIRS, OTHER.public_key(), payload_type=TYPE)
    with pytest.raises(dsse.EnvelopeError, match="payloadType: expected 'x', got 'application"):
        dsse.verify(THEIRS, KEY.public_key(), payload_type="x")


def test_a_second_signature_does_not_hide_the_first() -> None:
    both = [*dsse.sign(PAYLOAD, TYPE, OTHER, keyid="")["signatures"], *THEIRS["signatures"]]
    assert dsse.verify(json.loads(json.dumps({**THEIRS, "signatures": both})), KEY.public_key(), payload_type=TYPE)
