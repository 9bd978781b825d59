"""What a process holds: a fresh one counts nothing of its parent's, and a peak outlives what made it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtests.memory import of_a_fresh_process, of_this_process

if TYPE_CHECKING:
    from loadtests.bench.inprocess import Call, Images

IMAGES = np.zeros((4, 1, 2, 2), np.float32)


@dataclass(frozen=True)
class Holding:
    """Holds so many MB while it answers, and so many more for as long as a call takes."""

    held: int
    passing: int = 0

    @contextmanager
    def answering(self) -> Iterator[Call]:
        held = np.ones(self.held << 20, np.uint8)

        def call(images: Images) -> dict[str, float]:
            return {"sum": float(np.ones(self.passing << 20, np.uint8)[:1].sum())}

        yield call
        del held


def test_a_fresh_process_does_not_count_what_its_parent_holds() -> None:
    own = of_this_process(Holding(400), IMAGES, 2)
    fresh = of_a_fresh_process(Holding(0), IMAGES, 2)
    assert own is not None
    assert fresh is not None
    assert own.held > 400
    assert 20 < fresh.held <= fresh.peak < own.peak - 200


def test_what_is_gone_again_counts_for_the_peak_alone() -> None:
    plain, passing = (of_a_fresh_process(Holding(100, more), IMAGES, 2) for more in (0, 300))
    assert plain is not None
    assert passing is not None
    assert 250 < passing.peak - plain.peak < 350
    assert abs(passing.held - plain.held) < 50
