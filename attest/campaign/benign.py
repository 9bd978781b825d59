"""What benign users feel: images of the owner's outside the exam, one by one, before the campaign and next to it.

No picture is asked about twice while there are others, so a service that knows the exam, or remembers what it was
asked, cannot answer users well by that alone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType

import torch

from attest.asking import Asking
from attest.campaign.exact import percentiles
from attest.measured import Felt
from attest.target.encoding import pictures
from attest.target.pace import Stopped
from attest.target.wires import WireError

QUIET, BESIDE = "benign-quiet", "benign"
STRETCHES = {QUIET: "quiet", BESIDE: "campaign"}
# of the target's rate, what benign users take beside the campaign
SHARE = 0.05


@dataclass(frozen=True)
class Users:
    """What they ask about, in turn. images: float32 (N, C, H, W) in [0, 1]; truth: int64 (N,). quiet: how many of them
    before the campaign; those beside it come after these."""

    images: torch.Tensor
    truth: torch.Tensor
    quiet: int

    def row(self, phase: str, place: int) -> int:
        """The image at a place of one of the two phases."""
        return (place + (self.quiet if phase == BESIDE else 0)) % len(self.images)


def quiet(asking: Asking, users: Users) -> None:
    """Ask about one after another, while nobody else does. Raises Stopped."""
    oracle = asking.phase(QUIET)
    for place in range(users.quiet):
        oracle(users.images[users.row(QUIET, place)][None])


class Beside:
    """A benign user in a thread of its own, while the block runs: `most` queries spread over the campaign's budget, so
    that its end is seen too, at SHARE of the rate at most."""

    def __init__(self, asking: Asking, users: Users, most: int) -> None:
        self._asking, self._users, self._most = asking, users, most
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="benign")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        asking, every = self._asking, 1 / (SHARE * self._asking.target.rate)
        while asking.ledger.count(BESIDE) < self._most and not self._over.wait(every):
            place = asking.ledger.count(BESIDE)
            if place * asking.target.budget > self._most * asking.pace.sent:
                continue  # not yet its turn
            image = self._users.images[self._users.row(BESIDE, place)][None]
            try:
                asking.request(BESIDE, [place], pictures(asking.target, image.numpy()))
            except (Stopped, WireError):
                return


def felt(asking: Asking, users: Users) -> tuple[Felt, ...]:
    """What the ledger says of both stretches."""
    rows = []
    for phase, stretch in STRETCHES.items():
        entries = [entry for entry in asking.ledger.entries() if entry.phase == phase and entry.final]
        if not entries:
            continue
        right = [asking.label(entry) == int(users.truth[users.row(phase, entry.place)]) for entry in entries]
        answered = [entry.ms for entry in entries if entry.kind == "answered"]
        p50, p99 = percentiles(answered)
        failed = 1 - len(answered) / len(entries)
        rows.append(Felt(stretch, len(entries), failed, sum(right) / len(right), p50, p99))
    return tuple(rows)
