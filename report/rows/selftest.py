"""Rows of a self-test: what was sent against each control of a running service, and what came back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import known

STOPPED = "stopped"  # the control did what it is for
THROUGH = "let through"
ABSENT = "does not apply"  # the policy has no such control
WARNED = "warning"  # the control does what was built, and that is known not to be enough; `got` says why
UNTRIED = "not tried"  # it has, and this run could not see it at work; `got` says why


@dataclass(frozen=True)
class Finding:
    """One try. model: its name, "(server)" or "(gateway)"."""

    SCOPE: ClassVar = ("control", "model")
    VERDICTS: ClassVar = (STOPPED, THROUGH, WARNED, ABSENT, UNTRIED)

    control: str
    model: str
    sent: str
    expected: str
    got: str
    verdict: str

    def __post_init__(self) -> None:
        known(self, verdict=self.VERDICTS)

    @property
    def failed(self) -> bool:
        return self.verdict == THROUGH
