"""What a ledger proves: the root over all of its lines, and one line without the others.

A ledger is a file of JSON lines, each with its own `index`, counted from 0. The exact bytes of a line, without its line
break, are a leaf of the Merkle tree (attest/evidence/merkle.py). The evidence holds root and number of lines; a proof
holds one line and the hashes beside its way up. Whoever has image or answer of that query compares their SHA-256 with
`image_sha256` and `answer_sha256` of the line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest.evidence import exact_json, merkle
from attest.evidence.errors import EvidenceError

FORMAT = 1
TREE = "RFC 9162 SHA-256"


@dataclass(frozen=True)
class LedgerRoot:
    """A ledger by its digests, in hexadecimal. tree: TREE. lines: how many. root: of the tree over them; sha256: of the
    whole file."""

    tree: str
    lines: int
    root: str
    sha256: str


def lines(path: Path) -> list[bytes]:
    """The lines of a ledger. Raises EvidenceError if one is missing, doubled, out of order or cut off."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror}") from None
    if data and not data.endswith(b"\n"):
        raise EvidenceError(f"{path}: the last line is cut off")
    found = data.split(b"\n")[:-1]
    for number, line in enumerate(found):
        query = exact_json.loads(line, what=f"{path}: line {number + 1}")
        if not isinstance(query, dict) or "index" not in query:
            raise EvidenceError(f"{path}: line {number + 1}: expected a JSON object with `index`")
        if not _same_number(index := query["index"], number):
            raise EvidenceError(
                f"{path}: line {number + 1}: expected index {number}, got {index!r}: one is missing, doubled or moved"
            )
    return found


def root_of(ledger: Sequence[bytes]) -> LedgerRoot:
    """What evidence says of a ledger."""
    whole = hashlib.sha256()
    for line in ledger:
        whole.update(line + b"\n")
    return LedgerRoot(TREE, len(ledger), merkle.root(ledger).hex(), whole.hexdigest())


def prove(ledger: Sequence[bytes], index: int) -> dict[str, Any]:
    """The proof of one line, as JSON. Raises EvidenceError for one that is not there."""
    try:
        siblings = merkle.path(ledger, index)
    except IndexError as error:
        raise EvidenceError(str(error)) from None
    return {
        "format": FORMAT,
        "index": index,
        "lines": len(ledger),
        "line": ledger[index].decode(),
        "path": [each.hex() for each in siblings],
    }


def proven(proof: Mapping[str, Any], stated: LedgerRoot) -> dict[str, Any]:
    """The query that a proof shows, if it is one of the ledger that the evidence states. Raises EvidenceError."""
    try:
        if not _same_number(proof["format"], FORMAT) or set(proof) != {"format", "index", "lines", "line", "path"}:
            raise EvidenceError(f"proof: expected format {FORMAT} with index, lines, line and path")
        index, line = proof["index"], proof["line"]
        siblings = [bytes.fromhex(each) for each in proof["path"]]
        if type(index) is not int or [each.hex() for each in siblings] != proof["path"]:
            raise EvidenceError("proof: expected an integer as index, and a path of lower-case hexadecimal hashes")
        if not _same_number(proof["lines"], stated.lines):
            raise EvidenceError(f"proof: of a ledger of {proof['lines']} lines, the evidence is of {stated.lines}")
        found = merkle.root_by(line.encode(), index, stated.lines, siblings).hex()
        query: dict[str, Any] = exact_json.loads(line, what="proof: its line")
        says = query["index"]
    except merkle.ProofError as error:
        raise EvidenceError(f"proof: {error}") from None
    except EvidenceError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"proof: {error}") from None
    if found != stated.root:
        raise EvidenceError(f"proof: line {index} is not in the ledger of this evidence: root {found}")
    if not _same_number(says, index):
        raise EvidenceError(f"proof: line {index} says that it is {says!r}")
    return query


def _same_number(found: Any, wanted: int) -> bool:
    """True and 1.0 are equal to 1, and not the same."""
    return type(found) is int and found == wanted
