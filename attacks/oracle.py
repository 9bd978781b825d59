"""The oracle: all that a thief ever sees of a victim, and the ledger that charges for it.

An oracle is any callable that takes images and returns `Answers`. Attacks know nothing else, so the same attack runs
over HTTP and in process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

REFUSED = -1
"""The label of a row that was charged but not answered."""


@dataclass(frozen=True)
class Answers:
    """What the victim said about N images, row for row.

    labels: int64 (N,), REFUSED where the service gave an error in place of an answer.
    probabilities: float32 (N, K) as served (a response rule may leave rows that do not sum to 1), NaN in refused
        rows; None where the service tells labels only.
    work: float64 (N,), expected hashes that were paid for each row; None where nothing was.
    """

    labels: torch.Tensor
    probabilities: torch.Tensor | None = None
    work: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise ValueError(f"labels: expected int64 (N,), got {_describe(self.labels)}")
        if self.work is not None and (self.work.dtype != torch.float64 or self.work.shape != self.labels.shape):
            raise ValueError(f"work: expected float64 ({len(self.labels)},), got {_describe(self.work)}")
        if self.probabilities is None:
            return
        if self.probabilities.dtype != torch.float32 or self.probabilities.ndim != 2:
            raise ValueError(f"probabilities: expected float32 (N, K), got {_describe(self.probabilities)}")
        if len(self.probabilities) != len(self.labels):
            raise ValueError(f"expected as many rows, got {len(self.labels)} labels, {len(self.probabilities)} rows")

    @property
    def refused(self) -> torch.Tensor:
        """bool (N,): the rows without an answer."""
        return self.labels == REFUSED


def joined(parts: Sequence[Answers]) -> Answers:
    """Answers of several requests as one; probabilities where any part has them, NaN for those that were refused whole
    or told labels alone, as an account is whose budget is spent."""
    labels = torch.cat([part.labels for part in parts])
    work = None
    if any(part.work is not None for part in parts):
        work = torch.cat([torch.zeros(len(part.labels)).double() if part.work is None else part.work for part in parts])
    shown = [part.probabilities for part in parts if part.probabilities is not None]
    if not shown:
        return Answers(labels, work=work)
    nothing = torch.full((1, shown[0].shape[1]), torch.nan)
    return Answers(
        labels,
        torch.cat(
            [
                nothing.expand(len(part.labels), -1) if part.probabilities is None else part.probabilities
                for part in parts
            ]
        ),
        work,
    )


def distributions(answers: Answers, classes: int) -> torch.Tensor:
    """The victim's response as float32 (N, classes) rows that sum to 1, NaN in refused rows.

    Served probabilities are clamped at 0 and renormalised; a row without any probability left, or returned as a label
    only, is that label's unit vector.
    """
    one_hot = F.one_hot(answers.labels.clamp(min=0), classes).to(torch.float32)
    if answers.probabilities is None:
        rows = one_hot
    else:
        served = answers.probabilities.clamp(min=0)
        total = served.sum(dim=1, keepdim=True)
        rows = torch.where(total > 0, served / total.clamp(min=torch.finfo(served.dtype).tiny), one_hot)
    return torch.where(answers.refused[:, None], torch.nan, rows)


Oracle = Callable[[torch.Tensor], Answers]
"""float32 (N, C, H, W) in [0, 1] -> Answers of N rows."""


class BudgetSpent(Exception):  # noqa: N818 - an event, not a fault
    """A query would cost more than what is left; it was not sent."""


class Ledger:
    """An oracle that charges every image it is shown, answered or not, and never sends more than `budget`.

    queries, refused: images so far. work: expected hashes paid for them.
    """

    def __init__(self, oracle: Oracle, budget: int) -> None:
        if budget < 1:
            raise ValueError(f"budget: expected at least 1 image, got {budget}")
        self._oracle = oracle
        self.budget = budget
        self.queries = 0
        self.refused = 0
        self.work = 0.0

    @property
    def left(self) -> int:
        """Images that may still be sent."""
        return self.budget - self.queries

    def __call__(self, images: torch.Tensor) -> Answers:
        """The oracle's answers. Raises BudgetSpent before anything is sent if `images` would exceed the budget."""
        if len(images) > self.left:
            raise BudgetSpent(f"{len(images)} images asked for, {self.left} of {self.budget} left")
        # charged first: images that reached a service which then failed were shown all the same
        self.queries += len(images)
        answers = self._oracle(images)
        if len(answers.labels) != len(images):
            raise ValueError(f"the oracle gave {len(answers.labels)} answers for {len(images)} images")
        self.refused += int(answers.refused.sum())
        self.work += 0.0 if answers.work is None else float(answers.work.sum())
        return answers


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
