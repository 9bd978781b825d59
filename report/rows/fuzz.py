"""Rows of fuzzing: hostile requests by the thousand, and how they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import known
from report.rows.run import RunInfo

DIRECT, GATEWAY = "direct", "gateway"


@dataclass(frozen=True)
class FuzzFinding:
    """One kind of answer that must not be. first: number of its first case; cases: how many ended so. whose: whose
    fault it is. mended_by: what stops it where TorchServe answers before our code."""

    kind: str
    idea: str
    ending: str
    complaint: str
    whose: str
    mended_by: str | None
    first: int
    cases: int


@dataclass(frozen=True)
class Neighbours:
    """Honest requests between the hostile ones. examples: of those that were answered wrongly."""

    asked: int
    wrong: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Workers:
    """The workers of the instance. restarts: a line each. memory_mb: by moment, then by process."""

    count: int
    restarts: tuple[str, ...]
    memory_mb: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Contract:
    """What schemathesis made of the OpenAPI file. answers: by media type and status."""

    schemathesis: str
    requests: int
    answers: dict[str, int]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class FuzzRow:
    """One run of the fuzzer. door: whether it asked TorchServe itself, or a gateway before it. kinds: by kind and
    ending, how many cases; ideas: by kind and idea. front_end: known findings of TorchServe's own. contract: None where
    it was not asked. run: of this door; the other may have been asked on another commit."""

    SCOPE: ClassVar = ("door",)

    door: str
    cases: int
    seconds: float
    kinds: dict[str, dict[str, int]]
    ideas: dict[str, dict[str, int]]
    findings: tuple[FuzzFinding, ...]
    front_end: tuple[FuzzFinding, ...]
    neighbours: Neighbours
    workers: Workers
    contract: Contract | None
    run: RunInfo

    def __post_init__(self) -> None:
        known(self, door=(DIRECT, GATEWAY))
