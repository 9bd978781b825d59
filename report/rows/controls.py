"""Rows of the controls: for each one that is taken out, whether a test fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import known

CAUGHT = "caught"  # as it should be
MISSED = "missed"  # every test passes without the control
BROKEN = "broken"  # tests end in an error that is no failed assertion
FAILING = "failing"  # a test does not pass with the control
LATE = "late"  # no verdict within the time


@dataclass(frozen=True)
class ControlRow:
    """What became of one removal. with_s, without_s: seconds of its tests with the control and without it (their
    sessions' start included). said: the first line of the assertion that failed."""

    SCOPE: ClassVar = ("control", "removed")
    VERDICTS: ClassVar = (CAUGHT, MISSED, BROKEN, FAILING, LATE)

    control: str
    removed: str
    file: str
    tests: tuple[str, ...]
    with_s: float
    without_s: float
    verdict: str
    said: str

    def __post_init__(self) -> None:
        known(self, verdict=self.VERDICTS)
