"""The averaging thief: K transformed copies of every image, and the mean of their answers as one target.

EDM, Kariyappa et al., ICLR 2021, appendix A.1 (K = 5). Where the service picks one of several models by a hash of the
image, copies that cross the hash's borders are answered by several members; their mean is nearer to a single
continuous function, which a clone can learn. Wraps any other thief, whose images are the ones that are copied. Every
copy is charged.

The other forms that ask for copies share all but the transformation and what is made of the answers: repeats, jittered
and consensus, next to this file.
"""

from __future__ import annotations

import dataclasses

import torch

from attacks.clone import Cloning
from attacks.forms.wrapping import Wrapping
from attacks.names import COPIES
from attacks.oracle import REFUSED, Answers
from attacks.service import Service
from attacks.thief import Thief
from attacks.transfer import TransferSet
from zoo.augment import Affine, Variation

# the strengths at which a hash changes its mind and a digit is still a digit
STRENGTH = Affine(degrees=15, shift=0.1, scale=0.1, fill="border")


class AveragingThief(Wrapping):
    """`thief`'s images, each asked about in `copies` random copies; `seed` owns their randomness.

    strength: how copies differ from their image; None for copies that are the image itself. service, cloning: what
    every adaptive form is given; these copies need neither.
    """

    def __init__(
        self,
        thief: Thief,
        *,
        service: Service,
        cloning: Cloning,
        seed: int,
        copies: int = COPIES,
        strength: Variation | None = STRENGTH,
    ) -> None:
        if copies < 1:
            raise ValueError(f"copies: expected at least 1, got {copies}")
        super().__init__(thief)
        self._copies = copies
        self._strength = strength
        self._generator = torch.Generator().manual_seed(seed)
        self._originals: torch.Tensor | None = None

    def propose(self, rows: int) -> torch.Tensor | None:
        """All copies of the next images, side by side; None also where `rows` cannot hold the copies of one image."""
        if rows < self._copies:
            return None
        self._originals = self._thief.propose(rows // self._copies)
        if self._originals is None:
            return None
        copies = self._originals.repeat_interleave(self._copies, dim=0)
        return copies if self._strength is None else self._strength(copies, generator=self._generator).clamp(0, 1)

    def observe(self, images: torch.Tensor, answers: Answers) -> None:
        """Hand the originals to the wrapped thief, each with the one answer made of those to its copies."""
        assert self._originals is not None, "observe follows propose"
        self._thief.observe(self._originals, self._merged(answers))

    def transfer_set(self) -> TransferSet:
        """The wrapped thief's, with every copy charged; an image is known once its last copy is answered."""
        transfer = self._thief.transfer_set()
        places = (transfer.places + 1) * self._copies - 1
        return dataclasses.replace(transfer, places=places, charged=transfer.charged * self._copies)

    def _merged(self, answers: Answers) -> Answers:
        """One answer for each image, from those to its copies."""
        return mean_answers(answers, self._copies)


def mean_answers(answers: Answers, copies: int) -> Answers:
    """One answer for every `copies` rows: mean probabilities and their label, or the most frequent label.

    Refused copies are left out; an image whose copies were all refused is refused. Of equally frequent labels the
    smallest counts. What was paid for the copies was paid for their image.
    """
    work = None if answers.work is None else answers.work.view(-1, copies).sum(dim=1)
    labels = answers.labels.view(-1, copies)
    answered = labels != REFUSED
    refused = ~answered.any(dim=1)
    if answers.probabilities is None:
        return Answers(torch.where(refused, REFUSED, votes(labels).argmax(dim=1)), work=work)
    shown = answers.probabilities.view(len(labels), copies, -1)
    total = torch.where(answered[:, :, None], shown, 0.0).sum(dim=1)
    mean = total / answered.sum(dim=1, keepdim=True)  # 0 / 0 is NaN: the row of a refused image
    return Answers(torch.where(refused, REFUSED, mean.argmax(dim=1)), mean, work)


def votes(labels: torch.Tensor) -> torch.Tensor:
    """How many copies of each image were given each label: int64 (N, copies) to int64 (N, labels), refusals aside."""
    kinds = int(labels.max()) + 1 if len(labels) else 0
    return torch.stack([(labels == kind).sum(dim=1) for kind in range(max(kinds, 1))], dim=1)
