"""SAME's score (Xie et al., AAAI 2024; defenses/gate.py) in both of its forms, with any weight of its two terms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from defenses.gate import FORMS, SMALLEST_ERROR, combined
from evaluation.scores.score import Fit, Known, Rule, scale
from evaluation.scores.sight import Doubles, Seen

View = Callable[[Seen], Seen]
"""images -> the same N, as a gate is shown them"""


def as_sent(known: Known) -> View:
    """The images themselves."""
    del known
    return lambda seen: seen


def terms(seen: Seen, form: str, view: View | None = None) -> Doubles:
    """The form's two terms (N,2); the predictor is shown the images as they were sent, whatever the gate is shown."""
    error, auxiliary = (seen if view is None else view(seen)).gated
    return FORMS[form].terms(error, seen.served, auxiliary, seen.pixels)


def same(*, alpha: float, form: str = "robust", shown: Callable[[Known], View] = as_sent) -> Fit:
    """The score with this weight of its first term, its terms scaled as a calibration scales them. shown: makes what
    the gate is shown."""

    def fitted(known: Known) -> Rule:
        view = shown(known)
        centres, spreads = (0.0, 0.0), (1.0, 1.0)
        if FORMS[form].standardised:
            first, second = (scale(column) for column in terms(known.benign, form, view).T)
            centres, spreads = (first[0], second[0]), (first[1], second[1])
        return lambda seen: combined(terms(seen, form, view), alpha=alpha, centres=centres, spreads=spreads)

    return fitted


def served(known: Known) -> Rule:
    """The score as the policy has it."""
    gate = known.benign.sight.gate
    return same(alpha=gate.alpha, form=gate.form)(known)


def log_error(known: Known) -> Rule:
    """The first term as it is, the logarithm of the mean squared error."""
    del known
    return lambda seen: np.log(seen.gated[0].clip(min=SMALLEST_ERROR))
