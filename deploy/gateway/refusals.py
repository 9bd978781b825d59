"""What the gateway answers itself: nginx's locations for it, with the body that the request's protocol has.

{"error": {"code", "message", "row"}}      as the handler writes it
{"error": "message (code)"}                to the paths of the Open Inference Protocol, whose errors are texts

And the places where the handler's own refusals get their status: see `handlers`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

LATER = "set $retry_after 1;"
# a large body that is refused is not read to its end: reading it would cost more than many that are answered
UNREAD = "lingering_time 0; keepalive_timeout 0;"
RATE = (
    "expected at most @RATE@ requests a second from one address, @PRINCIPAL_RATE@ of one client, of these "
    "@PRINCIPAL_MIDDLE_RATE@ a minute from 100 kB up and @PRINCIPAL_LARGE_RATE@ from 1 MB up; try again later"
)
CONNECTIONS = (
    "expected at most @ADDRESS@ requests at once from one address, @PRINCIPAL@ of one client, @PRINCIPAL_LARGE@ of "
    "them large; try again later"
)


@dataclass(frozen=True)
class Refusal:
    """location: nginx's, "= /error/NAME" or a named one. directives: of the location, before it answers."""

    location: str
    status: int
    code: str
    message: str
    directives: str = ""


REFUSALS = (
    Refusal(
        "= /error/400", 400, "bad_request", "expected an HTTP/1.1 request with a host and headers of the usual form"
    ),
    Refusal("= /error/https", 400, "bad_request", "expected HTTPS, got HTTP"),
    Refusal(
        "@unauthorized", 401, "unauthorized", "expected HTTP Basic authentication with a name and a key of this service"
    ),
    Refusal("= /error/404", 404, "not_found", "expected POST /predictions/NAME of a model that is served"),
    Refusal("= /error/405", 405, "method_not_allowed", "expected the method that the header Allow names"),
    Refusal("= /error/411", 411, "length_required", "expected a Content-Length, got a body in chunks"),
    Refusal("= /error/413", 413, "too_large", "expected a body of at most @MAX_BODY@ bytes"),
    Refusal("= /error/414", 414, "uri_too_long", "expected a request line of at most 8192 bytes"),
    Refusal(
        "= /error/415",
        415,
        "unsupported_content_type",
        "expected no Content-Encoding; send the body as it is, not compressed",
    ),
    Refusal("= /error/431", 431, "headers_too_large", "expected headers of at most 8192 bytes each and 32768 together"),
    Refusal("= /error/rate", 429, "too_many_requests", RATE, LATER),
    Refusal("= /error/connections", 429, "too_many_requests", CONNECTIONS, LATER),
    Refusal("= /error/rate-large", 429, "too_many_requests", RATE, f"{UNREAD} {LATER}"),
    Refusal("= /error/connections-large", 429, "too_many_requests", CONNECTIONS, f"{UNREAD} {LATER}"),
    Refusal("= /error/busy", 429, "busy", "as many requests are being answered as can wait; try again later", LATER),
    Refusal(
        "= /error/503",
        503,
        "unavailable",
        "the model could not be asked, or its answer was lost; try again later",
        LATER,
    ),
    Refusal("= /error/504", 504, "timeout", "no answer came within @PATIENCE@ seconds"),
)
# the code is the handler's own, which a header names
CODE = "$upstream_http_torchwarden_answer"
VERDICTS = {
    "internal": (500, "this request could not be handled"),
    "unanswered": (503, "this request cannot be answered now; try again later"),
}


# statuses of the handler that it leaves to the gateway (handlers/refusal.py)
HANDLERS = (400, 403, 413, 415, 428, 429)


def handlers() -> str:
    """The text for the place @HANDLERS@: a location for each status, which `return` takes as a number only."""
    return "\n".join(
        f"        location @refusal_{status} {{ set $retry_after $upstream_http_retry_after; "
        "set $refused_request $upstream_http_x_request_id; "
        "set $refused_challenge $upstream_http_torchwarden_challenge; "
        f"return {status} $upstream_http_torchwarden_refusal; }}"
        for status in HANDLERS
    )


def locations() -> str:
    """The text for the place @ERRORS@ of nginx.conf.in."""
    return "\n".join(_location(refusal) for refusal in REFUSALS)


def verdicts() -> str:
    """The text for the place @REFUSED@: what became of a 5xx of the handler's own."""
    return "\n".join(
        f"            if ($failed = {verdict}:{protocol}) {{ return {status} '{_body(CODE, message, protocol)}'; }}"
        for verdict, (status, message) in VERDICTS.items()
        for protocol in ("v2", "")
    )


def _location(refusal: Refusal) -> str:
    internal = "internal; " if refusal.location.startswith("=") else ""
    directives = f"{refusal.directives} " if refusal.directives else ""
    ours, texts = (_body(refusal.code, refusal.message, protocol) for protocol in ("", "v2"))
    return (
        f"        location {refusal.location} {{ {internal}{directives}"
        f"if ($protocol) {{ return {refusal.status} '{texts}'; }} return {refusal.status} '{ours}'; }}"
    )


def _body(code: str, message: str, protocol: str) -> str:
    error = f"{message} ({code})" if protocol else {"code": code, "message": message, "row": None}
    return json.dumps({"error": error})
