"""Show one query of an attest without the others.

    python -m attest.prove reports/attest-NAME/ledger.jsonl 1234 > proof.json       [--answer FILE]
    python -m attest.verify evidence.dsse.json --key attest.pub.pem --proof proof.json [--image FILE] [--answer FILE]

The proof holds the ledger's line and the hashes beside its way up to the root that the evidence states. --answer FILE
takes the answer of that query out of answers.bin, next to the ledger.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attest.evidence import proofs
from attest.evidence.errors import EvidenceError
from attest.measured import ANSWERS
from report import atomic


def main() -> None:
    """Run the command line; a line that is not there is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m attest.prove", description="one query of a ledger, with its proof")
    parser.add_argument("ledger", type=Path, help="ledger.jsonl of an attest")
    parser.add_argument("index", type=int, help="which query, counted from 0")
    parser.add_argument("--answer", type=Path, help="write the bytes of its answer there")
    options = parser.parse_args()
    try:
        proof = proofs.prove(proofs.lines(options.ledger), options.index)
        if options.answer:
            atomic.write_bytes(options.answer, answer(options.ledger.with_name(ANSWERS), json.loads(proof["line"])))
    except EvidenceError as error:
        sys.exit(f"attest.prove: {error}")
    print(json.dumps(proof, indent=1))


def answer(answers: Path, line: Mapping[str, Any]) -> bytes:
    """The answer that a ledger's line is about. Raises EvidenceError where it is not in the file any more."""
    try:
        with answers.open("rb") as file:
            file.seek(line["offset"])
            found = file.read(line["length"])
    except OSError as error:
        raise EvidenceError(f"{answers}: {error.strerror}") from None
    if hashlib.sha256(found).hexdigest() != line["answer_sha256"]:
        raise EvidenceError(f"{answers}: the answer of query {line['index']} is no longer the one it was")
    return found


if __name__ == "__main__":
    main()
