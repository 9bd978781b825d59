"""Evidence of an attest: an in-toto Statement (v1) with our predicate, in a DSSE envelope. docs/attest-evidence.md.

    envelope( signature,
      Statement( subjects: digests of the target file, measured.json, report.html and what the owner adds,
                 predicate: all that was measured, its verdict and thresholds, and the ledger's root ))

The shape of a Statement is predicate.schema.json, generated from the dataclasses of attest/measured.py. It is closed: a
new field is a new predicate type. The file has one form, byte by byte, so that not even its unsigned parts can be
changed without being seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from attest.evidence import dsse, exact_json, keys
from attest.evidence.errors import EvidenceError
from attest.evidence.proofs import LedgerRoot
from attest.measured import FILE as MEASURED
from attest.measured import Measured
from attest.verdict import BY, Thresholds
from recipes.fields import RecipeError, build, model

FILE, REPORT, TARGET = "evidence.dsse.json", "report.html", "target"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
# the project owns no domain: a UUID collides with nobody's, and the fragment says what it is
PREDICATE_TYPE = "urn:uuid:c43f37f4-9fd5-463a-bf0f-11119e405493#model-extraction-attest-v1"
SCHEMA = Path(__file__).with_name("predicate.schema.json")
MOST_FAULTS = 5


@dataclass(frozen=True)
class Predicate:
    """What the evidence says. signed_at: ISO 8601, UTC, by the signer's own clock. thresholds: the verdict's."""

    signed_at: str
    ledger: LedgerRoot
    thresholds: Thresholds
    measured: Measured


@dataclass(frozen=True)
class Statement:
    """A Statement whose signature held. subjects: SHA-256 by name, in hexadecimal."""

    subjects: dict[str, str]
    predicate: Predicate


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises EvidenceError."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror}") from None


def make(measured: Measured, ledger: LedgerRoot, subjects: Iterable[tuple[str, str]], *, now: datetime) -> bytes:
    """The Statement as JSON. subjects: names and SHA-256, no name twice; the target file's is taken from `measured`."""
    named = [(TARGET, measured.target.sha256), *subjects]
    twice = {name for name, _ in named if [each for each, _ in named].count(name) > 1}
    if twice:
        raise EvidenceError(f"subjects: expected each name once, got {', '.join(sorted(twice))} twice")
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": value}} for name, value in named],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "signed_at": now.isoformat(timespec="seconds"),
            "ledger": dataclasses.asdict(ledger),
            "thresholds": dataclasses.asdict(BY),
            "measured": dataclasses.asdict(measured),
        },
    }
    return _bytes(statement)


def sign(statement: bytes, key: Ed25519PrivateKey) -> str:
    """The text of the evidence's file."""
    keyid = keys.fingerprint(key.public_key())
    return _text(dsse.sign(statement, PAYLOAD_TYPE, key, keyid=keyid))


def verified(text: bytes, key: Ed25519PublicKey) -> Statement:
    """The Statement in the file of an evidence, if the key signed it and it is whole. Raises EvidenceError."""
    envelope = exact_json.loads(text, what="evidence")
    payload, signature = dsse.verify(envelope if isinstance(envelope, dict) else {}, key, payload_type=PAYLOAD_TYPE)
    if text != _text(dsse.envelope(payload, PAYLOAD_TYPE, signature, keyid=keys.fingerprint(key))).encode():
        raise EvidenceError(
            "evidence: the signature holds, but what it does not cover was changed: expected the form that "
            "`python -m attest.evidence` writes, with one signature and the key's fingerprint as its keyid"
        )
    statement = exact_json.loads(payload, what="evidence: its payload")
    if payload != _bytes(statement):
        raise EvidenceError("evidence: its payload has another form than `python -m attest.evidence` writes")
    return parsed(statement)


def parsed(statement: Any) -> Statement:
    """A Statement from its JSON, checked by the schema. Raises EvidenceError with what is wrong and where."""
    faults = list(jsonschema_rs.validator_for(json.loads(SCHEMA.read_text("utf-8"))).iter_errors(statement))
    if faults:
        lines = [f"{'/'.join(map(str, each.instance_path)) or 'statement'}: {each.message}" for each in faults]
        raise EvidenceError("\n".join(lines[:MOST_FAULTS]))
    try:
        predicate = build(Predicate, statement["predicate"], where="predicate")
    except RecipeError as error:
        raise EvidenceError(str(error)) from None
    subjects = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    if len(subjects) != len(statement["subject"]):
        raise EvidenceError("subject: a name stands there twice")
    if missing := {TARGET, MEASURED, REPORT} - set(subjects):
        raise EvidenceError(
            f"subject: expected {', '.join(sorted(missing))} among the names, got {', '.join(subjects)}"
        )
    if subjects.get(TARGET) != predicate.measured.target.sha256:
        raise EvidenceError("subject: the target's digest is not that of what was measured")
    return Statement(subjects, predicate)


def schema() -> str:
    """The text of predicate.schema.json: of the whole Statement, from the dataclasses."""
    whole = model(Predicate).model_json_schema()
    hexadecimal = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    subject = _closed({"name": {"type": "string"}, "digest": _closed({"sha256": hexadecimal})})
    statement = _closed(
        {
            "_type": {"const": STATEMENT_TYPE},
            "subject": {"type": "array", "minItems": 1, "items": subject},
            "predicateType": {"const": PREDICATE_TYPE},
            "predicate": whole["properties"]["value"],
        }
    )
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **statement}
    return json.dumps({**described, "$defs": whole["$defs"]}, indent=1) + "\n"


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _bytes(statement: Any) -> bytes:
    return json.dumps(statement, allow_nan=False).encode()


def _text(envelope: Any) -> str:
    return json.dumps(envelope, indent=1) + "\n"
