"""What every adaptive form has in common: it wraps a thief, and what the attack leaves is that thief's."""

from __future__ import annotations

from attacks.clone import Clone
from attacks.thief import Thief
from attacks.transfer import TransferSet


class Wrapping:
    """The part of attacks.thief.Thief that is the wrapped `thief`'s own."""

    def __init__(self, thief: Thief) -> None:
        self._thief = thief

    def transfer_set(self) -> TransferSet:
        """The wrapped thief's: images as they were asked, and their answers."""
        return self._thief.transfer_set()

    def clone(self) -> Clone | None:
        """The wrapped thief's."""
        return self._thief.clone()

    def own(self) -> TransferSet | None:
        """The wrapped thief's."""
        return self._thief.own()
