"""The consensus thief: K near-duplicates of every image, and a target only where the service gives them one label.

A defense that answers some queries on purpose wrongly, by a hash, a key or a draw, gives itself away at near-duplicates
that any ordinary model would label alike. This thief believes an image's mean answer where the copies agree and drops
the image, whose copies were charged all the same, where they do not: towards the wrapped thief it was refused.
"""

from __future__ import annotations

import torch

from attacks.clone import Cloning
from attacks.forms.averaging import AveragingThief, mean_answers, votes
from attacks.names import COPIES
from attacks.oracle import REFUSED, Answers
from attacks.service import Service
from attacks.thief import Thief
from zoo.augment import Affine

# a pixel or so on 28 x 28: next to nothing to a model, another image to a hash
STRENGTH = Affine(degrees=4, shift=0.03, scale=0.03, fill="border")
LEAST = 1.0


class ConsensusThief(AveragingThief):
    """`thief`'s images, each asked about in `copies` near-duplicates of `strength`; `seed` owns their randomness.

    least: share of an image's copies, refused ones among them, that must have been given the same label, in (0, 1].
    """

    def __init__(
        self,
        thief: Thief,
        *,
        service: Service,
        cloning: Cloning,
        seed: int,
        copies: int = COPIES,
        strength: Affine = STRENGTH,
        least: float = LEAST,
    ) -> None:
        if not 0 < least <= 1:
            raise ValueError(f"least: expected a share of the copies above 0 and up to 1, got {least}")
        super().__init__(thief, service=service, cloning=cloning, seed=seed, copies=copies, strength=strength)
        self._least = least

    def _merged(self, answers: Answers) -> Answers:
        return agreed_answers(answers, self._copies, least=self._least)


def agreed_answers(answers: Answers, copies: int, *, least: float) -> Answers:
    """One answer for every `copies` rows: the label given to at least the share `least` of them, with the mean of all
    their probabilities; refused where no label was. Of equally frequent labels the smallest counts."""
    most, label = votes(answers.labels.view(-1, copies)).max(dim=1)
    # so that three of five are the share 0.6, whatever the rounding
    agreed = (most >= least * copies - 1e-6) & (most > 0)
    mean = mean_answers(answers, copies)
    shown = None if mean.probabilities is None else torch.where(agreed[:, None], mean.probabilities, torch.nan)
    return Answers(torch.where(agreed, label, REFUSED), shown, mean.work)
