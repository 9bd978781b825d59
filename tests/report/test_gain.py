"""Gain bought, against values worked out by hand."""

from __future__ import annotations

from math import sqrt

import pytest

from report.gain import gain
from report.headline import Cell, cells
from tests.report.synthetic import attack_row


def cell(*clones: tuple[float, float | None]) -> Cell:
    """One attacker's clones of several seeds, with what each could train without a query."""
    rows = [
        attack_row(seed=seed, clone_accuracy=accuracy, no_query_accuracy=before)
        for seed, (accuracy, before) in enumerate(clones)
    ]
    (found,) = cells(rows)
    return found


def test_half_of_what_an_undefended_service_sells() -> None:
    found = gain(cell((0.8, 0.7), (0.82, 0.7)), cell((0.9, 0.7), (0.94, 0.7)))
    assert found is not None
    assert (found.points, found.undefended) == (pytest.approx(0.11), pytest.approx(0.22))
    assert found.share == pytest.approx(0.5)
    # deviations 0.02 / sqrt 2 and 0.04 / sqrt 2, the second counting half
    assert found.noise == pytest.approx(sqrt(2) * 0.02 / sqrt(2) / 0.22)
    assert str(found) == "0.50 ± 0.09"


def test_one_seed_has_no_noise_and_a_loss_is_below_zero() -> None:
    found = gain(cell((0.6, 0.7)), cell((0.9, 0.7)))
    assert found is not None
    assert (found.share, found.noise) == (pytest.approx(-0.5), None)
    assert str(found) == "-0.50"


def test_no_ratio_of_two_noises() -> None:
    found = gain(cell((0.95, 0.94)), cell((0.959, 0.94)))
    assert found is not None
    assert (found.share, found.noise) == (None, None)
    assert str(found) == "no ratio: undefended gains +1.9"


def test_nothing_is_known_without_a_baseline() -> None:
    assert gain(cell((0.9, None)), cell((0.9, 0.1))) is None
    assert gain(cell((0.9, 0.1)), cell((0.9, None))) is None
