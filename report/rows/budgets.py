"""Rows that say which accounts a budget flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError, fractions


@dataclass(frozen=True)
class BudgetRow:
    """Accounts of one kind whose budget was spent within so many queries.

    account: whose they are: an attack, with its adaptive form after a "+", or a kind of honest traffic; thief: which
    of both. dilution: share of honest queries among a thief's. queries: of the account, honest ones among them. runs:
    attacks carried out, or 0. accounts: resampled from them. flagged: share of the accounts; low, high: its 95 %
    interval (Wilson). least, most: of the shares among the accounts of one run, or of one part of the honest traffic.
    refused: share of the kind's own queries that the gate refuses.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    level: float
    account: str
    thief: bool
    dilution: float
    queries: int
    runs: int
    accounts: int
    flagged: float
    low: float
    high: float
    least: float
    most: float
    refused: float

    def __post_init__(self) -> None:
        fractions(self, "level", "dilution", "flagged", "low", "high", "least", "most", "refused")
        if not self.low <= self.flagged <= self.high:
            raise ResultError(f"expected low <= flagged <= high, got {self.low}, {self.flagged}, {self.high}")
        if not self.thief and self.dilution:
            raise ResultError(f"dilution: expected 0 for honest accounts, got {self.dilution}")
