"""What TorchServe itself answers badly, before any code of ours, and what mends it.

TorchServe gets no more fixes. Each entry is a bad answer that was seen, and who keeps such requests from it. Any other
bad answer is a finding.
"""

from __future__ import annotations

from assurance.fuzz.case import Case
from assurance.fuzz.judge import Verdict

GATEWAY = "the gateway: it passes on the paths of the API alone, with a plain length, and answers these with 400"
# ending, or idea: who mends it
KNOWN = {
    # a target without a slash
    "500 ArrayIndexOutOfBoundsException": GATEWAY,
    # Forms that are broken, which TorchServe takes apart before it asks us. ErrorDataDecoderException: a part without a
    # name or with an empty one, with a Content-Transfer-Encoding other than 7bit, 8bit and binary, with a charset that
    # is none, or a `filename*` that cannot be read; a form within a form that is none; a field with a broken %.
    # ArrayIndexOutOfBoundsException: `name` without a value, a part multipart/mixed without a boundary.
    # StringIndexOutOfBoundsException: an empty boundary
    "500 ErrorDataDecoderException": GATEWAY,
    "500 IllegalArgumentException": GATEWAY,
    "500 StringIndexOutOfBoundsException": GATEWAY,
    # a Transfer-Encoding that it does not know is not refused but looked past
    "smuggled": "the gateway: it refuses every Transfer-Encoding",
    # the second answer may come first, or be the only one
    "two-at-once": "the gateway: it has one request at a time under way on a connection to TorchServe",
}


def mended(case: Case, verdict: Verdict) -> str | None:
    """Who keeps such a request from TorchServe, or None where this is news."""
    return KNOWN.get(verdict.label) or KNOWN.get(case.idea)
