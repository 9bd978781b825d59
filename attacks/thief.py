"""The thief: proposes images, observes answers, ends with a transfer set or with a clone. One file an attack.

Most attacks end with answered images, from which clones are trained afterwards (attacks.clone). The data-free ones
train one network while they query, and that network is their clone. Whatever a thief learns between queries it learns
inside `observe`, which may take long: a driver over HTTP runs it where it does not delay other clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from attacks.clone import Clone
from attacks.oracle import Answers, Ledger
from attacks.transfer import TransferSet


class Parameters(Protocol):
    """What every attack's table in a recipe holds next to its hyper-parameters."""

    @property
    def budget(self) -> int:
        """Images the thief may be charged for."""

    @property
    def rows(self) -> int:
        """Images in one request."""


def check(parameters: Parameters) -> None:
    """Raises ValueError where there is nothing to ask, or nothing in a request."""
    if parameters.budget < 1:
        raise ValueError(f"budget: expected at least 1 image, got {parameters.budget}")
    if parameters.rows < 1:
        raise ValueError(f"rows: expected at least 1 image in a request, got {parameters.rows}")


class Thief(Protocol):
    """One attack in progress. Owns its randomness: equal seeds and equal answers give equal proposals."""

    def propose(self, rows: int) -> torch.Tensor | None:
        """The next images, float32 (at most `rows`, C, H, W) in [0, 1]; None when the attack is over."""

    def observe(self, images: torch.Tensor, answers: Answers) -> None:
        """Learn what the victim answered to the images just proposed."""

    def transfer_set(self) -> TransferSet:
        """What was answered so far; where the attack ends with its own clone, perhaps only the latest of it."""

    def clone(self) -> Clone | None:
        """The network that the attack itself has trained so far, a copy that later steps do not change;
        None for attacks that end with their transfer set."""

    def own(self) -> TransferSet | None:
        """Labelled images of the task that the thief had before its first query (nothing charged); None if it had
        none. A clone trained on them alone is what the queries have to beat."""


def steal(thief: Thief, ledger: Ledger, *, rows: int) -> Iterator[int]:
    """Query, `rows` images at a time, until the attack is over or the budget spent; yields the charged queries
    after each exchange, so that a caller can show progress or take turns with other clients."""
    while ledger.left:
        images = thief.propose(min(rows, ledger.left))
        if images is None:
            return
        thief.observe(images, ledger(images))
        yield ledger.queries
