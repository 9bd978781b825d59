"""Response rules that disturb a row: by noise, by a function of the row alone, or by another network's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from defenses import ranges
from defenses.responses.rule import Context, Doubles, Probabilities, Rule, as_shown

# logit(y) is infinite at 0 and 1; a row's entries are taken as this far from both
SMALLEST = 1e-9


@dataclass(frozen=True)
class RandomPerturbation(Rule):
    """RandP: y' = (1 - a) y + a q with q ~ Dirichlet(1, ..., 1) over the K - 1 classes that are not y's largest.

    The papers' random perturbations disagree with each other, so this is the definition: a = epsilon / ||y - q||_1,
    at most 1, then made smaller until y's label t still has a largest entry: a <= (y_t - y_j) / (y_t - y_j + q_j) for
    every j. So ||y' - y||_1 <= epsilon, and it is epsilon where the label leaves room. Noise is fresh for every row
    and every repetition: a thief may average it away, at the cost of the queries.

    epsilon: above 0, at most 2.
    """

    epsilon: float
    keeps_label = True

    def __post_init__(self) -> None:
        ranges.number("epsilon", self.epsilon, above=0, most=2)

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        top = probabilities.argmax(axis=1)
        noise = context.random.standard_exponential(probabilities.shape)
        np.put_along_axis(noise, top[:, np.newaxis], 0.0, axis=1)
        return as_shown(self._towards(probabilities.astype(np.float64), noise / noise.sum(axis=1, keepdims=True)), top)

    def _towards(self, y: Doubles, q: Doubles) -> Doubles:
        gap = y.max(axis=1, keepdims=True) - y
        with np.errstate(invalid="ignore"):  # 0 / 0 where neither binds
            room = np.where(q > 0, gap / (gap + q), 1.0).min(axis=1)
        # y_t > 0 = q_t, so the distance is never 0
        share = np.minimum(self.epsilon / np.abs(y - q).sum(axis=1), room).clip(max=1.0)
        moved: Doubles = y + share[:, np.newaxis] * (q - y)
        return moved


@dataclass(frozen=True)
class ReverseSigmoid(Rule):
    """y' ~ max(0, y - beta (sigmoid(gamma logit(y)) - 1/2)), renormalised. Lee et al., IEEE S&P workshops 2019.

    The term is steepest where y is close to 0 or 1, and there the order of entries turns round: a deceptive step. It
    does not keep the label: with beta 0.8 and gamma 0.2 an entry of 0 is shown as 0.387 before renormalisation, and a
    largest entry of 0.2 as 0.255. So the label that is served is that of y'. On rows that are all but one-hot the
    label moves where beta > 1, about.

    beta, gamma: above 0, at most 10. The literature's gamma is 0.1 for CIFAR-10 and 0.2 elsewhere.
    """

    beta: float
    gamma: float
    keeps_label = False

    def __post_init__(self) -> None:
        ranges.number("beta", self.beta, above=0, most=10)
        ranges.number("gamma", self.gamma, above=0, most=10)

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        y = probabilities.astype(np.float64).clip(SMALLEST, 1 - SMALLEST)
        logit = np.log(y) - np.log1p(-y)
        # an entry below 1/2 only grows, and every row of two classes or more has one: no sum is 0
        shown = (y - self.beta * (1 / (1 + np.exp(-self.gamma * logit)) - 0.5)).clip(min=0.0)
        return as_shown(shown / shown.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class AdaptiveMisinformation(Rule):
    """y' = (1 - h) y + h w, h = 1 / (1 + exp(nu (max y - tau))). Kariyappa and Qureshi, CVPR 2020.

    w is the answer of a network that was trained to be wrong: the less sure the predictor, the more of it is
    shown. With the literature's nu (1,000 and more) h is a switch at max y = tau. The label moves with y'.

    nu: above 0, at most 1e6. tau: above 0, at most 1. graph: the misinforming network's, which gives `probabilities`.
    """

    nu: float
    tau: float
    graph: str = "misinformation"
    keeps_label = False

    def __post_init__(self) -> None:
        ranges.number("nu", self.nu, above=0, most=1_000_000)
        ranges.number("tau", self.tau, above=0, most=1)
        ranges.identifier("graph", self.graph)

    def reads(self, classes: int) -> Mapping[str, Mapping[str, int]]:
        return {self.graph: {"probabilities": classes}}

    def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities | None:
        y = probabilities.astype(np.float64)
        sure = y.max(axis=1, keepdims=True)
        # 1 / (1 + exp(z)) without its overflow
        share = 0.5 * (1 - np.tanh(0.5 * self.nu * (sure - self.tau)))
        return as_shown((1 - share) * y + share * context.outputs[self.graph]["probabilities"])
