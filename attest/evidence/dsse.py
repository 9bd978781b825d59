"""DSSE, the Dead Simple Signing Envelope (secure-systems-lab/dsse, protocol 1.0), signed with Ed25519 (RFC 8032).

    signature = Ed25519(PAE(type, body))
    PAE       = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body

The signature is over the exact bytes of the body and its type, so nothing is brought into a canonical form before it is
verified, and nothing is parsed before its signature holds. `keyid` is an unsigned hint: no decision rests on it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from attest.evidence.errors import EvidenceError

URL_SAFE = str.maketrans("-_", "+/")


class EnvelopeError(EvidenceError):
    """An envelope that is malformed, or that the key did not sign."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: lengths are of bytes, in decimal digits."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, key: Ed25519PrivateKey, *, keyid: str) -> dict[str, Any]:
    """An envelope around the payload with one signature."""
    return envelope(payload, payload_type, key.sign(pae(payload_type, payload)), keyid=keyid)


def envelope(payload: bytes, payload_type: str, signature: bytes, *, keyid: str) -> dict[str, Any]:
    """An envelope with one signature, in standard base64."""
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    }


def verify(envelope: Mapping[str, Any], key: Ed25519PublicKey, *, payload_type: str) -> tuple[bytes, bytes]:
    """Payload and signature, if one of the signatures over it is the key's and its type is the expected one.

    Raises EnvelopeError otherwise. Takes either alphabet of base64, as the protocol demands.
    """
    payload = _decoded(envelope, "payload")
    given, signatures = envelope.get("payloadType"), envelope.get("signatures")
    if not isinstance(given, str) or not isinstance(signatures, list):
        raise EnvelopeError("envelope: expected `payload` and `payloadType` (strings) and `signatures` (an array)")
    try:
        signed = pae(given, payload)
    except UnicodeEncodeError:
        raise EnvelopeError("payloadType: half of a surrogate pair, which is no text") from None
    held = next((each for each in (_decoded(entry, "sig") for entry in signatures) if _signed(key, each, signed)), None)
    if held is None:
        raise EnvelopeError(
            f"signature: none of the envelope's {len(signatures)} is by this key over these bytes: "
            "either something was changed, or another key signed it"
        )
    if given != payload_type:
        raise EnvelopeError(f"payloadType: expected {payload_type!r}, got {given!r}")
    return payload, held


def _signed(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _decoded(entry: Any, name: str) -> bytes:
    text = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(text, str):
        raise EnvelopeError(f"{name}: expected a string of base64, got {type(text).__name__}")
    try:
        return base64.b64decode(text.translate(URL_SAFE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeError(f"{name}: not base64: {error}") from None
