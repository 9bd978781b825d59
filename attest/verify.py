"""Check the evidence of an attest, as an auditor does: who signed it, that nothing was changed, and what it says.

    python -m attest.verify reports/attest-NAME/evidence.dsse.json --key attest.pub.pem
        [--max-age DAYS] [--subject FILE ...] [--ledger FILE] [--proof proof.json [--image FILE] [--answer FILE]]

Files of the evidence that lie next to it are held against their digests (measured.json, report.html, ledger.jsonl), and
every --subject FILE must be one of those that it is about. The verdict is judged again from the figures. Exit code 1 if
anything fails. That it holds says who vouches for the figures, not that they are right: whoever has the ledger can show
single queries (attest.prove), and whoever has the service can attest again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from attest import measured, verdict
from attest.evidence import exact_json, keys, proofs, statement
from attest.evidence.errors import EvidenceError


def main() -> None:
    """Run the command line; evidence that does not hold is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m attest.verify", description="check the evidence of an attest")
    parser.add_argument("evidence", type=Path, help="evidence.dsse.json")
    parser.add_argument("--key", type=Path, required=True, help="the signer's public key, got by a way of your own")
    parser.add_argument("--max-age", type=float, help="days: fail where the attest began longer ago")
    parser.add_argument(
        "--subject", type=Path, action="append", default=[], help="a file that the evidence must be about"
    )
    parser.add_argument("--ledger", type=Path, help="the ledger (ledger.jsonl next to the evidence, where it is there)")
    parser.add_argument("--proof", type=Path, help="one query, as attest.prove shows it")
    parser.add_argument("--image", type=Path, help="the picture of that query, as it was sent")
    parser.add_argument("--answer", type=Path, help="the answer to that query, as it came")
    options = parser.parse_args()
    if (options.image or options.answer) and not options.proof:
        parser.error("--image and --answer belong to a query: give its --proof")
    try:
        key = keys.public(options.key)
        found = statement.verified(_read(options.evidence), key)
        print(plain(f"ok: signed by {keys.fingerprint(key)} at {found.predicate.signed_at}, by the signer's clock"))
        for line in checks(found, options.evidence.parent, subjects=options.subject, ledger=options.ledger):
            print(plain(line))
        if options.max_age is not None:
            print(fresh(found, options.max_age, now=datetime.now(timezone.utc)))
        if options.proof:
            for line in query(found, options.proof, image=options.image, answer=options.answer):
                print(plain(line))
    except EvidenceError as error:
        sys.exit(f"attest.verify: FAILED: {plain(str(error))}")
    said = found.predicate.measured
    print(plain(f"target: {said.target.name}, {said.target.url}, from {said.run.started}"))
    print(plain(f"verdict: {said.verdict.sentence}"))
    print(f"confidence: {verdict.confidence(said.verdict)}")
    for reason in verdict.caveats(said.verdict):
        print(plain(f"  {reason}"))


def plain(text: str) -> str:
    """Text without what steers a terminal: what it says is the signer's, or whoever's the file is."""
    return "".join(letter if letter.isprintable() or letter in "\n\u202f" else "?" for letter in text)


def checks(
    found: statement.Statement, folder: Path, *, subjects: Sequence[Path] = (), ledger: Path | None = None
) -> Iterator[str]:
    """A line for each thing that was held against the evidence, or that could not be. Raises EvidenceError."""
    for name, stated in found.subjects.items():
        # a name leads to no other folder: it is the signer's, and nobody trusts the signer yet
        path = folder / Path(name).name
        if name != statement.TARGET and path.is_file():
            yield _same(path, stated)
            if name == measured.FILE and _read_measured(path) != found.predicate.measured:
                raise EvidenceError(f"{path}: other figures than the evidence itself holds: its signer says two things")
        elif name != statement.TARGET:
            yield f"not checked: {name} is not here"
    for path in subjects:
        if statement.digest(path) not in found.subjects.values():
            raise EvidenceError(f"{path}: the evidence is not about this file, or it was changed")
        yield f"ok: {path} is a subject"
    yield _ledger(found.predicate, ledger or folder / measured.LEDGER, asked=ledger is not None)
    said = found.predicate
    if said.thresholds != verdict.BY:
        yield f"not checked: the verdict, which was judged by other thresholds: {said.thresholds}"
    elif verdict.judge(said.measured) != said.measured.verdict:
        raise EvidenceError(f"verdict: its figures do not give the verdict {said.measured.verdict.word!r}")
    else:
        yield "ok: the figures give the verdict"


def fresh(found: statement.Statement, days: float, *, now: datetime) -> str:
    """Raise EvidenceError for an attest that began more than so many days ago, or that has yet to begin."""
    started = found.predicate.measured.run.started
    try:
        age = (now - datetime.fromisoformat(started.replace("Z", "+00:00"))).total_seconds() / 86400
    except (ValueError, TypeError):
        raise EvidenceError(f"started: expected a time with its zone, got {started!r}") from None
    if not 0 <= age <= days:
        raise EvidenceError(f"started: {started} is {age:.1f} days ago, expected at most {days:g}: attest again")
    return f"ok: began {age:.1f} days ago"


def query(found: statement.Statement, proof: Path, *, image: Path | None, answer: Path | None) -> Iterator[str]:
    """The query that a proof shows, held against the picture and the answer that are given. Raises EvidenceError."""
    shown = proofs.proven(exact_json.loads(_read(proof), what=str(proof)), found.predicate.ledger)
    yield f"ok: query {shown['index']} is in the ledger: {json.dumps(shown)}"
    for name, path in (("image", image), ("answer", answer)):
        if path is not None:
            if hashlib.sha256(_read(path)).hexdigest() != shown.get(f"{name}_sha256"):
                raise EvidenceError(
                    f"{path}: not the {name} of query {shown['index']}, whose SHA-256 is {shown.get(f'{name}_sha256')}"
                )
            yield f"ok: {path} is its {name}"


def _ledger(said: statement.Predicate, path: Path, *, asked: bool) -> str:
    if not asked and not path.is_file():
        return f"not checked: {measured.LEDGER} is not here (it stays with the owner)"
    found = proofs.root_of(proofs.lines(path))
    if found != said.ledger:
        raise EvidenceError(f"{path}: not the ledger of this evidence: {found.lines} lines, root {found.root}")
    return f"ok: {path.name}, {found.lines} lines under the root {found.root}"


def _same(path: Path, stated: str) -> str:
    if statement.digest(path) != stated:
        raise EvidenceError(
            f"{path}: changed since it was signed, or of another attest: SHA-256 {statement.digest(path)}"
        )
    return f"ok: {path.name}"


def _read_measured(path: Path) -> measured.Measured:
    exact_json.loads(_read(path), what=str(path))
    try:
        return measured.read(path)
    except measured.MeasuredError as error:
        raise EvidenceError(str(error)) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror}") from None


if __name__ == "__main__":
    main()
