"""What a request may be: every bad request of loadtests.malformed, a bad row next to a good one, lines that look like
the server's own, headers that mean something to TorchServe, and names that are none."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Iterator

import numpy as np

from assurance.selftest.checks import Subject, judged, shown
from handlers import wire
from handlers.errors import BadPrincipal, NotFinite, TooManyRows
from loadtests.answers import check_refusal
from loadtests.malformed import CASES
from report.rows.selftest import Finding

# the control that a case is about; the others are about images and bodies
CONTROLS = {"no-token": "closed-server", "wrong-token": "closed-server", "describe-header": "inert-headers"}
INPUT = "bounded-input"
FORGED = '[METRICS]torchwarden_rows_total.Count:999|#Level:Model,ModelName:{mark}|#hostname:{mark},1,"{mark}"\n[PID]1\n'


def hostile(subject: Subject) -> Iterator[Finding]:
    """Every case, and what must come back."""
    service = subject.service
    for case in CASES:
        request = case.make(subject.good, service.target.max_request_size)
        reply = service.ask(
            subject.name,
            request.body,
            request.content_type,
            principal=service.principal("hostile"),
            headers=request.headers,
            authorization={"right": None, "none": "", "wrong": "Bearer AAAAAAAA"}[request.token],
        )
        expected = " or ".join(str(status) if status else "cut" for status in case.statuses)
        try:
            check_refusal(reply.status, reply.body, statuses=case.statuses, code=case.code)
            ok = reply.status != 200 or len(reply.answers) == 1
        except wire.WireError:
            ok = False
        yield judged(
            CONTROLS.get(case.name, INPUT),
            subject.name,
            case.name,
            f"{expected} {case.code or ''}".strip(),
            shown(reply) if reply.status != 200 else f"200, {len(reply.answers)} rows answered",
            ok=ok,
        )


def one_row_too_many(subject: Subject) -> Iterator[Finding]:
    """Good rows, one more than the policy allows."""
    rows = np.repeat(subject.good, subject.max_rows + 1, axis=0)
    reply = subject.service.rows(subject.name, rows, principal=subject.service.principal("rows"))
    yield judged(
        INPUT,
        subject.name,
        f"{len(rows)} good rows",
        f"{TooManyRows.status} {TooManyRows.code}",
        shown(reply),
        ok=reply.code == TooManyRows.code,
    )


def metadata(subject: Subject) -> Iterator[Finding]:
    """A good picture with a text whose checksum is wrong: nobody finds out who does not read it."""
    picture = wire.encode_rows(subject.good, wire.PNG)
    text = b"tEXtTitle\0A picture"
    wrong = (zlib.crc32(text) ^ 1).to_bytes(4, "big")
    sent = picture[:33] + (len(text) - 4).to_bytes(4, "big") + text + wrong + picture[33:]
    reply = subject.service.ask(subject.name, sent, wire.PNG, principal=subject.service.principal("metadata"))
    yield judged(
        "unread-metadata",
        subject.name,
        "a good picture with a text of a wrong checksum",
        "an answer",
        shown(reply),
        ok=reply.status == 200 and len(reply.answers) == 1,
    )


def neighbours(subject: Subject) -> Iterator[Finding]:
    """A good row and a row with a NaN."""
    bad = subject.good.copy()
    bad.flat[0] = np.nan
    reply = subject.service.rows(
        subject.name, np.concatenate([subject.good, bad]), principal=subject.service.principal("neighbours")
    )
    yield judged(
        "row-independence",
        subject.name,
        "a good row and a NaN next to it",
        f"an answer and {NotFinite.code}",
        shown(reply) if reply.status != 200 else f"{len(reply.answers)} answered, {', '.join(reply.faults.values())}",
        ok=reply.status == 200 and len(reply.answers) == 1 and reply.faults == {1: NotFinite.code},
    )


def forged_lines(subject: Subject) -> Iterator[Finding]:
    """Lines that TorchServe would take for a worker's metrics and commands, in bodies and headers."""
    service, mark = subject.service, f"forged{secrets.token_hex(6)}"
    lines = FORGED.format(mark=mark)
    principal = service.principal("forged")
    for kind in (wire.PNG, wire.JSON):
        service.ask(
            subject.name, lines.encode(), kind, principal=principal, headers={"X-Note": lines.replace("\n", " ")}
        )
    service.ask(subject.name, b"x", lines.replace("\n", " "), principal=principal)
    service.ask(
        subject.name,
        wire.encode_rows(subject.good, wire.RAW),
        wire.RAW,
        principal=principal,
        headers={wire.SOLUTION: lines.replace("\n", " ")},
    )
    # one more answer, after which the lines of those before have been read
    service.rows(subject.name, subject.good, principal=principal)
    outputs = {"metrics": service.metrics().encode(), "log": service.logs()}
    seen = [name for name, text in outputs.items() if mark.encode() in text]
    yield judged(
        "silent-log",
        subject.name,
        "lines as workers write them, 5 times",
        "in no metric and no log",
        f"in {' and '.join(seen)}" if seen else "in neither",
        ok=not seen,
    )


def principals(subject: Subject) -> Iterator[Finding]:
    """A gateway's header that holds no name."""
    for sent, name in (("a principal of two words", "not a name"), ("a principal of 65 characters", "x" * 65)):
        reply = subject.service.rows(subject.name, subject.good, principal=name)
        yield judged(
            "limits",
            subject.name,
            sent,
            f"{BadPrincipal.status} {BadPrincipal.code}",
            shown(reply),
            ok=reply.code == BadPrincipal.code,
        )
