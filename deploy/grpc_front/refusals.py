"""An answer over HTTP that is no success, as gRPC has it: a code, the message, and what the client needs to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from grpc import StatusCode

# metadata behind an answer -> the header that it comes from
CHALLENGE, RETRY = "torchwarden-challenge", "retry-after"
CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    # not RESOURCE_EXHAUSTED, which clients try again: what is too large now is too large tomorrow
    413: StatusCode.OUT_OF_RANGE,
    415: StatusCode.INVALID_ARGUMENT,
    428: StatusCode.FAILED_PRECONDITION,
    429: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
    # TorchServe's, where Java has no memory left for a body
    507: StatusCode.RESOURCE_EXHAUSTED,
}
UNKNOWN_MODEL = "no such model is served"
# TorchServe says 400 to a token that is missing, wrong or out of date
NO_TOKEN = "InvalidKeyException"


class Refused(Exception):  # noqa: N818 - the name of what a client gets
    """metadata: what follows the status."""

    def __init__(self, code: StatusCode, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.metadata = tuple((metadata or {}).items())


class Reply(NamedTuple):
    """An answer over HTTP. headers: by names of any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def refusal(reply: Reply) -> Refused:
    """What a client gets of an answer that is no success."""
    code = CODES.get(reply.status, StatusCode.UNKNOWN)
    message, kind = _said(reply.body)
    if kind == NO_TOKEN:
        code = StatusCode.UNAUTHENTICATED
    if code == StatusCode.NOT_FOUND:  # whoever was asked speaks of paths, or repeats the name
        message = UNKNOWN_MODEL
    metadata = {name: reply.headers[name] for name in (CHALLENGE, RETRY) if name in reply.headers}
    return Refused(code, message or f"expected an answer, got status {reply.status}", metadata)


def _said(body: bytes) -> tuple[str, str]:
    """The message, and the kind where it is TorchServe's.

    {"error": text} is the protocol's, {"error": {"code", "message"}} the gateway's, {"code", "type", "message"}
    TorchServe's.
    """
    try:
        found: Any = json.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(found, dict):
        return "", ""
    error = found.get("error", found)
    if isinstance(error, str):
        return error, ""
    if not isinstance(error, dict):
        return "", ""
    code = f" ({error['code']})" if isinstance(error.get("code"), str) else ""
    return f"{error.get('message', '')}{code}", str(error.get("type", ""))
