"""Where, when and from what a results file was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunInfo:
    """What is needed to judge the numbers and to make them again."""

    commit: str | None
    seed: int
    machine: str
    cpu: str
    gpu: str | None
    versions: dict[str, str]
    started: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
