"""An attack that reads top to bottom: a script yields the images to ask about and is sent their answers.

Attacks that learn between queries are loops, and a loop split into `propose` and `observe` is hard to follow. Here the
loop stays whole; a request holds fewer images than a step of the attack wants, so this adapter hands the images out in
parts and sends the script the answers once the last one is there. A script that is not answered in full, because the
budget is spent, is not resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch

from attacks.clone import Clone
from attacks.oracle import Answers, joined
from attacks.transfer import Collector, TransferSet

Script = Generator[torch.Tensor, Answers, None]
"""Yields float32 (N, C, H, W) in [0, 1], N >= 1, on the CPU; is sent the N answers."""


class ScriptedThief:
    """The thief (attacks.thief.Thief) that follows `script`.

    clone: gives the network that the script itself has trained so far, where the attack ends with one.
    own: the seed set, or None. keep: answered images to remember, the latest ones (None: all of them); what a script
    remembers for itself does not count.
    """

    def __init__(
        self,
        script: Script,
        *,
        clone: Callable[[], Clone | None] = lambda: None,
        own: TransferSet | None = None,
        keep: int | None = None,
    ) -> None:
        self._script = script
        self._clone = clone
        self._own = own
        self._collector = Collector(keep=keep)
        self._wanted: torch.Tensor | None = None
        self._asked = 0
        self._responses: list[Answers] = []
        self._begun = False

    def propose(self, rows: int) -> torch.Tensor | None:
        """The next part of what the script wants to know; None when it has ended."""
        if not self._begun:
            self._begun = True
            self._wanted = next(self._script, None)
        if self._wanted is None:
            return None
        part = self._wanted[self._asked : self._asked + rows]
        self._asked += len(part)
        return part

    def observe(self, images: torch.Tensor, answers: Answers) -> None:
        """Remember the answers; go on with the script where they were the last it waited for."""
        assert self._wanted is not None, "observe follows propose"
        self._collector.add(images, answers)
        self._responses.append(answers)
        if self._asked < len(self._wanted):
            return
        responses, self._responses, self._asked = joined(self._responses), [], 0
        try:
            self._wanted = self._script.send(responses)
        except StopIteration:
            self._wanted = None

    def transfer_set(self) -> TransferSet:
        """The answered images that were kept."""
        return self._collector.transfer_set()

    def clone(self) -> Clone | None:
        """The network that the attack has trained so far, or None."""
        return self._clone()

    def own(self) -> TransferSet | None:
        """Labelled images the thief had before its first query, or None."""
        return self._own
