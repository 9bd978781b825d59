"""What benign users feel: the owner's images asked one by one, before the campaign and next to it."""

from __future__ import annotations

import threading
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


def quiet(asking: Asking, images: torch.Tensor, count: int) -> None:
    """Ask about `count` images, one after another, while nobody else does. Raises Stopped."""
    oracle = asking.phase(QUIET)
    for number in range(count):
        oracle(images[number % len(images)][None])


class Beside:
    """A benign user in a thread of its own, `most` queries at SHARE of the rate, while the block runs."""

    def __init__(self, asking: Asking, images: torch.Tensor, most: int) -> None:
        self._asking, self._images, self._most = asking, images, most
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
            image = self._images[place % len(self._images)][None]
            try:
                asking.request(BESIDE, [place], pictures(asking.target, image.numpy()))
            except (Stopped, WireError):
                return


def felt(asking: Asking, truth: torch.Tensor) -> tuple[Felt, ...]:
    """What the ledger says of both stretches. truth: the labels of the images that were asked about, in turn."""
    rows = []
    for phase, stretch in STRETCHES.items():
        entries = [entry for entry in asking.ledger.entries() if entry.phase == phase and entry.final]
        if not entries:
            continue
        right = [asking.label(entry) == int(truth[entry.place % len(truth)]) for entry in entries]
        answered = [entry.ms for entry in entries if entry.kind == "answered"]
        p50, p99 = percentiles(answered)
        failed = 1 - len(answered) / len(entries)
        rows.append(Felt(stretch, len(entries), failed, sum(right) / len(right), p50, p99))
    return tuple(rows)
