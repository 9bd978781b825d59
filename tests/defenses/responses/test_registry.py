"""Each rule of RULES is checked for the same properties and for its golden rows: a new rule needs a line in GOLDEN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from defenses.responses.registry import RULES, Rounded, TopK
from defenses.responses.rule import Context, Rule

ONE_HOT = [0.0, 1.0, 0.0, 0.0]
UNIFORM = [0.25, 0.25, 0.25, 0.25]
TIES = [0.375, 0.125, 0.375, 0.125]
PLAIN = [0.0625, 0.1875, 0.5, 0.25]
SURE = [0.9, 0.05, 0.03, 0.02]
CLOSE = [0.445, 0.455, 0.06, 0.04]


@dataclass(frozen=True)
class Golden:
    """One row worked by hand: a rule's fields, what comes in, what goes out (None: nothing is shown).

    outputs: the rule's graph's values for the row, by output. draws: what its generator gives for the row. within: how
    far float32 may be from the hand's figures, which are exact where it is 0.
    """

    options: Mapping[str, Any]
    row: Sequence[float]
    shown: Sequence[float] | None
    outputs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    draws: Sequence[float] = ()
    within: float = 0.0


class Draws:
    """A generator whose draws are known beforehand."""

    def __init__(self, draws: Sequence[float]) -> None:
        self.draws = draws

    def standard_exponential(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.array(self.draws, np.float64).reshape(shape)


HALF_L1 = {"epsilon": 0.5}
FREE = {"epsilon": 0.5, "keep_label": False}
# a surrogate's softmax: for y = (0,1,0,0), y - s = (-.1,.8,-.3,-.4), <s,y-s> = -.1 and ||s||^2 = .3, so a candidate of
# n classes with sums d of y - s and t of s has the cosine (d/n + .1) / sqrt(1/n - 2t/n + .3) / ||y-s||
SURROGATE = {"probabilities": [0.1, 0.2, 0.3, 0.4]}
SCORES = {"redirection": [300.0, -100.0, 0.0, 100.0]}
WRONG = {"probabilities": [0.0, 0.5, 0.25, 0.25]}
NU_LN3 = {"nu": float(np.log(3) * 4), "tau": 0.25}  # exp(nu (.5 - .25)) = 3

THREE = {"edges": (0.5, 0.875), "confidences": (0.625, 0.8125, 0.953125)}

GOLDEN: dict[str, list[Golden]] = {
    "soft": [Golden({}, row, row) for row in (ONE_HOT, UNIFORM, TIES, PLAIN)],
    "label": [Golden({}, row, None) for row in (ONE_HOT, UNIFORM, TIES, PLAIN)],
    "top_k": [
        Golden({"k": 2}, PLAIN, [0.0, 0.0, 0.5, 0.25]),
        Golden({"k": 2}, ONE_HOT, ONE_HOT),
        Golden({"k": 2}, UNIFORM, [0.25, 0.25, 0.0, 0.0]),
        Golden({"k": 1}, TIES, [0.375, 0.0, 0.0, 0.0]),
        Golden({"k": 3}, TIES, [0.375, 0.125, 0.375, 0.0]),
        Golden({"k": 4}, PLAIN, PLAIN),
    ],
    "rounded": [
        Golden({"digits": 2}, PLAIN, [0.06, 0.19, 0.5, 0.25]),
        Golden({"digits": 1}, PLAIN, [0.1, 0.2, 0.5, 0.2]),  # 2.5 goes to the even 2
        Golden({"digits": 1}, ONE_HOT, ONE_HOT),
        Golden({"digits": 1}, UNIFORM, [0.2, 0.2, 0.2, 0.2]),  # sums to 0.8: rows are not renormalised
        Golden({"digits": 2}, TIES, [0.38, 0.12, 0.38, 0.12]),  # 37.5 to 38 and 12.5 to 12, the even ones
        Golden({"digits": 1}, CLOSE, [0.4, 0.5, 0.1, 0.0]),
    ],
    "steps": [
        Golden(THREE, PLAIN, [0.0625, 0.0625, 0.8125, 0.0625]),  # at an edge the step above it
        Golden(THREE, ONE_HOT, [0.015625, 0.953125, 0.015625, 0.015625]),
        Golden(THREE, UNIFORM, [0.625, 0.125, 0.125, 0.125]),
        Golden(THREE, TIES, [0.625, 0.125, 0.125, 0.125]),
        Golden({"edges": (0.4,), "confidences": (0.5, 1.0)}, CLOSE, [0.0, 1.0, 0.0, 0.0]),
    ],
    "randp": [
        # q = (1,0,1,2)/4, ||y-q|| = 2, a = 1/2; the label would bear 1/(1 + 1/2)
        Golden({"epsilon": 1.0}, ONE_HOT, [0.125, 0.5, 0.125, 0.25], draws=[1, 9, 1, 2]),
        # a = 1 by epsilon, 2/3 by the label: it ties with the last class
        Golden({"epsilon": 2.0}, ONE_HOT, [1 / 6, 1 / 3, 1 / 6, 1 / 3], draws=[1, 9, 1, 2], within=1e-7),
        # q = (1,1,0,2)/4, ||y-q|| = 1, a = 1/4 by epsilon; by the label .25/(.25 + .5) = 1/3 at the last class
        Golden({"epsilon": 0.25}, PLAIN, [0.109375, 0.203125, 0.375, 0.3125], draws=[1, 1, 9, 2]),
        Golden({"epsilon": 1.0}, UNIFORM, UNIFORM, draws=[9, 1, 1, 2]),  # any noise would overtake the label
        Golden({"epsilon": 1.0}, TIES, TIES, draws=[9, 1, 1, 2]),
        # noise on no class that ties with the label: q = (0,1,0,3)/4, ||y-q|| = 1.5; by the label .25/(.25 + .75) = 1/4
        Golden({"epsilon": 0.75}, TIES, [0.28125, 0.15625, 0.28125, 0.28125], draws=[9, 1, 0, 3]),
    ],
    "reverse_sigmoid": [
        Golden({"beta": 0.8, "gamma": 0.2}, SURE, [0.621, 0.126, 0.125, 0.128], within=5e-4),
        # with gamma 1 the sigmoid undoes the logit: y - .8 (y - 1/2) = .2 y + .4, which sum to 1.8
        Golden({"beta": 0.8, "gamma": 1.0}, ONE_HOT, [2 / 9, 3 / 9, 2 / 9, 2 / 9], within=1e-7),
        Golden({"beta": 0.8, "gamma": 1.0}, UNIFORM, UNIFORM),
        Golden({"beta": 0.8, "gamma": 1.0}, TIES, [0.475 / 1.8, 0.425 / 1.8, 0.475 / 1.8, 0.425 / 1.8], within=1e-7),
        # y - 3 (y - 1/2) = 1.5 - 2 y, below 0 for the label
        Golden({"beta": 3.0, "gamma": 1.0}, ONE_HOT, [1 / 3, 0.0, 1 / 3, 1 / 3], within=1e-7),
    ],
    "mad": [
        # of the subsets with class 1 all four classes turn furthest: (0 + .1)/sqrt(.05) = .45; ||y-y*|| = 1.5, a = 1/3
        Golden(HALF_L1, ONE_HOT, [1 / 12, 0.75, 1 / 12, 1 / 12], SURROGATE, within=1e-7),
        # of the one-hot rows class 3: (-.4 + .1)/sqrt(.5) = -.42; ||y-y*|| = 2, a = 1/4
        Golden(FREE, ONE_HOT, [0.0, 0.75, 0.0, 0.25], SURROGATE, within=1e-7),
        # y - s = (.15,.05,-.05,-.15), <s,y-s> = -.05: class 3, -.1/sqrt(.5); ||y-y*|| = 1.5, a = 1/3
        Golden(FREE, UNIFORM, [1 / 6, 1 / 6, 1 / 6, 1 / 2], SURROGATE, within=1e-7),
        # y - s = (.275,-.075,.075,-.275), <s,y-s> = -.075: class 3, -.2/sqrt(.5); ||y-y*|| = 1.75, a = 2/7
        Golden(FREE, TIES, [3.75 / 14, 1.25 / 14, 3.75 / 14, 5.25 / 14], SURROGATE, within=1e-7),
        Golden({"epsilon": 2.0, "keep_label": False}, UNIFORM, [0, 0, 0, 1], SURROGATE, within=1e-7),  # a at most 1
    ],
    "grad": [
        Golden(HALF_L1, ONE_HOT, [0.25, 0.75, 0.0, 0.0], SCORES),
        Golden(HALF_L1, UNIFORM, [0.5, 0.0, 0.25, 0.25], SCORES),
        Golden(HALF_L1, TIES, [0.625, 0.0, 0.25, 0.125], SCORES),  # all of class 1, half of it again from class 2
        Golden(HALF_L1, PLAIN, [0.3125, 0.0, 0.4375, 0.25], SCORES),
        Golden({"epsilon": 2}, PLAIN, [1.0, 0.0, 0.0, 0.0], SCORES),
        Golden({"epsilon": 2, "keep_label": True}, ONE_HOT, [0.5, 0.5, 0.0, 0.0], SCORES),
        # class 1 gives all of its .1875, the label another .125; then both have .375
        Golden({"epsilon": 2, "keep_label": True}, PLAIN, [0.375, 0.0, 0.375, 0.25], SCORES),
        Golden({"epsilon": 0.5, "keep_label": True}, UNIFORM, [0.5, 0.0, 0.25, 0.25], SCORES),  # the label receives
    ],
    "adaptive_misinformation": [
        Golden({"nu": 1000, "tau": 0.5}, ONE_HOT, ONE_HOT, WRONG),
        Golden({"nu": 1000, "tau": 0.5}, UNIFORM, [0.0, 0.5, 0.25, 0.25], WRONG),
        Golden({"nu": 1000, "tau": 0.375}, TIES, [0.1875, 0.3125, 0.3125, 0.1875], WRONG),  # at tau half of each
        # h = 1/(1 + 3) = 1/4
        Golden(NU_LN3, PLAIN, [0.046875, 0.265625, 0.4375, 0.25], WRONG, within=1e-7),
    ],
}
CASES = [(name, golden.options) for name, rows in GOLDEN.items() for golden in rows]


def context(rule: Rule, rows: int, seed: int) -> Context:
    """Drawn outputs for `rows` rows of four classes, and a generator of this seed."""
    random = np.random.default_rng(seed)
    drawn = {
        graph: {
            name: (
                random.dirichlet(np.full(columns, 0.3), rows)
                if name == "probabilities"
                else random.normal(0, 100, (rows, columns)).round(-1)  # ties among them
            ).astype(np.float32)
            for name, columns in reads.items()
        }
        for graph, reads in rule.reads(4).items()
    }
    return Context(drawn, random)


def one_row(given: Context, row: int) -> dict[str, dict[str, np.ndarray]]:
    return {
        graph: {name: values[row : row + 1] for name, values in outputs.items()}
        for graph, outputs in given.outputs.items()
    }


def distributions() -> st.SearchStrategy[np.ndarray]:
    """(N,4) float32 rows that sum to 1, the edge rows often among them."""
    edges = st.sampled_from([ONE_HOT, UNIFORM, TIES, PLAIN, CLOSE])
    drawn = arrays(np.float32, 4, elements=st.floats(0, 1, width=32)).map(lambda row: (row + 1e-6) / (row + 1e-6).sum())
    return st.lists(edges | drawn, min_size=1, max_size=6).map(lambda rows: np.array(rows, np.float32))


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_golden_rows(name: str) -> None:
    line = f'    "{name}": [Golden({{...}}, PLAIN, [...]), ...],'
    assert name in GOLDEN, (
        f"{name!r} has no golden rows; add to GOLDEN in tests/defenses/responses/test_registry.py:\n{line}"
    )
    met = {tuple(golden.row) for golden in GOLDEN[name]}
    missing = {tuple(row) for row in (ONE_HOT, UNIFORM, TIES)} - met
    assert not missing, f"{name!r} lacks golden rows for {missing} in tests/defenses/responses/test_registry.py"


@pytest.mark.parametrize(
    ("name", "golden"), [(name, golden) for name, rows in GOLDEN.items() for golden in rows], ids=str
)
def test_golden_rows(name: str, golden: Golden) -> None:
    rule = RULES[name](**golden.options)
    outputs = {
        graph: {output: np.array([golden.outputs[output]], np.float32) for output in reads}
        for graph, reads in rule.reads(4).items()
    }
    shown = rule(np.array([golden.row], np.float32), Context(outputs, Draws(golden.draws)))
    if golden.shown is None:
        assert shown is None
    else:
        assert shown is not None
        np.testing.assert_allclose(shown, np.array([golden.shown], np.float32), rtol=0, atol=golden.within)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@given(probabilities=distributions(), seed=st.integers(0, 10_000))
def test_properties(name: str, options: Mapping[str, Any], probabilities: np.ndarray, seed: int) -> None:
    rule = RULES[name](**options)
    before = probabilities.copy()
    shown = rule(probabilities, context(rule, len(probabilities), seed))
    np.testing.assert_array_equal(probabilities, before)
    if shown is None:
        assert rule.keeps_label
        return
    assert shown.shape == probabilities.shape
    assert shown.dtype == np.float32
    assert np.isfinite(shown).all()
    assert (shown >= 0).all()
    if "epsilon" in options:
        assert (np.abs(shown.astype(np.float64) - probabilities).sum(axis=1) <= options["epsilon"] + 1e-6).all()
        np.testing.assert_allclose(shown.sum(axis=1), probabilities.sum(axis=1), atol=1e-6)
    if rule.keeps_label:
        of_label = np.take_along_axis(shown, probabilities.argmax(axis=1)[:, np.newaxis], axis=1)
        assert (of_label[:, 0] == shown.max(axis=1)).all()
    again = context(rule, len(probabilities), seed)  # the same generator, drawn from row by row
    for row, alone in enumerate(probabilities):
        np.testing.assert_array_equal(
            shown[row : row + 1], rule(alone[np.newaxis], Context(one_row(again, row), again.random))
        )


def test_noise_is_fresh_and_its_mean_is_the_middle_of_the_other_classes() -> None:
    rule = RULES["randp"](epsilon=0.5)
    shown = rule(np.array([SURE] * 4000, np.float32), Context({}, np.random.default_rng(0)))
    assert shown is not None
    assert len(np.unique(shown, axis=0)) == 4000
    moved = np.abs(shown - np.array(SURE)).sum(axis=1)
    np.testing.assert_allclose(moved, 0.5, atol=1e-6)
    # a is about .5/1.8: the others' means are (1 - a) y_j + a/3, within what 4,000 draws leave
    share = 1 - shown[:, 0] / 0.9
    expected = (1 - share.mean()) * np.array(SURE)[1:] + share.mean() / 3
    np.testing.assert_allclose(shown[:, 1:].mean(axis=0), expected, atol=0.005)


def test_the_reverse_sigmoid_moves_the_label_of_an_unsure_row() -> None:
    unsure = np.array([[0.2] * 4 + [0.15, 0.05, 0.0, 0.0, 0.0, 0.0]], np.float32)
    shown = RULES["reverse_sigmoid"](beta=0.8, gamma=0.2)(unsure, Context({}, np.random.default_rng(0)))
    assert shown is not None
    assert unsure.argmax() == 0
    assert shown.argmax() == 6
    # 0.387 and 0.255 as the class defines, in their proportion
    assert shown[0, 6] / shown[0, 0] == pytest.approx(0.387 / 0.255, rel=0.01)


def test_a_switch_as_hard_as_it_gets_overflows_nowhere() -> None:
    rule = RULES["adaptive_misinformation"](nu=1_000_000, tau=0.5)
    wrong = {"misinformation": {"probabilities": np.array([WRONG["probabilities"]] * 2, np.float32)}}
    shown = rule(np.array([ONE_HOT, UNIFORM], np.float32), Context(wrong, np.random.default_rng(0)))
    np.testing.assert_array_equal(shown, [ONE_HOT, WRONG["probabilities"]])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("randp", {"epsilon": 0}, r"epsilon: expected a number above 0, at most 2, got 0"),
        ("randp", {"epsilon": 2.5}, r"epsilon: expected a number above 0, at most 2, got 2\.5"),
        ("randp", {"epsilon": float("nan")}, r"epsilon: expected a number above 0, at most 2, got nan"),
        ("randp", {"epsilon": True}, r"epsilon: expected a number above 0, at most 2, got True"),
        ("reverse_sigmoid", {"beta": "1", "gamma": 0.2}, r"beta: expected a number above 0, at most 10, got '1'"),
        ("reverse_sigmoid", {"beta": 1, "gamma": -1}, r"gamma: expected a number above 0, at most 10, got -1"),
        ("mad", {"epsilon": 1, "keep_label": 1}, r"keep_label: expected true or false, got 1"),
        ("mad", {"epsilon": 1, "graph": "../x"}, r"graph: expected letters"),
        ("grad", {"epsilon": -1}, r"epsilon: expected a number above 0"),
        ("adaptive_misinformation", {"nu": 1, "tau": 1.5}, r"tau: expected a number above 0, at most 1, got 1\.5"),
        ("steps", {"edges": [], "confidences": [0.5]}, r"edges: expected a list of numbers, got \[\]"),
        ("steps", {"edges": [0.9, 0.6], "confidences": [0.5, 0.6, 0.7]}, r"edges: expected numbers that rise, got"),
        ("steps", {"edges": [1.0], "confidences": [0.5, 0.6]}, r"edges: expected numbers below 1, got \(1\.0,\)"),
        ("steps", {"edges": [0.5], "confidences": [0.5, 1.5]}, r"confidences: expected a number above 0, at most 1"),
        ("steps", {"edges": [0.5], "confidences": [0.5]}, r"confidences: expected 2, one more than edges, got 1"),
        ("adaptive_misinformation", {"nu": 0, "tau": 1}, r"nu: expected a number above 0, at most 1e\+06, got 0"),
    ],
)
def test_what_a_rule_cannot_be(name: str, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RULES[name](**options)


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "2"])
def test_top_k_refuses(k: Any) -> None:
    with pytest.raises(ValueError, match=r"k: expected an integer from 1 to 10000, got"):
        TopK(k)


@pytest.mark.parametrize("digits", [0, 7, None])
def test_rounded_refuses(digits: Any) -> None:
    with pytest.raises(ValueError, match=r"digits: expected an integer from 1 to 6, got"):
        Rounded(digits)
