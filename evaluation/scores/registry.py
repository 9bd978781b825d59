"""Every score that is measured, by name. To add one: a line here, and its golden rows in tests/evaluation/scores/.

Those that others are made of come before them.
"""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.scores import detail, features
from evaluation.scores.combined import COMBINATIONS, together
from evaluation.scores.same import log_error, same, served
from evaluation.scores.score import Known, Once, Rule, Score, two_sided

# of the robust form, besides the one that is served; 1: its first term alone, 0: its second
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
# as the recipes weigh equation 6 (policy same-paper)
PAPER = 0.9
# what is put together: what the gate and the image tell, the victim's features besides, an error that sharpness is no
# part of, and what hardly sees sharpness
GATE = ("error-two-sided", "alpha-0", "sharpness-two-sided")
PARTS: Mapping[str, tuple[str, ...]] = {
    "gate": GATE,
    "features": (*GATE, "mahalanobis", "nearest", "virtual-logit"),
    "normalised": ("error-normalised", "alpha-0"),
    "answers": ("alpha-0.5", "nearest", "virtual-logit"),
}

SCORES: Mapping[str, Score] = {
    "served": Score("gate", served),
    "paper": Score("gate", same(alpha=PAPER, form="paper")),
    **{f"alpha-{alpha:g}": Score("gate", same(alpha=alpha)) for alpha in ALPHAS},
    "served-two-sided": Score("gate", two_sided(served)),
    "error-two-sided": Score("gate", two_sided(log_error)),
    "error-given-detail": Score("gate", detail.given_detail),
    "error-given-detail-two-sided": Score("gate", two_sided(detail.given_detail)),
    "error-normalised": Score("gate", detail.error_normalised),
    **{
        f"alpha-{alpha:g}-normalised": Score("gate", same(alpha=alpha, shown=detail.normalised))
        for alpha in ALPHAS
        if alpha < 1
    },
    "sharpness-two-sided": Score("image", two_sided(detail.sharpness)),
    "mahalanobis": Score("features", features.mahalanobis),
    "nearest": Score("features", features.nearest),
    "energy": Score("features", features.energy),
    "virtual-logit": Score("features", features.virtual_logit),
    "max-probability": Score("features", features.max_probability),
    **{
        f"{name}-of-{parts}": Score("combined", together(combine, names))
        for parts, names in PARTS.items()
        for name, combine in COMBINATIONS.items()
    },
}


def fitted(known: Known) -> dict[str, Rule]:
    """The rule of every score, by name."""
    for name, score in SCORES.items():
        known.rules[name] = Once(score.fit(known))
    return known.rules
