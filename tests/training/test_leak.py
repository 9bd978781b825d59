"""What labels give away of the member, against vectors worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from training.leak import leak, signatures


def test_members_that_name_themselves_leak_all_and_members_that_agree_nothing() -> None:
    apart = torch.tensor([[[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]]] * 4)
    assert signatures(apart) == [{"class": 0, "share": 1.0}, {"class": 1, "share": 1.0}]
    assert leak(apart) == pytest.approx(1.0)
    alike = torch.tensor([[[0.9, 0.1], [0.8, 0.2]], [[0.1, 0.9], [0.2, 0.8]]])
    assert signatures(alike) == [{"class": 0, "share": 0.5}] * 2
    assert leak(alike) == pytest.approx(0.0)
    # one answers 0 to everything, the other 0 and 1 in turn: H(3/4, 1/4) - H(1/2) / 2 bits of one
    half = torch.tensor([[[0.9, 0.1], [0.9, 0.1]], [[0.9, 0.1], [0.1, 0.9]]])
    assert leak(half) == pytest.approx(2 - 0.75 * math.log2(3) - 0.5)
