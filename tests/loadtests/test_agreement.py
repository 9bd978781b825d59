"""Thefts in process and over HTTP side by side: what is compared, and what counts as the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import recipes
from attacks.transfer import TransferSet
from evaluation import matrix, tables
from evaluation.clones import Exam
from evaluation.matrix import Job, Plan, Victim
from evaluation.tables import Evaluation
from loadtests import agreement
from loadtests.agreement import Compared, compare
from report.rows.clones import AgreementRow
from tests.attacks import victims
from tests.report.synthetic import attack_row
from zoo import datasets

SAME = Compared(same_images=1.0, label_differences=0, largest_difference=1e-7)


def test_equal_attacks_have_everything_in_common() -> None:
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


def test_an_attack_that_broke_off_has_less_in_common() -> None:
    whole = victims.transfer_set(20)
    assert compare(whole, whole.first(5)).same_images == 0.25
    labels_only = TransferSet(whole.images, whole.labels, None, torch.arange(20), 20)
    assert compare(whole, labels_only).largest_difference is None


def both(over_http: float, *others: float) -> AgreementRow:
    """One clone at .90 in process and at `over_http` over HTTP; `others` are its siblings of other seeds."""
    kin = [attack_row(seed=seed, clone_accuracy=accuracy) for seed, accuracy in enumerate((0.9, *others))]
    (row,) = agreement.paired(kin, [attack_row(clone_accuracy=over_http)], SAME, clients=10)
    return row


def test_one_seed_allows_two_points() -> None:
    assert both(0.885).agrees
    assert not both(0.87).agrees


def test_a_wider_spread_allows_two_deviations() -> None:
    row = both(0.82, 0.82)
    assert row.allowed == pytest.approx(2 * 0.08 / 2**0.5)
    assert row.agrees
    assert not both(0.78, 0.82).agrees


def test_a_form_is_compared_with_its_own() -> None:
    here = [attack_row(clone_accuracy=0.9), attack_row(adaptive="masked", clone_recipe="masked", clone_accuracy=0.7)]
    there = [dataclasses.replace(row, clone_accuracy=row.clone_accuracy - 0.01) for row in here]
    found = agreement.paired(here, there, SAME, clients=1)
    assert [(row.adaptive, row.in_process) for row in found] == [(None, 0.9), ("masked", 0.7)]
    assert all(row.agrees for row in found)


def asked(**changes: object) -> Plan:
    """What a recipe asks for with these keys in a table [evaluate.NAME]."""
    evaluation = Evaluation(policies=("undefended",), budgets=(20,), **changes)  # type: ignore[arg-type]
    exam = Exam(torch.zeros(1, 1, 28, 28), torch.zeros(1).long(), torch.zeros(1).long())
    victim = Victim("undefended", exam, Path("exam.npz"), "one", "one", soft=True)
    job = Job(recipes.read("mnist"), datasets.load("digits", "test"), Path(), Path(), None)
    return next(matrix.plans(job, evaluation, {"undefended": victim}))


@pytest.mark.parametrize(
    ("changes", "travels"),
    [
        ({}, True),
        ({"adaptive": ("matched",)}, True),
        ({"adaptive": ("averaging",)}, False),  # asks each client's batches for copies
        ({"called": "log-p", "clone": {"recipes": ["adamw-log-p"]}}, True),
        ({"called": "fewer", "attacks": ("augmented-seeds",), "overrides": {"seeds": 10}}, False),
        ({"attacks": ("jbda",), "clone": {"batch_size": 7}}, False),
    ],
)
def test_what_travels(changes: dict[str, object], travels: bool) -> None:
    assert agreement._travels(asked(**changes), tables.cloning(recipes.read("mnist"))) is travels
