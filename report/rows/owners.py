"""Rows of owners' models: adopted and served, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError


@dataclass(frozen=True)
class OwnerRow:
    """A model in the form in which an owner has it.

    form: of the file. source: the package that it is of, with its version. adopted: whether it was; if not, `said` has
    the refusal. seconds: of `export.adopt`. pictures: that were sent to the served model as files, one a request;
    labels: how many different ones the owner's own code gives them; agreement: the share of pictures whose served label
    is the owner's.
    """

    SCOPE: ClassVar = ("form",)

    form: str
    source: str
    adopted: bool
    seconds: float
    pictures: int
    labels: int
    agreement: float
    said: str

    def __post_init__(self) -> None:
        if self.adopted != bool(self.pictures) or self.adopted == bool(self.said):
            raise ResultError("expected pictures of an adopted model, or the words of a refusal")
        if not 0 <= self.agreement <= 1:
            raise ResultError(f"agreement: expected a share, got {self.agreement}")
