"""Rows that say whether accounts of one campaign can be told from strangers, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError, fractions


@dataclass(frozen=True)
class StrangerRow:
    """Honest accounts that a link by near-copies takes for one another's.

    grid, step: of the perceptual code. window: queries of an account that are held against another's. threshold:
    share of them from which on both are linked. account: kind of honest traffic; chosen: whether the threshold was
    chosen on these accounts, not judged. accounts: in groups of as many as `among`. linked: share of them that is
    linked to another of its group; low, high: its 95 % interval (Wilson).
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    grid: int
    step: int
    window: int
    threshold: float
    account: str
    chosen: bool
    accounts: int
    among: int
    linked: float
    low: float
    high: float

    def __post_init__(self) -> None:
        fractions(self, "linked", "low", "high")
        if not self.low <= self.linked <= self.high:
            raise ResultError(f"expected low <= linked <= high, got {self.low}, {self.linked}, {self.high}")


@dataclass(frozen=True)
class CampaignRow:
    """Campaigns of a thief over several accounts, with honest accounts beside them.

    grid, step, window, threshold: see StrangerRow. account: the attack, with its adaptive form after a "+". clients:
    accounts of a campaign; dilution: share of honest queries among theirs; queries: of each account. campaigns: carried
    out; strangers: honest accounts beside each. linked: share of the campaigns' accounts that were ever linked to
    another of theirs; wrongly: of the honest accounts, to one of the campaign. alone: share of the campaigns' accounts
    that their own budget flags; together: that the budget flags where linked ones are one account;
    strangers_together: of the honest accounts, the same.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    level: float
    grid: int
    step: int
    window: int
    threshold: float
    account: str
    clients: int
    dilution: float
    queries: int
    campaigns: int
    strangers: int
    linked: float
    wrongly: float
    alone: float
    together: float
    strangers_together: float

    def __post_init__(self) -> None:
        fractions(self, "level", "dilution", "linked", "wrongly", "alone", "together", "strangers_together")
        if self.clients == 1 and self.linked:
            raise ResultError(f"linked: expected 0 for one client, who has no other, got {self.linked}")
