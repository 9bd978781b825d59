"""What a process holds: a fresh one counts nothing of its parent's, and a peak outlives what made it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.memory import of_a_fresh_process, of_this_process

if TYPE_CHECKING:
    from bench.inprocess import Call, Images

IMAGES = np.zeros((4, 1, 2, 2), np.float32)
PART = 1 << 16


@dataclass(frozen=True)
class Holding:
    """Holds so many MB while it answers, and so many more for as long as a call takes.

    These in small parts, the last of which is held: what lies below it the C library does not give back by itself.
    """

    held: int
    passing: int = 1

    @contextmanager
    def answering(self) -> Iterator[Call]:
        held = [np.ones(self.held << 20, np.uint8)]

        def call(images: Images) -> dict[str, float]:
            held.append([np.ones(PART, np.uint8) for _ in range((self.passing << 20) // PART)][-1])
            return {}

        yield call
        held.clear()


def test_a_fresh_process_does_not_count_what_its_parent_holds() -> None:
    own = of_this_process(Holding(400), IMAGES, 2)
    fresh = of_a_fresh_process(Holding(0), IMAGES, 2)
    assert own is not None
    assert fresh is not None
    assert own.held > 400
    # an interpreter with numpy, and nothing else
    assert 5 < fresh.held <= fresh.peak < own.peak - 200


def test_what_is_gone_again_counts_for_the_peak_alone() -> None:
    plain, passing = (of_a_fresh_process(Holding(100, more), IMAGES, 2) for more in (1, 300))
    assert plain is not None
    assert passing is not None
    assert 250 < passing.peak - plain.peak < 350
    assert abs(passing.held - plain.held) < 50
