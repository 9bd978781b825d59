"""Scores of how suspicious an image is, by that image alone: a gate's, and two that need no gate.

    gate               S(x) of the policy's gate (SAME, AAAI 2024, equation 6; defenses/gate.py)
    outlier-exposure   1 - max_k p_k of a network trained to be unsure of other images (Hendrycks et al., ICLR 2019)
    disagreement       1 - mean cosine of any two members' answers, of an ensemble trained to disagree (EDM, ICLR 2021)

High means suspicious. The baselines are read inside the archive, from responses that no client is shown: their policies
have no gate, and the effect of a threshold on them is only reported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import recipes
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.roc import Scores

OUTLIER_EXPOSURE, ENSEMBLE = "outlier-exposure", "edm"
# the decision of a row that nothing was held against
ANSWER = "answer"


@dataclass(frozen=True)
class Detector:
    """A policy and what it is scored by, one of SCORES."""

    policy: str
    kind: str

    def score(self, oracle: InProcessOracle, images: torch.Tensor) -> Scores:
        """Of images float32 (N,C,S,S), N >= 1, by the policy's archive: (N,). Raises OracleError where it has none."""
        return SCORES[self.kind](oracle, images)


def detectors(
    recipe: recipes.Recipe, gated: list[str], *, outlier_exposure: str | None, ensemble: str | None
) -> list[Detector]:
    """The gated policies, then the baselines; where these are None, those that the recipe has."""
    has = recipe.tables.get("policies", {})
    exposed = outlier_exposure or (OUTLIER_EXPOSURE if OUTLIER_EXPOSURE in has else None)
    several = ensemble or (ENSEMBLE if ENSEMBLE in has else None)
    return [
        *(Detector(policy, "gate") for policy in dict.fromkeys(gated)),
        *([Detector(exposed, "outlier-exposure")] if exposed else []),
        *([Detector(several, "disagreement")] if several else []),
    ]


def gate(oracle: InProcessOracle, images: torch.Tensor) -> Scores:
    """The score of the archive's gate. Raises OracleError where there is none, or where it failed."""
    found = []
    for answers in answered(oracle, images):
        if answers.scores is None:
            raise OracleError(f"{_name(oracle)}: expected a policy with a gate that scores every row, got none")
        found.append(answers.scores.score)
    scores: Scores = np.concatenate(found)
    if not np.isfinite(scores).all():
        raise OracleError(f"{_name(oracle)}: the gate failed on {(~np.isfinite(scores)).sum()} of {len(scores)} rows")
    return scores


def graph_of(oracle: InProcessOracle) -> str:
    """The name of the gate's graph. Raises OracleError where the archive has none."""
    policy = oracle.pipeline.policy
    if policy.gate is None:
        raise OracleError(f"{policy.recipe}-{policy.policy}: expected a policy with a gate, got none")
    return policy.gate.graph


def unsureness(oracle: InProcessOracle, images: torch.Tensor) -> Scores:
    """1 - max p, as the sum of the others: where p is float32's 1, they still differ."""
    p = _everyone(oracle, images)[:, 0]
    p[np.arange(len(p)), p.argmax(1)] = 0
    unsure: Scores = p.sum(1)
    return unsure


def disagreement(oracle: InProcessOracle, images: torch.Tensor) -> Scores:
    """1 - mean over pairs of members of the cosine of their probabilities."""
    return apart(_everyone(oracle, images))


def apart(answers: NDArray[np.float64]) -> Scores:
    """The same of answers (N, members, K). Raises OracleError where there is one member."""
    members = answers.shape[1]
    if members < 2:
        raise OracleError("disagreement is between members; this policy has one")
    unit = answers / np.linalg.norm(answers, axis=2, keepdims=True)
    first, second = np.triu_indices(members, 1)
    cosines = np.einsum("npk,npk->np", unit[:, first], unit[:, second])
    mean: Scores = 1 - cosines.mean(1)
    return mean


def answered(oracle: InProcessOracle, images: torch.Tensor) -> Iterator[Any]:
    """What the archive's pipeline says of each part of `images`, as large as one request may be."""
    for part in images.split(oracle.pipeline.policy.max_rows):
        yield oracle.pipeline(part.numpy())


def _everyone(oracle: InProcessOracle, images: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(oracle.everyone(images).numpy(), np.float64)


def _name(oracle: InProcessOracle) -> str:
    policy = oracle.pipeline.policy
    return f"{policy.recipe}-{policy.policy}"


SCORES: Mapping[str, Callable[[InProcessOracle, torch.Tensor], Scores]] = {
    "gate": gate,
    "outlier-exposure": unsureness,
    "disagreement": disagreement,
}
