"""What TorchServe itself answers badly, before any code of ours, and what mends it.

TorchServe gets no more fixes. Each entry is a bad answer that was seen, and who keeps such requests from it. Any other
bad answer is a finding.
"""

from __future__ import annotations

from assurance.fuzz.case import Case
from assurance.fuzz.judge import Verdict

GATEWAY = "the gateway: it passes on POST /predictions/NAME alone, with the four content types and a plain length"
# ending, or idea: who mends it
KNOWN = {
    # a target without a slash
    "500 ArrayIndexOutOfBoundsException": GATEWAY,
    # forms that are broken; TorchServe reads them before it asks us, who would refuse them with 415
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
