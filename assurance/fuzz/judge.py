"""Is this how a hostile request may end? Whose fault is it if not?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from assurance.fuzz.case import Case
from assurance.fuzz.door import ANSWERED, CUT, GARBLED, SILENT, Reply
from assurance.fuzz.reference import Row, agrees
from handlers import errors, wire

OURS, FRONT_END = "ours", "front end"
# of 5xx, what a front end says to HTTP that it does not speak: a method, a coding, a version
SPEECHLESS = (501, 505)


class Verdict(NamedTuple):
    """label: the ending in a word or two. complaint: what is wrong with it, or None; whose: OURS or FRONT_END."""

    label: str
    complaint: str | None = None
    whose: str = OURS


def _documented() -> dict[str, int]:
    """The status of each code of ours."""
    found, classes = {}, [errors.RequestError]
    while classes:
        each = classes.pop()
        classes += each.__subclasses__()
        if "code" in vars(each):
            found[each.code] = each.status
    return found


CODES = _documented()


def label(reply: Reply) -> str:
    """How a request ended: the status and our code, or what the front end calls it."""
    if reply.how != ANSWERED:
        return reply.how
    if reply.status < 300:
        return str(reply.status)
    return f"{reply.status} {_code(reply)[0]}"


def judge(case: Case, reply: Reply, expected: Callable[[], list[Row]], names: Sequence[str] = ()) -> Verdict:
    """The verdict on one case. expected: asks for the responses that the rows must get, where `case.seen` is set.
    names: of the model's classes."""
    said = label(reply)
    if reply.how == SILENT:
        return Verdict(said, None if not case.complete else "no answer within the deadline", FRONT_END)
    if reply.how == CUT:
        return Verdict(said, None if case.refusable or not case.complete else "closed without an answer", FRONT_END)
    if reply.how == GARBLED and not _old(case):
        return Verdict(said, f"no HTTP came back: {reply.body!a}", FRONT_END)
    if reply.how == GARBLED or (reply.status in SPEECHLESS and case.refusable):
        return Verdict(said)
    code, ours = _code(reply)
    whose = OURS if ours or code in ("InternalServerException", "ServiceUnavailableException") else FRONT_END
    if reply.status >= 500:
        return Verdict(said, f"status {reply.status}: {reply.body[:200]!a}", whose)
    if b"transfer-encoding" in case.head.lower() and b"HTTP/1." in reply.more and reply.status < 400:
        return Verdict(said, "two answers to what may be one request", FRONT_END)
    if reply.status >= 400 and ours and CODES.get(code) != reply.status and not case.refusable:
        return Verdict(said, f"status {reply.status} with a code that is not documented for it: {code}")
    if not ours and reply.status >= 400:
        return Verdict(said, None if case.refusable else "refused by the front end", FRONT_END)
    if case.seen is None or code in case.also:
        return Verdict(said)
    if ours and case.refusable and code not in CODES:  # a gateway's own refusal
        return Verdict(said)
    whose = FRONT_END if case.idea == "two-at-once" else OURS  # it was asked something else too
    try:
        return Verdict(said, agrees(reply, expected(), case.seen, names), whose)
    except wire.WireError as error:
        return Verdict(said, f"not what the contract says: {error}", whose)


def _old(case: Case) -> bool:
    """Whether the request is of HTTP/0.9, whose answers have no status."""
    first = case.head.partition(b"\r\n")[0]
    return not first.endswith((b"HTTP/1.0", b"HTTP/1.1"))


def _code(reply: Reply) -> tuple[str, bool]:
    """An answer's code and whether it is in our form: {"error": {...}} or predictions; TorchServe has its own."""
    try:
        content = json.loads(reply.body)
    except ValueError:
        return ("empty" if not reply.body else "other"), False
    if not isinstance(content, dict):
        return "other", False
    if isinstance(content.get("error"), dict):
        return str(content["error"].get("code")), True
    if isinstance(content.get("error"), str):  # of the Open Inference Protocol
        return wire.decode_inference_error(reply.body).code, True
    return str(content.get("type", "")), "predictions" in content
