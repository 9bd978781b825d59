"""Shifted images as real archives answer them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import recipes
from attacks import metrics
from evaluation.oracles import InProcessOracle
from evaluation.studies import shifts
from evaluation.traffic import SHIFTS
from report.rows.members import ShiftRow
from tests.data_sets import digits_test
from tests.evaluation import gated
from tests.evaluation.studies.command import study
from zoo.datasets import Images

AUGMENT = "{ affine = { degrees = 15.0, shift = 0.1, scale = 0.1 }, crop = 0.8, light = { brightness = 0.4 } }"
MEMBERS = "members = [{ architecture = 'lenet5' }, { architecture = 'lenet5' }]\n"
MISLEADER = f"[networks.misleader]\naugment = {AUGMENT}\n{MEMBERS}"


def test_the_members_own_augmentation_is_the_recipe_s(tmp_path: Path) -> None:
    every = shifts.shifts(recipes.read(gated.recipe(tmp_path, gated.RECIPE + MISLEADER)))
    assert list(every) == [ShiftRow.NONE, *SHIFTS, ShiftRow.TRAINED]
    images = digits_test().pixels[:20]
    assert torch.equal(every[ShiftRow.NONE](images), images)
    once, again = every[ShiftRow.TRAINED](images), every[ShiftRow.TRAINED](images)
    assert torch.equal(once, again)
    assert 0 <= once.min() <= once.max() <= 1
    assert 0.01 < (once - images).abs().mean() < 0.5


def test_a_recipe_without_misleader_has_none(tmp_path: Path) -> None:
    assert list(shifts.shifts(recipes.read(gated.recipe(tmp_path)))) == [ShiftRow.NONE, *SHIFTS]


def test_a_mistaken_augmentation_names_its_key(tmp_path: Path) -> None:
    text = gated.RECIPE + f"[networks.misleader]\naugment = {{ crop = 2.0 }}\n{MEMBERS}"
    with pytest.raises(
        recipes.RecipeError, match=r"\[networks.misleader\]: augment: crop: expected a share of the area"
    ):
        shifts.shifts(recipes.read(gated.recipe(tmp_path, text)))


def test_kept_is_the_share_of_a_policy_s_own_labels(tmp_path: Path) -> None:
    images = digits_test().pixels[:60]
    with InProcessOracle(gated.archive(tmp_path, "undefended")) as oracle:
        own, upside_down = (oracle(each) for each in (images, images.flip(2)))
        test = Images(
            "digits",
            images,
            digits_test().labels[:60] if digits_test().labels is not None else None,
            digits_test().classes,
        )
        every = {ShiftRow.NONE: lambda images: images, "upside down": lambda images: images.flip(2)}
        plain, turned = shifts.measure(oracle, test, every, recipe="made-up", policy="undefended")
    assert test.labels is not None
    assert upside_down.probabilities is not None
    assert (plain.images, plain.kept) == (60, 1.0)
    assert plain.accuracy == metrics.accuracy(own.labels, test.labels)
    assert turned.kept == (own.labels == upside_down.labels).double().mean().item() < 1
    assert turned.ece == metrics.ece(upside_down.probabilities, test.labels)


def test_rows_that_a_gate_refuses_are_neither_right_nor_kept(tmp_path: Path) -> None:
    with InProcessOracle(gated.archive(tmp_path, "strict", gate=gated.REJECTING)) as oracle:
        stripes = torch.zeros_like(digits_test().pixels)
        stripes[..., ::2] = 1
        every = {"stripes": lambda images: stripes[: len(images)]}
        (row,) = shifts.measure(oracle, digits_test(), every, recipe="made-up", policy="strict")
    assert (row.accuracy, row.kept, row.ece) == (0.0, 0.0, None)


def test_the_program(tmp_path: Path) -> None:
    recipe = gated.recipe(tmp_path, gated.RECIPE + MISLEADER)
    gated.archive(tmp_path, "undefended")
    gated.archive(tmp_path, "label", response={"rule": "label"})
    report = study("shifts", "--policies", "undefended", "label", run=tmp_path, store=tmp_path, recipe=recipe)
    by_policy = {policy: [row for row in report.shifts if row.policy == policy] for policy in ("undefended", "label")}
    # the same images and the same predictor: all is equal but what a label cannot show
    assert [(row.shift, row.accuracy, row.kept) for row in by_policy["undefended"]] == [
        (row.shift, row.accuracy, row.kept) for row in by_policy["label"]
    ]
    assert {row.shift for row in report.shifts} == {ShiftRow.NONE, *SHIFTS, ShiftRow.TRAINED}
    assert all(row.ece is not None for row in by_policy["undefended"])
    assert all(row.ece is None for row in by_policy["label"])
    assert report.run.settings["shifts.augment"]["crop"] == 0.8


def test_a_missing_archive_says_what_to_build(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"made-up-nothing\.mar: no such archive; build it first"):
        study("shifts", "--policies", "nothing", run=tmp_path, store=tmp_path, recipe=gated.recipe(tmp_path))
