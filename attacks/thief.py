"""The thief: proposes images, observes answers, ends with a transfer set. One class an attack, one file a class.

Nothing is trained while queries are sent: a thief only chooses images and remembers answers, and clones are trained
from its transfer set afterwards (attacks.clone).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from attacks.oracle import Answers, Ledger
from attacks.transfer import TransferSet


@dataclass(frozen=True)
class Service:
    """What any client of a service can know: the geometry of its images and the number of its classes."""

    channels: int
    size: int
    classes: int


class Parameters(Protocol):
    """What every attack's table in a recipe says beside its own hyper-parameters."""

    @property
    def budget(self) -> int:
        """Images the thief may be charged for."""

    @property
    def rows(self) -> int:
        """Images in one request."""


class Thief(Protocol):
    """One attack in progress. Owns its randomness: equal seeds and equal answers give equal proposals."""

    def propose(self, rows: int) -> torch.Tensor | None:
        """The next images, float32 (at most `rows`, C, H, W) in [0, 1]; None when the attack is over."""

    def observe(self, images: torch.Tensor, answers: Answers) -> None:
        """Learn what the victim answered to the images just proposed."""

    def transfer_set(self) -> TransferSet:
        """All that was answered so far."""


def steal(thief: Thief, ledger: Ledger, *, rows: int) -> Iterator[int]:
    """Query, `rows` images at a time, until the attack is over or the budget spent; yields the charged queries
    after each exchange, so that a caller can show progress or take turns with other clients."""
    while ledger.left:
        images = thief.propose(min(rows, ledger.left))
        if images is None:
            return
        thief.observe(images, ledger(images))
        yield ledger.queries
