"""What the service did against the campaign, read from the ledger: it throttled, refused, asked for work, or broke."""

from __future__ import annotations

from collections import Counter

from attest.asking import Asking
from attest.measured import Resistance
from evaluation.payment import price
from handlers.wire import decode_challenge


def resistance(asking: Asking, *, waited_s: float) -> Resistance:
    """Over every line. waited_s: while the service asked to be left alone."""
    counts, first = Counter[str](), dict[str, int]()
    hashes = 0.0
    watched = bool(asking.target.flag or asking.target.label)
    for entry in asking.ledger.entries():
        kinds = [entry.kind, *(["flagged"] if watched and asking.flagged(entry) else [])]
        for kind in kinds:
            counts[kind] += 1
            first.setdefault(kind, entry.index)
        challenge = decode_challenge(asking.ledger.answer(entry)) if entry.kind == "challenged" else None
        # one challenge for all rows of a request
        hashes += price(challenge) / entry.rows if challenge is not None else 0.0
    return Resistance(
        throttled=counts["throttled"],
        throttled_after=first.get("throttled"),
        waited_s=round(waited_s, 3),
        refused=counts["refused"],
        refused_after=first.get("refused"),
        flagged=counts["flagged"],
        flagged_after=first.get("flagged"),
        challenges=counts["challenged"],
        challenged_after=first.get("challenged"),
        hashes=hashes,
        failed=counts["failed"],
        dropped=counts["dropped"],
        redirected=counts["redirected"],
        unread=counts["unread"],
    )
