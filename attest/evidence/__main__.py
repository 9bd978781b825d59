"""Sign what an attest measured: its report and its evidence.

    python -m attest.evidence sign reports/attest-NAME --key secrets/attest.pem [--subject FILE ...]
    python -m attest.evidence schema            writes attest/evidence/predicate.schema.json

`sign` writes report.html and evidence.dsse.json next to measured.json. Before that it holds ledger.jsonl against
measured.json, and the verdict against attest/verdict.py: what does not agree is not signed.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path

from attest import measured, verdict
from attest.evidence import keys, proofs, statement
from attest.evidence.errors import EvidenceError
from attest.report import page
from report import atomic


def main() -> None:
    """Run the command line; what cannot be signed is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m attest.evidence", description="evidence of an attest")
    commands = parser.add_subparsers(dest="command", required=True)
    signing = commands.add_parser("sign", help="write report and evidence of an attest")
    signing.add_argument("run", type=Path, help="folder of a measured.json and a ledger.jsonl")
    signing.add_argument(
        "--key", type=Path, required=True, help="private key (python -m attest.evidence.keys makes one)"
    )
    signing.add_argument(
        "--subject", type=Path, action="append", default=[], help="a file that this is about, as an archive"
    )
    commands.add_parser("schema", help="write the schema of the evidence again")
    options = parser.parse_args()
    if options.command == "schema":
        atomic.write_text(statement.SCHEMA, statement.schema())
        print(f"wrote {statement.SCHEMA}")
        return
    try:
        path = sign(options.run, options.key, options.subject)
    except (EvidenceError, measured.MeasuredError) as error:
        sys.exit(f"attest.evidence: {error}")
    print(f"report: {options.run / statement.REPORT}")
    print(f"evidence: {path}")
    print(f"verify: python -m attest.verify {path} --key PUBLIC_KEY")


def sign(run: Path, key_path: Path, more: list[Path]) -> Path:
    """Write report and evidence of a run; the evidence's path. more: files whose digests are subjects as well, by their
    names. Raises EvidenceError, MeasuredError."""
    key = keys.private(key_path)
    found = measured.read(run)
    ledger = proofs.root_of(proofs.lines(run / measured.LEDGER))
    agree(found, ledger)
    marks = {
        "measured": statement.digest(run / measured.FILE),
        "root": ledger.root,
        "fingerprint": keys.fingerprint(key.public_key()),
    }
    atomic.write_text(run / statement.REPORT, page.render(found, marks))
    paths = [run / measured.FILE, run / statement.REPORT, *more]
    subjects = [(path.name, statement.digest(path)) for path in paths]
    made = statement.make(found, ledger, subjects, now=datetime.now(timezone.utc))
    atomic.write_text(run / statement.FILE, statement.sign(made, key))
    return run / statement.FILE


def agree(found: measured.Measured, ledger: proofs.LedgerRoot) -> None:
    """Raise EvidenceError unless what was measured is of this ledger, and has the verdict that its figures have."""
    if (ledger.sha256, ledger.lines) != (found.ledger.sha256, found.ledger.lines):
        raise EvidenceError(
            f"{measured.LEDGER}: {ledger.lines} lines with SHA-256 {ledger.sha256}, but {measured.FILE} is of "
            f"{found.ledger.lines} lines with {found.ledger.sha256}: it belongs to another run, or was changed"
        )
    judged = verdict.judge(found)
    if judged != found.verdict:
        raise EvidenceError(
            f"{measured.FILE}: its verdict is {found.verdict.word!r}, its figures give {judged.word!r}: it was "
            "changed, or judged by another version; attest again, which asks nothing twice"
        )


if __name__ == "__main__":
    main()
