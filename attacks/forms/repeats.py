"""The repeating thief: every image K times unchanged, and the mean of the answers as one target.

Against services that add fresh randomness to each answer, such as MeCo (Wang et al., NeurIPS 2023): what the draws do
not have in common goes with 1 / sqrt(K), what they have in common, E[T(x + h)] - T(x), stays. A service that answers
equal images equally loses nothing, and the thief pays K times for the same answer.
"""

from __future__ import annotations

from attacks.clone import Cloning
from attacks.forms.averaging import AveragingThief
from attacks.names import COPIES
from attacks.service import Service
from attacks.thief import Thief


class RepeatsThief(AveragingThief):
    """`thief`'s images, each asked about `copies` times. Draws nothing: `seed` is there as for every form."""

    def __init__(self, thief: Thief, *, service: Service, cloning: Cloning, seed: int, copies: int = COPIES) -> None:
        super().__init__(thief, service=service, cloning=cloning, seed=seed, copies=copies, strength=None)
