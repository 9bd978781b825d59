"""Thefts in process and over HTTP side by side: what is compared, and what counts as the same."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from attacks.transfer import TransferSet
from loadtests import agreement
from loadtests.agreement import Compared, compare
from report.rows.clones import AgreementRow
from tests.attacks import victims
from tests.report.synthetic import attack_row

SAME = Compared(same_images=1.0, label_differences=0, largest_difference=1e-7)
PLACE = ("undefended", "knockoff", "both")


def test_equal_thefts_have_everything_in_common() -> None:
    assert compare(victims.transfer_set(20), victims.transfer_set(20)) == Compared(1.0, 0, 0.0)


def test_what_differs_is_counted_over_the_images_that_are_the_same() -> None:
    first = victims.transfer_set(20)
    assert first.probabilities is not None
    images, labels, probabilities = first.images.clone(), first.labels.clone(), first.probabilities.clone()
    images[0] = 0
    labels[:2] = (labels[:2] + 1) % victims.CLASSES
    probabilities[1, 0] += 0.25
    found = compare(first, dataclasses.replace(first, images=images, labels=labels, probabilities=probabilities))
    assert (found.same_images, found.label_differences) == (0.95, 1)
    assert found.largest_difference == pytest.approx(0.25)


def test_a_theft_that_broke_off_has_less_in_common() -> None:
    whole = victims.transfer_set(20)
    assert compare(whole, whole.first(5)).same_images == 0.25
    labels_only = TransferSet(whole.images, whole.labels, None, torch.arange(20), 20)
    assert compare(whole, labels_only).largest_difference is None


def both(over_http: float, *others: float) -> AgreementRow:
    """One clone at .90 in process and at `over_http` over HTTP; `others` are its siblings of other seeds."""
    kin = [attack_row(seed=seed, clone_accuracy=accuracy) for seed, accuracy in enumerate((0.9, *others))]
    (row,) = agreement.beside(kin, [attack_row(clone_accuracy=over_http)], {PLACE: SAME}, clients=10)
    return row


def test_one_seed_allows_two_points() -> None:
    assert both(0.885).agrees
    assert not both(0.87).agrees


def test_a_wider_spread_allows_two_deviations() -> None:
    row = both(0.82, 0.82)
    assert row.allowed == pytest.approx(2 * 0.08 / 2**0.5)
    assert row.agrees
    assert not both(0.78, 0.82).agrees


def test_a_reading_of_its_own_is_compared_with_its_own() -> None:
    rows = [attack_row(attack="jbda"), attack_row(attack="jbda", labels="hard")]
    soft, hard = Compared(1.0, 0, 0.0), Compared(0.5, 3, None)
    told = {("undefended", "jbda", "soft"): soft, ("undefended", "jbda", "hard"): hard}
    found = agreement.beside(rows, rows, told, clients=1)
    assert [row.same_images for row in found] == [1.0, 0.5]
    assert [row.largest_difference for row in found] == [0.0, None]
