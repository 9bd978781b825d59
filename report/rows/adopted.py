"""Rows of an adopted model's cost in its owner's hands: adoption and training of real size."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from report.fields import ResultError

COUNTERS = ("resident", "proportional", "anonymous")


@dataclass(frozen=True)
class ProgramRow:
    """One program on an adopted model, as its user runs it, in a process of its own.

    what: what is measured, one row each. program: the module. photographs: that it was given. seconds_rounds: of the
    whole program, each time it was run. epoch_seconds: of each epoch, of each network that it trains, by name. peak_mb:
    the most that the process held, by counter (bench/adopted/programs.py), of all runs; empty: not counted.
    """

    SCOPE: ClassVar = ("what",)

    what: str
    program: str
    photographs: int
    seconds_rounds: tuple[float, ...]
    epoch_seconds: dict[str, tuple[float, ...]]
    peak_mb: dict[str, float]

    def __post_init__(self) -> None:
        if not self.seconds_rounds:
            raise ResultError("seconds_rounds: expected at least one run, got none")
        if self.peak_mb and set(self.peak_mb) != set(COUNTERS):
            raise ResultError(f"peak_mb: expected {', '.join(COUNTERS)}, got {', '.join(self.peak_mb)}")

    @property
    def seconds(self) -> float:
        """Of the whole program: the median of its runs."""
        return median(self.seconds_rounds)


@dataclass(frozen=True)
class ReadingRow:
    """An epoch of a network's training on a map of photographs, and the same steps on images that are in memory.

    member: the network. photographs: in the map. batch: rows a step. steps: of each measurement. reading_ms_rounds:
    milliseconds a step, batches read from the map, each round's; computing_ms_rounds: of the same batches, ready in
    memory, measured side by side. cold_ms: of the first steps, after the file had been dropped from the system's
    cache, and so read from the disk.
    """

    SCOPE: ClassVar = ("member", "batch")

    member: str
    photographs: int
    batch: int
    steps: int
    reading_ms_rounds: tuple[float, ...]
    computing_ms_rounds: tuple[float, ...]
    cold_ms: float

    def __post_init__(self) -> None:
        if not self.reading_ms_rounds or len(self.reading_ms_rounds) != len(self.computing_ms_rounds):
            raise ResultError("expected the time of reading and of computing in every round")

    @property
    def times_rounds(self) -> tuple[float, ...]:
        """An epoch over its computing, round by round."""
        return tuple(a / b for a, b in zip(self.reading_ms_rounds, self.computing_ms_rounds, strict=True))

    @property
    def times(self) -> float:
        """The median of the rounds' ratios."""
        return median(self.times_rounds)


@dataclass(frozen=True)
class PictureRow:
    """A photograph on its way to 224 x 224.

    picture: format, width and height. length: bytes of its file. decoding_ms_rounds: of one core, from the file to
    pixels. clients: that ask at once; rate_rounds: pictures answered a second over HTTP, in rounds in which all
    pictures take turns; empty: it was not served.
    """

    SCOPE: ClassVar = ("picture",)

    picture: str
    length: int
    decoding_ms_rounds: tuple[float, ...]
    clients: int
    rate_rounds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.decoding_ms_rounds:
            raise ResultError("decoding_ms_rounds: expected at least one round, got none")

    @property
    def decoding_ms(self) -> float:
        """The median round's."""
        return median(self.decoding_ms_rounds)
