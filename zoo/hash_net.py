"""The network behind the secret perceptual hash: class probabilities and projections, bit for bit everywhere.

EDM (Kariyappa et al., ICLR 2021, sec. 4.2.1) hashes a query by class and confidence; TorchWarden also by the sides
of secret hyperplanes on which the penultimate features lie (defenses/routing.py). A member chosen by which side of a
border a float falls on is another member at another batch size. So features and logits are whole numbers here
(zoo/fixed_point.py), a hyperplane has whole coefficients and lies half-way between two of their sums, and the softmax
looks its exponentials up in a table of whole numbers, whose sums are exact.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from zoo.fixed_point import LARGEST, LARGEST_WEIGHT, LOGIT_UNIT, FixedPoint, FixedPointError
from zoo.shrink import Shrink

EXACT = 2**23


class HashNet(nn.Module):
    """Images (N,C,S,S) float32 in [0,1] to `probabilities` (N,M) and `projections` (N,P), by name.

    A projection is half an odd number; its sign shows on which side of its hyperplane the features lie. `place` or a
    checkpoint sets the hyperplanes. shrink: makes the small copy that the network looks at, in whole numbers too; None:
    it looks at the image.
    """

    exponentials: torch.Tensor

    def __init__(self, fixed: FixedPoint, projections: int, shrink: Shrink | None = None) -> None:
        super().__init__()
        self.fixed, self.shrink = fixed, shrink
        self.hyperplanes = nn.Linear(fixed.features, projections)
        table = _exponentials(fixed.classes)
        self.register_buffer("exponentials", table, persistent=False)
        self.largest_gap = len(table) - 1
        self.requires_grad_(False)

    @torch.no_grad()
    def place(self, normals: torch.Tensor, offsets: torch.Tensor) -> None:
        """Set hyperplane p where normals[p] . features = offsets[p] + 1/2; whole numbers, (P,F) and (P,).

        Raises FixedPointError where a float32 sum would not be exact.
        """
        largest = normals.abs().max().item()
        reach = (LARGEST * normals.abs().sum(1) + offsets.abs() + 1).max().item()
        if largest > LARGEST_WEIGHT or reach >= EXACT:
            raise FixedPointError(
                f"hyperplanes: expected |normal| <= {LARGEST_WEIGHT} and 255 * sum |normal| + |offset| + 1 < {EXACT}, "
                f"got {largest:.0f} and {reach:.0f}"
            )
        self.hyperplanes.weight.copy_(normals)
        self.hyperplanes.bias.copy_(-offsets - 0.5)

    def folded(self) -> HashNet:
        """A copy that answers the same bits with fewer operators, as graphs are made of it (FixedPoint.fold)."""
        made = copy.deepcopy(self)
        made.fixed.fold()
        return made

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features, logits = self.fixed(images if self.shrink is None else self.shrink(images))
        gaps = (logits.amax(1, keepdim=True) - logits).clamp(max=self.largest_gap)
        raised = self.exponentials[gaps.long()]
        return {
            "probabilities": raised / raised.sum(1, keepdim=True),
            "projections": self.hyperplanes(features),
        }


def _exponentials(classes: int) -> torch.Tensor:
    """round(e^-gap * 2^23 / M) for gaps of 0, 1, ... units of a logit, to the first that rounds to 0."""
    largest = EXACT // classes
    gaps = torch.arange(2048, dtype=torch.float64) * LOGIT_UNIT
    table = torch.round(largest * torch.exp(-gaps)).float()
    return table[: int(table.count_nonzero()) + 1]
