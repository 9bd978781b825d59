"""Rows of fusing: a policy's separate graphs against the same as one graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.format import ratios


@dataclass(frozen=True)
class FusingRow:
    """One policy at one batch size: milliseconds a call of each round, and the largest difference of a probability."""

    SCOPE: ClassVar = ("architecture", "policy", "threads")

    architecture: str
    policy: str
    threads: int
    batch: int
    separate_ms: tuple[float, ...]
    fused_ms: tuple[float, ...]
    difference: float

    @property
    def ratios(self) -> list[float]:
        """The one graph's time over the separate ones', round by round."""
        return ratios(self.fused_ms, self.separate_ms)
