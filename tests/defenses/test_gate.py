"""The gate by hand: both forms' terms, scores, tail probabilities, and what becomes of a row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from defenses.gate import FORMS, RAREST, Calibration, Gate, Scores, Threshold, combined
from defenses.policy import Policy
from defenses.work import Work
from tests.defenses.policies import CALIBRATION, GATE, PAID_GATE, UNSCALED, section

# a mean squared error, served p, auxiliary q, and the terms of each form for an image of 20 pixels
EVEN, SURE, OTHER = [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
GOLDEN: dict[str, list[tuple[float, list[float], list[float], list[float]]]] = {
    "paper": [
        (0.0, EVEN, EVEN, [0.0, 0.0]),
        (0.05, SURE, OTHER, [1.0, 2.0]),
        (0.1, [0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [2.0, 0.09 + 0.04 + 0.01]),
        (1.0, SURE, EVEN, [20.0, 4 / 9 + 1 / 9 + 1 / 9]),
    ],
    "robust": [
        (0.0, EVEN, EVEN, [math.log(1e-12), 0.0]),
        (math.exp(-3), SURE, OTHER, [-3.0, 1.0]),
        # sum sqrt(p q) = sqrt(.36 .64) + sqrt(.64 .36) = 2 * .6 * .8
        (1.0, [0.36, 0.64, 0.0], [0.64, 0.36, 0.0], [0.0, math.sqrt(1 - 0.96)]),
        (1e-13, SURE, EVEN, [math.log(1e-12), math.sqrt(1 - math.sqrt(1 / 3))]),
    ],
}


def gate(**changes: Any) -> Gate:
    read = Policy.parse(section(gate={**GATE, **changes}, key_env="TORCHWARDEN_KEY")).gate
    assert read is not None
    return read


def calibration(**changes: Any) -> Calibration:
    return gate(calibration={**CALIBRATION, **changes}).calibration


def outputs(error: Any, auxiliary: Any) -> dict[str, np.ndarray]:
    return {"error": np.array(error, np.float32).reshape(-1, 1), "auxiliary": np.array(auxiliary, np.float32)}


def test_every_form_has_golden_rows() -> None:
    assert set(GOLDEN) == set(FORMS), "add the form's golden rows to GOLDEN"


@pytest.mark.parametrize("form", FORMS)
def test_terms_by_hand(form: str) -> None:
    scale = CALIBRATION if FORMS[form].standardised else UNSCALED
    errors, served, auxiliary, expected = zip(*GOLDEN[form], strict=True)
    terms = gate(form=form, calibration=scale).terms(
        outputs(errors, auxiliary), np.array(served, np.float32), pixels=20
    )
    assert terms.dtype == np.float64
    np.testing.assert_allclose(terms, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_terms_of_equal_answers_have_no_deviation_and_those_of_opposite_ones_the_largest(form: str) -> None:
    scale = CALIBRATION if FORMS[form].standardised else UNSCALED
    rows = np.random.default_rng(0).dirichlet([0.3] * 3, 50).astype(np.float32)
    judged = gate(form=form, calibration=scale)
    deviation = judged.terms(outputs(np.zeros(50), rows), rows, pixels=20)[:, 1]
    np.testing.assert_array_equal(deviation, 0.0)
    largest = judged.terms(outputs([0, 0], [SURE, OTHER]), np.array([OTHER, SURE], np.float32), pixels=20)[:, 1]
    assert (judged.terms(outputs(np.zeros(50), rows), rows[::-1], pixels=20)[:, 1] <= largest[0]).all()


def test_the_paper_s_score_is_equation_6() -> None:
    judged = gate(form="paper", alpha=0.25, calibration=UNSCALED)
    terms = judged.terms(outputs([0.05], [OTHER]), np.array([SURE], np.float32), pixels=20)
    assert judged.scores(terms).score.tolist() == pytest.approx([0.25 * 1 + 0.75 * 2])


def test_the_robust_score_by_hand() -> None:
    # z_e = (-3 + 4) / 0.5 = 2, z_d = (0.2 - 0.1) / 0.05 = 2; then (-4 + 4) / 0.5 = 0 and (0.05 - 0.1) / 0.05 = -1
    terms = np.array([[-3.0, 0.2], [-4.0, 0.05]])
    assert gate(alpha=0.5).scores(terms).score.tolist() == pytest.approx([2.0, -0.5])
    assert gate(alpha=0.25).scores(terms).score.tolist() == pytest.approx([2.0, -0.75])
    assert gate(alpha=1).scores(terms).score.tolist() == pytest.approx([2.0, 0.0])
    assert gate(alpha=0).scores(terms).score.tolist() == pytest.approx([2.0, -1.0])
    assert combined(terms, alpha=0.5, centres=(0, 0), spreads=(1, 1)).tolist() == pytest.approx([-1.4, -1.975])


@pytest.mark.parametrize(
    ("score", "probability"),
    [
        (-50.0, 1.0),
        (-1.0, 1.0),
        (0.0, 10**-0.5),  # half of the way from 1 to 0.1
        (1.0, 0.1),
        (2.0, 10**-1.5),
        (3.0, 0.01),
        (3.5, 0.01 / math.e),
        (3 + 0.5 * math.log(10), 0.001),
        (1e6, RAREST),  # e^-2,000,000 is no number
    ],
)
def test_tail_probabilities_by_hand(score: float, probability: float) -> None:
    assert calibration().probability(np.array([score])) == pytest.approx([probability], rel=1e-12)


def test_of_equal_scores_in_the_table_the_larger_probability_holds() -> None:
    tied = calibration(tail=[[1.0, 0.0], [0.5, 1.0], [0.2, 1.0], [0.1, 1.0], [0.05, 2.0]])
    found = tied.probability(np.array([1.0, 1.0 + 1e-9, 1.5, 0.5]))
    assert found.tolist() == pytest.approx([0.5, 0.1, math.sqrt(0.1 * 0.05), math.sqrt(0.5)])


def test_a_table_of_one_score_is_an_exponential_tail() -> None:
    single = calibration(tail=[[0.5, 1.0]])
    assert single.probability(np.array([0.0, 1.0, 1.5])).tolist() == pytest.approx([0.5, 0.5, 0.5 / math.e])


@given(
    steps=st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0, 5)), min_size=1, max_size=12),
    excess=st.floats(0.01, 10),
    scores=arrays(np.float64, 20, elements=st.floats(-20, 200)),
)
def test_a_higher_score_is_never_the_more_probable(
    steps: list[tuple[float, float]], excess: float, scores: np.ndarray
) -> None:
    probabilities, rises = zip(*steps, strict=True)
    tail = [list(pair) for pair in zip(np.cumprod(probabilities).tolist(), np.cumsum(rises).tolist(), strict=True)]
    found = calibration(tail=tail, excess=excess).probability(np.sort(scores))
    assert (np.diff(found) <= 1e-12).all()
    assert found.max() <= tail[0][0] * (1 + 1e-12)
    assert found.min() > 0


@given(data=st.data(), form=st.sampled_from(list(FORMS)), alpha=st.floats(0, 1))
def test_a_larger_error_or_deviation_never_lowers_a_score(data: st.DataObject, form: str, alpha: float) -> None:
    judged = gate(form=form, alpha=alpha, calibration=CALIBRATION if FORMS[form].standardised else UNSCALED)
    error = sorted(data.draw(st.tuples(*[st.floats(0, 1, width=32)] * 2)))
    # from q = p on a straight way to another q
    way = sorted(data.draw(st.tuples(*[st.floats(0, 1)] * 2)))
    served = np.array([[0.7, 0.2, 0.1]] * 2, np.float32)
    auxiliary = [(1 - far) * served[0] + far * np.array([0.1, 0.2, 0.7]) for far in way]
    for errors, others in ((error, [auxiliary[0]] * 2), (error[:1] * 2, auxiliary)):
        found = judged.scores(judged.terms(outputs(errors, others), served, pixels=20))
        assert found.score[1] >= found.score[0] - 1e-6
        assert found.tail[1] <= found.tail[0] + 1e-6


@given(
    raw=arrays(np.float32, st.tuples(st.integers(1, 9), st.just(7)), elements=st.floats(0, 1, width=32)),
    form=st.sampled_from(list(FORMS)),
)
def test_a_row_s_score_does_not_depend_on_its_neighbours(raw: np.ndarray, form: str) -> None:
    judged = gate(form=form, calibration=CALIBRATION if FORMS[form].standardised else UNSCALED)
    p, q = (part / part.sum(axis=1, keepdims=True) for part in (raw[:, 1:4] + np.float32(0.01), raw[:, 4:7] + 1))

    def found(rows: slice) -> Scores:
        return judged.scores(judged.terms(outputs(raw[rows, 0], q[rows]), p[rows].astype(np.float32), pixels=20))

    together = found(slice(None))
    for row in range(len(raw)):
        alone = found(slice(row, row + 1))
        np.testing.assert_array_equal(alone.terms[0], together.terms[row])
        assert alone.score[0] == together.score[row]
        assert alone.tail[0] == together.tail[row]


# below the threshold 3, on it, above, above by far, not scored
FOUND = [0.0, 3.0, 3.5, 60.0, math.nan]


def scored(judged: Gate) -> Scores:
    score = np.array(FOUND)
    return Scores(np.full((5, 2), np.nan), score, judged.calibration.probability(score))


@pytest.mark.parametrize("action", ["observe", "reject"])
def test_what_becomes_of_a_row(action: str) -> None:
    judged = gate(action=action)
    decisions, work = judged.decide(scored(judged), np.zeros(5, np.bool_))
    assert decisions == ["answer", "answer", action, action, "answer-open"]
    assert all(type(decision) is str for decision in decisions)
    assert work.tolist() == [0.0] * 5


def test_a_row_that_must_pay_gets_its_price_and_one_that_has_paid_passes() -> None:
    judged = gate(**PAID_GATE)
    assert judged.work is not None
    scores = scored(judged)
    decisions, work = judged.decide(scores, np.array([False, False, False, True, True]))
    assert decisions == ["answer", "answer", "proof-of-work", "paid", "paid"]
    base = judged.work.base(0.01)
    assert work.tolist() == pytest.approx([0, 0, base, 0, 0])
    _, work = judged.decide(scores, np.zeros(5, np.bool_))
    # 0.01 / e is half of log2(e) = 0.72 bits away: level 0; the other is at the cap of 12 bits
    assert work.tolist() == pytest.approx([0, 0, base, base * 2**12, 0])


def test_a_row_above_the_threshold_pays_though_its_probability_is_interpolated_above_the_rate() -> None:
    table = {**CALIBRATION, "tail": [[1.0, -1.0], [0.1, 1.0], [0.0101, 3.0], [0.0099, 4.0]]}
    judged = gate(**{**PAID_GATE, "calibration": table})
    score = np.array([3.01])
    tail = judged.calibration.probability(score)
    assert tail[0] > 0.01
    decisions, work = judged.decide(Scores(np.zeros((1, 2)), score, tail), np.zeros(1, np.bool_))
    assert decisions == ["proof-of-work"]
    assert judged.work is not None
    assert work.tolist() == pytest.approx([judged.work.base(0.01)])


@given(scores=arrays(np.float64, 12, elements=st.floats(-5, 50)))
def test_a_higher_score_never_costs_less(scores: np.ndarray) -> None:
    judged = gate(**PAID_GATE)
    rising = np.sort(scores)
    found = Scores(np.zeros((12, 2)), rising, judged.calibration.probability(rising))
    decisions, work = judged.decide(found, np.zeros(12, np.bool_))
    assert (np.diff(work) >= 0).all()
    assert [decision == "proof-of-work" for decision in decisions] == (work > 0).tolist() == (rising > 3).tolist()


def test_the_rate_names_the_threshold() -> None:
    assert gate().threshold == 3.0
    assert gate(false_positive_rate=0.001).threshold == 4.25
    judged = gate(false_positive_rate=0.001)
    score = np.array([4.0, 4.5])
    decisions, _ = judged.decide(
        Scores(np.zeros((2, 2)), score, judged.calibration.probability(score)), np.zeros(2, np.bool_)
    )
    assert decisions == ["answer", "reject"]


def test_a_gate_is_read_whole() -> None:
    assert gate(**{**PAID_GATE, "false_positive_rate": 0.001}) == Gate(
        graph="same",
        action="proof-of-work",
        form="robust",
        alpha=0.5,
        false_positive_rate=0.001,
        calibration=Calibration(
            images=4000,
            centres=(-4.0, 0.1),
            spreads=(0.5, 0.05),
            tail=((1.0, -1.0), (0.1, 1.0), (0.01, 3.0)),
            excess=0.5,
            thresholds=(Threshold(0.01, 3.0, 2.5, 3.75), Threshold(0.001, 4.25, 3.5, None)),
        ),
        work=Work(mean_benign=100.0),
    )
    assert gate().reads(7) == {"error": 1, "auxiliary": 7}
