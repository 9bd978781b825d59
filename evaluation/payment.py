"""How clients pay for responses: by solving challenges, or, in process, on credit.

On credit the price is recorded and nobody hashes, so attacks whose work no machine at hand could do can be measured:
the requests, the prices and the final responses are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import altcha

Challenge = Mapping[str, Any]


class Paid(NamedTuple):
    """solution: for the header wire.SOLUTION. attempts: hashes that it took."""

    solution: str
    attempts: int


Solver = Callable[[Challenge], Paid | None]
"""None where the challenge was not solved before it expired."""


def price(challenge: Challenge) -> float:
    """Expected hashes that a challenge asks for."""
    return float(challenge["parameters"]["data"]["hashes"])


def affordable(challenge: Challenge | None, most: float) -> bool:
    """Whether there is a challenge, and it asks for `most` hashes at most."""
    return challenge is not None and price(challenge) <= most


def solve(challenge: Challenge, *, seconds: float | None = None) -> Paid | None:
    """Count up until the challenge is solved, for so many seconds at most; unless said, until it expires by this clock.
    Holds the processor, and Python's lock, all the while."""
    asked = altcha.Challenge.from_dict(dict(challenge))
    left = asked.parameters.expires_at - time.time() if seconds is None else seconds
    # altcha takes 0 for no limit
    found = altcha.solve_challenge(asked, timeout=max(left, 1e-3))
    return None if found is None else Paid(altcha.Payload(asked, found).to_base64(), found.counter + 1)


class Credit:
    """A till (handlers.batch) that names prices and takes any word for payment."""

    def challenge(self, digest: bytes, hashes: float) -> dict[str, Any]:
        """A challenge that cannot be solved, with its price."""
        del digest
        return {"parameters": {"data": {"hashes": hashes}}}

    def admit(self, offers: Sequence[tuple[str, bytes]]) -> list[None]:
        """Nothing is refused."""
        return [None] * len(offers)


def on_credit(challenge: Challenge) -> Paid:
    """What `Credit` takes."""
    del challenge
    return Paid("on credit", 0)
