r"""The gate: how suspicious a query is, and what happens to one that is too suspicious.

SAME, Xie et al., AAAI 2024, equation 6, scores an image x by two terms: how badly a masked autoencoder reconstructs it
as x^, and how far an auxiliary model's answer to x^ is from the victim's answer to x,

    S(x) = alpha * ||x - x^||^2 + (1 - alpha) * ||F_V(x) - F_aux(x^)||_2^2

and high is suspicious. The paper leaves alpha, the threshold and the two terms' scales open. Here a form defines the
terms, and a score is

    S = alpha * (t_1 - c_1) / s_1 + (1 - alpha) * (t_2 - c_2) / s_2

    paper   t_1 = ||x - x^||^2                        t_2 = ||p - q||_2^2     c = 0, s = 1: equation 6
    robust  t_1 = log of the mean of (x - x^)^2       t_2 = H(p, q)           c, s: median and MAD of benign images

with p the predictor's answer to x, q the auxiliary model's to x^ and H(p, q)^2 = 1/2 sum (sqrt p - sqrt q)^2,
Hellinger's distance, in [0, 1]. A score by itself means little; its tail probability, the share of benign images that
score as high, is what proof of work is priced by. All that rests on benign images stands in the policy (`calibration`)
and is measured by training/calibration/calibrate.py.

To add a form: its line in FORMS, its golden rows in tests/defenses/test_gate.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from defenses import ranges
from defenses.responses.rule import Doubles, Probabilities
from defenses.routing import Outputs
from defenses.work import Work

ANSWER = "answer"
ANSWER_OPEN = "answer-open"
OBSERVE = "observe"
REJECT = "reject"
PROOF_OF_WORK = "proof-of-work"
PAID = "paid"
ACTIONS = (OBSERVE, REJECT, PROOF_OF_WORK)

# a mean squared error below it, of a reconstruction without fault, has no logarithm
SMALLEST_ERROR = 1e-12
# so that no probability is 0, and every one has a logarithm
RAREST = float(np.finfo(np.float64).tiny)

# mean squared errors (N,), probabilities (N,K) served and of the auxiliary model, pixels of an image -> terms (N,2)
Terms = Callable[[Doubles, Doubles, Doubles, int], Doubles]


@dataclass(frozen=True)
class Form:
    """What FORMS holds. terms: t_1 and t_2 of N rows, row by row. standardised: whether c and s are of benign images;
    where not, c = 0 and s = 1."""

    terms: Terms
    standardised: bool


def _paper(error: Doubles, served: Doubles, auxiliary: Doubles, pixels: int) -> Doubles:
    return np.stack([pixels * error, np.square(served - auxiliary).sum(axis=1)], axis=1)


def _robust(error: Doubles, served: Doubles, auxiliary: Doubles, pixels: int) -> Doubles:
    # 1 - sum sqrt(p q) is the same, but rounds to 0.0003 and the like where p = q
    half = 0.5 * np.square(np.sqrt(served) - np.sqrt(auxiliary)).sum(axis=1)
    return np.stack([np.log(error.clip(min=SMALLEST_ERROR)), np.sqrt(half.clip(max=1.0))], axis=1)


FORMS: dict[str, Form] = {
    "paper": Form(_paper, standardised=False),
    "robust": Form(_robust, standardised=True),
}


def combined(terms: Doubles, *, alpha: float, centres: tuple[float, float], spreads: tuple[float, float]) -> Doubles:
    """S above, (N,) from terms (N,2); NaN where a term is."""
    first: Doubles = alpha * (terms[:, 0] - centres[0]) / spreads[0]
    second: Doubles = (1 - alpha) * (terms[:, 1] - centres[1]) / spreads[1]
    return first + second


@dataclass(frozen=True)
class Threshold:
    """The score that a share `rate` of benign images lies above, and its 95 % confidence interval.

    rate: above 0, at most 0.5. low, high: None where there were too few images to bound it on that side.
    """

    rate: float
    score: float
    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        ranges.number("rate", self.rate, above=0, most=0.5)
        _finite("score", self.score)
        for name, value in (("low", self.low), ("high", self.high)):
            if value is not None:
                _finite(name, value)
        bounds = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        if not bounds[0] <= self.score <= bounds[1]:
            raise ValueError(f"score: expected from low, {self.low!r}, to high, {self.high!r}, got {self.score!r}")


@dataclass(frozen=True)
class Calibration:
    """What a form's scores are on benign images.

    images: how many it rests on. centres, spreads: c and s of the two terms. tail: (p, s) pairs, a share p of benign
    images scoring s or more; probabilities strictly falling from at most 1, scores rising. excess: by how much those
    above the last of these scores exceed it in the mean. thresholds: one for each false-positive rate on offer.
    """

    images: int
    centres: tuple[float, float]
    spreads: tuple[float, float]
    tail: tuple[tuple[float, float], ...]
    excess: float
    thresholds: tuple[Threshold, ...]

    def __post_init__(self) -> None:
        ranges.integer("images", self.images, 1, 10**9)
        for name in ("centres", "spreads"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), 2))
        if min(self.spreads) <= 0:
            raise ValueError(f"spreads: expected numbers above 0, got {self.spreads!r}")
        self._check_tail()
        ranges.number("excess", self.excess, above=0, most=1e9)
        rates = self.rates
        if not rates or len(set(rates)) < len(rates):
            raise ValueError(f"thresholds: expected one or more, each of a rate of its own, got rates {rates!r}")

    def _check_tail(self) -> None:
        pairs = self.tail if isinstance(self.tail, list | tuple) else ()
        if not pairs:
            raise ValueError(f"tail: expected a list of [probability, score], got {self.tail!r}")
        tail = tuple(_numbers("tail", pair, 2) for pair in pairs)
        object.__setattr__(self, "tail", tail)  # YAML knows no tuples
        probabilities, scores = np.array(tail).T
        if not (probabilities[0] <= 1 and probabilities[-1] > 0 and (np.diff(probabilities) < 0).all()):
            raise ValueError(f"tail: expected probabilities that fall from at most 1 and stay above 0, got {tail!r}")
        if not (np.diff(scores) >= 0).all():
            raise ValueError(f"tail: expected scores that rise, got {tail!r}")

    @cached_property
    def _table(self) -> tuple[Doubles, Doubles]:
        """The tail from its largest score down, with log p: of equal scores the more probable then comes last, which is
        the one that np.interp takes."""
        probabilities, scores = np.array(self.tail)[::-1].T
        return scores, np.log(probabilities)

    @property
    def rates(self) -> tuple[float, ...]:
        """The false-positive rates there is a threshold for."""
        return tuple(threshold.rate for threshold in self.thresholds)

    def probability(self, score: Doubles) -> Doubles:
        """P(S >= s) of benign images: (N,) scores to (N,) in (0, 1], NaN where the score is.

        Interpolated in the table, log p linear in s; beyond it an exponential tail. Of scores that are equal in the
        table, the larger probability.
        """
        falling, logarithms = self._table
        logarithm = np.interp(-score, -falling, logarithms)
        beyond = (score - falling[0]).clip(min=0.0) / self.excess
        found: Doubles = np.exp(logarithm - beyond).clip(min=RAREST)
        return found


@dataclass(frozen=True, eq=False)
class Scores:
    """What the gate found of N rows: terms (N,2), score (N,) and its tail probability (N,) in (0, 1], all float64; NaN
    in rows that were not scored."""

    terms: Doubles
    score: Doubles
    tail: Doubles


@dataclass(frozen=True)
class Gate:
    """The `gate` section of a policy.

    graph: reads images, gives `error` and `auxiliary`. action: what becomes of a row whose score is above the
    threshold: "observe" (it is answered, and counted), "reject", or "proof-of-work" (it is answered when paid for).
    form: of FORMS. alpha: of S above, from 0 to 1. false_positive_rate: share of benign images that the action affects,
    one of the calibration's rates. work: what proof of work costs.
    """

    graph: str
    action: str
    form: str
    alpha: float
    false_positive_rate: float
    calibration: Calibration
    work: Work | None = None

    def __post_init__(self) -> None:
        ranges.identifier("graph", self.graph)
        ranges.choice("action", self.action, ACTIONS)
        ranges.choice("form", self.form, tuple(FORMS))
        ranges.between("alpha", self.alpha, 0, 1)
        known = self.calibration.rates
        if self.false_positive_rate not in known:
            shown = ", ".join(f"{rate:g}" for rate in known)
            raise ValueError(
                f"false_positive_rate: expected one that was calibrated, {shown}, got {self.false_positive_rate!r}"
            )
        scale = self.calibration.centres, self.calibration.spreads
        if not FORMS[self.form].standardised and scale != ((0, 0), (1, 1)):
            raise ValueError(
                f"calibration: expected centres 0 and spreads 1, {self.form!r} has no others, got {scale!r}"
            )
        if self.action == PROOF_OF_WORK and self.work is None:
            raise ValueError("work: expected a table, proof of work has a price, got null")
        if self.action != PROOF_OF_WORK and self.work is not None:
            raise ValueError(f"work: expected null, the action {self.action!r} has no price, got a table")
        if self.work is not None:
            try:
                self.work.check(self.false_positive_rate)
            except ValueError as error:
                raise ValueError(f"work: {error}") from error

    def reads(self, classes: int) -> dict[str, int]:
        """The outputs of the graph that the gate reads, for K = `classes`: name -> columns."""
        return {"error": 1, "auxiliary": classes}

    @property
    def threshold(self) -> float:
        """The score above which the action applies to a row."""
        rates = self.calibration.rates
        return self.calibration.thresholds[rates.index(self.false_positive_rate)].score

    def terms(self, outputs: Outputs, served: Probabilities, pixels: int) -> Doubles:
        """The form's terms (N,2) float64 of N rows: from the gate's graph's outputs and the predictor's
        probabilities (N,K). pixels: C * H * W of an image."""
        error, auxiliary = (outputs[name].astype(np.float64) for name in ("error", "auxiliary"))
        return FORMS[self.form].terms(error[:, 0], served.astype(np.float64), auxiliary, pixels)

    def scores(self, terms: Doubles) -> Scores:
        """The scores of rows with these terms (N,2), and their tail probabilities."""
        known = self.calibration
        score = combined(terms, alpha=self.alpha, centres=known.centres, spreads=known.spreads)
        return Scores(terms, score, known.probability(score))

    def decide(self, scores: Scores, paid: NDArray[np.bool_]) -> tuple[list[str], Doubles]:
        """What becomes of each of N rows, and the work wanted of it, (N,) float64 expected hashes.

        paid: (N,), rows whose price is paid, whatever their score. Other rows without a score pass as "answer-open".
        """
        above = ~paid & (scores.score > self.threshold)
        open_ = ~paid & np.isnan(scores.score)
        decisions = [ANSWER] * len(paid)
        for rows, decision in ((paid, PAID), (open_, ANSWER_OPEN), (above, self.action)):
            for row in np.flatnonzero(rows):
                decisions[row] = decision
        work = np.zeros(len(paid))
        if self.work is not None and above.any():
            # an interpolated probability may lie a little on the other side of the rate than its score
            tail = scores.tail[above].clip(max=self.false_positive_rate)
            work[above] = self.work.of(tail, self.false_positive_rate)
        return decisions, work


def _finite(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")


def _numbers(name: str, values: object, count: int) -> tuple[float, ...]:
    """A list of `count` finite numbers as a tuple. Raises ValueError."""
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ValueError(f"{name}: expected {count} numbers, got {values!r}")
    for value in values:
        _finite(name, value)
    return tuple(values)
