"""Detectors: scores worked out by hand, and those of real archives."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import recipes
from evaluation import detectors
from evaluation.detectors import Detector
from evaluation.oracles import InProcessOracle, OracleError
from tests.evaluation import gated
from zoo import datasets


@cache
def some_images() -> torch.Tensor:
    # more than the archives take in one request
    return datasets.load("digits", "test").pixels[:150]


def test_a_gate_s_score_is_the_policy_s_own(tmp_path: Path) -> None:
    with InProcessOracle(gated.archive(tmp_path, "same", gate=gated.GATE)) as oracle:
        scores = Detector("same", "gate").score(oracle, some_images())
    by_hand = np.square(some_images().numpy() - gated.reconstructed(some_images().numpy())).sum((1, 2, 3))
    assert scores.shape == (150,)
    assert np.allclose(scores, by_hand, rtol=1e-4)


def test_a_policy_without_a_gate_has_no_score(tmp_path: Path) -> None:
    with (
        InProcessOracle(gated.archive(tmp_path, "undefended")) as oracle,
        pytest.raises(OracleError, match="made-up-undefended: expected a policy with a gate that scores every row"),
    ):
        Detector("undefended", "gate").score(oracle, some_images())


class Fixed:
    """An oracle whose members return given answers."""

    def __init__(self, answers: list[list[list[float]]]) -> None:
        self._answers = torch.tensor(answers)

    def everyone(self, images: torch.Tensor) -> torch.Tensor:
        return self._answers


def test_an_answer_that_is_less_sure_is_more_suspicious() -> None:
    oracle = Fixed([[[0.9, 0.06, 0.04]], [[0.2, 0.3, 0.5]], [[1.0, 3e-12, 1e-12]], [[1.0, 0.0, 0.0]]])
    scores = detectors.unsureness(oracle, some_images())  # type: ignore[arg-type]
    # float32's 1 twice, and still not the same
    assert scores == pytest.approx([0.1, 0.5, 4e-12, 0.0], rel=1e-5)
    assert scores[2] > scores[3]


def test_members_that_point_apart_are_suspicious() -> None:
    # cosines: (1, 1, 1); (0.6, 1, 0.6); (0, 0, 1) of pairs
    oracle = Fixed(
        [
            [[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]],
            [[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]],
            [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]],
        ]
    )
    scores = detectors.disagreement(oracle, some_images())  # type: ignore[arg-type]
    assert scores == pytest.approx([0.0, 1 - (0.6 + 1 + 0.6) / 3, 1 - 1 / 3], abs=1e-7)
    with pytest.raises(OracleError, match="disagreement is between members; this policy has one"):
        detectors.apart(np.ones((5, 1, 2)))


def test_baselines_are_those_of_the_recipe_or_the_ones_named(tmp_path: Path) -> None:
    recipe = recipes.read(gated.recipe(tmp_path))

    def found(**named: str | None) -> list[tuple[str, str]]:
        every = {"outlier_exposure": None, "ensemble": None, **named}
        return [(each.policy, each.kind) for each in detectors.detectors(recipe, ["same", "small", "same"], **every)]

    gates = [("same", "gate"), ("small", "gate")]
    assert found() == [*gates, ("outlier-exposure", "outlier-exposure"), ("edm", "disagreement")]
    assert found(ensemble="edm-fixed")[-1] == ("edm-fixed", "disagreement")
    bare = recipes.Recipe(recipe.name, recipe.path, recipe.spec, {})
    assert detectors.detectors(bare, ["same"], outlier_exposure=None, ensemble=None) == [Detector("same", "gate")]
