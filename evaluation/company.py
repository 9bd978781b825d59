r"""The budget of accounts that are linked: a component of them goes on as one account.

A component of accounts begins with the mean of its members' capital (`together`) and stakes it on the queries of all of
them. Say that each member holds the component's capital once. What A members held before, the sum of theirs, is A times
the mean: linking moves capital between accounts and makes none. The sum over N honest accounts is therefore a test
martingale that begins with N, as each account's is that begins with 1 (defenses/budget.py), by whatever rule they were
linked, as long as it looked at the past alone. An account that has reached 1 / level is done: it keeps its capital and
joins nobody. Each that is done holds at least 1 / level, hence

    E[honest accounts that are ever flagged]  <=  level N

where honest accounts are linked to each other only. It is a bound of their mean share: who has unlucky company may be
flagged for it, and one account is no longer protected from a thief who manages to be linked to it. The maximum, or the
product, of the members' capitals would keep no bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from defenses.budget import advanced, reserve

Integers = NDArray[np.int64]
Doubles = NDArray[np.float64]
Marks = NDArray[np.bool_]


class Company:
    """Accounts, A of them, of which some are linked one after the other. limit: 1 / level.

    `flagged`, bool (A,): whose own account, or whose component's, has reached the limit.
    """

    def __init__(self, accounts: int, limit: float) -> None:
        self.flagged: Marks = np.zeros(accounts, bool)
        self._limit = limit
        self._labels: Integers = np.arange(accounts)
        self._states: dict[int, Doubles] = {}

    def charge(self, factors: Doubles, alone: Doubles) -> None:
        """Count further queries of each account, in turn: factors (A, R, B); alone: the states (A, 2 + B) of accounts
        on their own after these queries."""
        single = ~np.isin(self._labels, list(self._states))
        self.flagged |= single & (alone[:, 1] >= self._limit)
        for label, state in self._states.items():
            members = self._labels == label
            if not self.flagged[members].any():
                stream = factors[members].swapaxes(0, 1).reshape(1, -1, factors.shape[2])
                (self._states[label],) = advanced(state[None], stream)
                self.flagged |= members & (self._states[label][1] >= self._limit)

    def link(self, linked: Marks, alone: Doubles) -> None:
        """Make one account of those that are linked, (A, A) symmetric, unless they are flagged already."""
        free = ~self.flagged
        wanted = (linked & free[:, None] & free) | (self._labels[:, None] == self._labels)
        pairs = zip(self._labels.tolist(), alone, strict=True)
        states = np.stack([self._states.get(label, own) for label, own in pairs])
        before, self._labels = self._labels, components(wanted)
        for label in np.unique(self._labels).tolist():
            members = self._labels == label
            if len(np.unique(before[members])) > 1:
                self._states[label] = together(states[members])
                self.flagged |= members & (self._states[label][1] >= self._limit)
        self._states = {label: state for label, state in self._states.items() if label in self._labels}


def components(linked: NDArray[np.bool_]) -> Integers:
    """The component of each account, (A,), by its first account; linked: (A, A), symmetric."""
    labels = np.arange(len(linked))
    while True:
        lowest = np.minimum(labels, np.where(linked, labels, len(labels)).min(axis=1))
        if (lowest == labels).all():
            return labels
        labels = lowest


def together(states: Doubles) -> Doubles:
    """One account (2 + B,) of several (A, 2 + B), as defenses.budget has them: the mean of their stakes and of what
    they have in reserve, and as many queries as leave so much in reserve. Its largest capital begins with that mean."""
    stakes, left = states[:, 2:].mean(axis=0), reserve(states[:, 0]).mean()
    return np.concatenate([[2 ** (1 / left) - 2, left + stakes.sum()], stakes])
