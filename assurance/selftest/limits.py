"""Limits: a principal that asks for too much is refused, another is not, all together are, and time heals."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from assurance.selftest.checks import Subject, absent, judged, shown, untried
from assurance.selftest.service import Reply
from handlers import wire
from handlers.errors import RateLimited
from report.rows.selftest import Finding

CONTROL = "limits"
EARLY = "limits-before-work"
REFUSAL = f"{RateLimited.status} {RateLimited.code}"
# rows that a limit may have for the self-test to ask for that many
MOST_ROWS = 20_000


class Asked(NamedTuple):
    """The result of repeated requests: rows that were taken, and the answer that ended it."""

    rows: int
    last: Reply


def limits(subject: Subject) -> Iterator[Finding]:
    """Good rows, as fast as they go, until there were enough."""
    table = subject.stage("limits")
    if not table:
        for control in (CONTROL, EARLY):
            yield absent(control, subject.name, "the policy has no limits")
        return
    own, total, window = int(table["rows"]), table.get("total"), float(table.get("window", 60.0))
    most = max(own, total or 0)
    if most > MOST_ROWS:
        yield untried(CONTROL, subject.name, f"it would take {most} rows to reach; at most {MOST_ROWS} are asked for")
        return
    if window > subject.service.patience:
        yield untried(CONTROL, subject.name, f"its window is {window:g} s; see --patience")
        return
    # what other checks were answered has left the window by then
    time.sleep(window * 13 / 12 + 0.5)
    principal = subject.service.principal("greedy")
    before = _refused_rows(subject, "principal")
    began = time.monotonic()
    first = _until_refused(subject, principal, own)
    if first.last.code != RateLimited.code and time.monotonic() - began > window:
        yield untried(CONTROL, subject.name, f"{first.rows} rows took longer than its window, {window:g} s")
        return
    yield judged(
        CONTROL,
        subject.name,
        f"one principal's rows, {subject.max_rows} a request",
        f"{REFUSAL} after {own - subject.max_rows + 1} to {own} rows",
        f"{shown(first.last)} after {first.rows} rows",
        ok=first.last.code == RateLimited.code and own - subject.max_rows < first.rows <= own,
    )
    yield _says_when(subject, first.last, window)
    if total is None or total >= first.rows + 1:
        other = subject.service.rows(
            subject.name, subject.good, principal=subject.service.principal("modest"), patient=False
        )
        yield judged(
            CONTROL,
            subject.name,
            "another principal's row meanwhile",
            "200",
            shown(other),
            ok=other.status == 200,
        )
    counted = subject.service.reached(
        "torchwarden_limited_rows_total", before + 1, ModelName=subject.name, limit="principal"
    )
    yield judged(
        CONTROL,
        subject.name,
        "a look at the metrics",
        "a row or more over the limit `principal`",
        f"{counted - before:.0f}",
        ok=counted - before >= 1,
    )
    yield from _unread(subject, principal)
    if total is not None:
        yield from _together(subject, int(total), own, window, already=first.rows)
    wait = math.ceil(float(first.last.headers.get("Retry-After", window)))
    time.sleep(wait + (window * 13 / 12 if total is not None else 0) + 0.1)
    later = subject.service.rows(subject.name, subject.good, principal=principal, patient=False)
    yield judged(CONTROL, subject.name, "the same principal's row, later", "200", shown(later), ok=later.status == 200)
    yield from _spoiled(subject, own, int(table.get("bad_rows", 1)), window)


def _together(subject: Subject, total: int, own: int, window: float, *, already: int) -> Iterator[Finding]:
    """Principals that each keep to their limit, until all together were answered enough."""
    before = _refused_rows(subject, "total")
    taken, number, last = already, 0, Reply(0)
    each = own // subject.max_rows * subject.max_rows
    began = time.monotonic()
    while taken <= total and number <= total // each + 1:
        asked = _until_refused(subject, subject.service.principal(f"crowd-{number}"), own, enough=own)
        taken, last, number = taken + asked.rows, asked.last, number + 1
        if last.code == RateLimited.code:
            break
    if last.code != RateLimited.code and time.monotonic() - began > window:
        yield untried(CONTROL, subject.name, f"{taken} rows of all took longer than its window, {window:g} s")
        return
    counted = subject.service.reached(
        "torchwarden_limited_rows_total", before + 1, ModelName=subject.name, limit="total"
    )
    yield judged(
        CONTROL,
        subject.name,
        f"the rows of {number} more principals, each within its limit",
        f"{REFUSAL} at {total} rows at most",
        f"{shown(last)} after {taken} rows, {counted - before:.0f} over the limit `total`",
        ok=last.code == RateLimited.code and taken <= total and counted > before,
    )


def _unread(subject: Subject, principal: str) -> Iterator[Finding]:
    """Undecodable rows of a principal over its limit: a service that decodes first answers 400."""
    full = _filled(subject, principal)
    reply = subject.service.ask(subject.name, b"no row", wire.RAW, principal=principal, patient=False)
    sent = "a body without a row, of that principal"
    yield judged(EARLY, subject.name, sent, REFUSAL, shown(reply), ok=full and reply.code == RateLimited.code)


def _filled(subject: Subject, principal: str) -> bool:
    """Use up what is left of a principal's limit, row by row; whether it is used up."""
    for _ in range(subject.max_rows):
        reply = subject.service.rows(subject.name, subject.good, principal=principal, patient=False)
        if reply.code == RateLimited.code:
            return True
    return False


def _spoiled(subject: Subject, own: int, bad_rows: int, window: float) -> Iterator[Finding]:
    """Rows that cannot be answered, as fast as they go: they count, too."""
    if not bad_rows:
        yield untried(EARLY, subject.name, "bad rows count for nothing (bad_rows = 0)")
        return
    principal = subject.service.principal("spoiler")
    body = wire.encode_rows(np.full_like(np.repeat(subject.good, subject.max_rows, axis=0), np.nan), wire.RAW)
    began, rows = time.monotonic(), 0
    reply = Reply(0)
    while rows * bad_rows <= 2 * own:
        reply = subject.service.ask(subject.name, body, wire.RAW, principal=principal, patient=False)
        if reply.code == RateLimited.code:
            break
        rows += subject.max_rows
    if reply.code != RateLimited.code and time.monotonic() - began > window:
        yield untried(EARLY, subject.name, f"{rows} bad rows took longer than the limit's window, {window:g} s")
        return
    yield judged(
        EARLY,
        subject.name,
        f"one principal's bad rows, {subject.max_rows} a request",
        f"{REFUSAL} after {own // bad_rows} rows at most",
        f"{shown(reply)} after {rows} rows",
        ok=reply.code == RateLimited.code and rows * bad_rows <= own,
    )


def _until_refused(subject: Subject, principal: str, own: int, *, enough: int | None = None) -> Asked:
    """Ask for full requests until one is refused, or `enough` rows were answered; more than twice the limit are not
    asked for."""
    rows, taken = np.repeat(subject.good, subject.max_rows, axis=0), 0
    reply = Reply(0)
    while taken <= 2 * own and (enough is None or taken + len(rows) <= enough):
        reply = subject.service.rows(subject.name, rows, principal=principal, patient=False)
        if reply.status != 200:
            break
        taken += len(rows)
    return Asked(taken, reply)


def _says_when(subject: Subject, reply: Reply, window: float) -> Finding:
    retry_after = reply.headers.get("Retry-After", "nothing")
    whole = retry_after.isdecimal() and 1 <= int(retry_after) <= math.ceil(window * 13 / 12)
    return judged(
        CONTROL,
        subject.name,
        "a look at Retry-After",
        f"whole seconds, 1 to {math.ceil(window * 13 / 12)}",
        retry_after,
        ok=whole,
    )


def _refused_rows(subject: Subject, limit: str) -> float:
    return subject.service.counted("torchwarden_limited_rows_total", ModelName=subject.name, limit=limit)
