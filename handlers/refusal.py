"""A refusal as a gateway asks for it: a 200 that names the true status, so that the gateway's connection lives on.

TorchServe closes the connection after every status from 400 on, so refusals would cost the gateway a connection each. A
gateway that asks for it in the header ASKED gets an empty 200; X-Accel-Redirect names the place in the gateway that has
the true status (deploy/gateway/refusals.py), and the header TRUE the body. nginx keeps a connection only if the body of
such an answer is empty. The gateway's client gets what it would get otherwise; others see true statuses at TorchServe.
"""

from __future__ import annotations

from http import HTTPStatus

from handlers.forms import Encoded

ASKED = "Torchwarden-Refusals"
REDIRECT = "redirect"
TRUE = "Torchwarden-Refusal"
# from 500 on nginx writes what we say anew, since TorchServe has answers of the same statuses
STATUSES = frozenset({400, 403, 413, 415, 428, 429})
# bytes of a header that nginx takes in any case, beside all others (proxy_buffer_size)
LONGEST = 8192


def redirected(encoded: Encoded, asked: object) -> Encoded:
    """The answer as whoever sent `asked` in the header ASKED gets it. Bodies that are no header's value stay bodies."""
    fits = len(encoded.body) <= LONGEST and encoded.body.isascii() and encoded.body.decode("ascii").isprintable()
    if asked != REDIRECT or encoded.status not in STATUSES or not fits:
        return encoded
    place = {"X-Accel-Redirect": f"@refusal_{encoded.status}", TRUE: encoded.body.decode("ascii")}
    return encoded._replace(status=HTTPStatus.OK, body=b"", headers={**encoded.headers, **place})
