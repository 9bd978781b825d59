"""The pipeline over graphs written in numpy: any callable is a graph, so these are graphs, not stand-ins."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from defenses.mark import Marker
from defenses.pipeline import EVERY, Answers, GraphError, Pipeline, StageError, ask, sound
from defenses.policy import Policy, PolicyError
from defenses.responses import registry
from defenses.responses.rule import Context, Probabilities, Rule
from defenses.routing import Outputs, member_table
from tests.defenses.policies import CALIBRATION, FRESH, GATE, KEY, KEYED, PAID_GATE, routed, section

SHAPE = (1, 4, 5)
RANDOM = np.random.default_rng(0)


class Linear:
    """softmax((flat images - 1/2) @ weights): a graph that counts the rows it was asked for."""

    def __init__(self, classes: int, seed: int, sharp: float = 8.0) -> None:
        self.weights = np.random.default_rng(seed).normal(0, sharp, (20, classes)).astype(np.float32)
        self.asked: list[int] = []

    def __call__(self, images: np.ndarray) -> Outputs:
        self.asked.append(len(images))
        # a sum a row, not a matrix product, whose rounding depends on the number of rows
        scores = ((images.reshape(len(images), -1, 1) - 0.5) * self.weights).sum(axis=1)
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return {"probabilities": (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)}


class Noisy:
    """images + noise / 4: a perturbation that keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, images: np.ndarray, noise: np.ndarray) -> Outputs:
        self.given.append((images, noise))
        return {"perturbed": (images + noise / 4).reshape(len(images), -1)}


class Broken:
    """A graph that raises, or spoils the rows whose first pixel is 1."""

    def __init__(self, graph: Callable[..., Outputs], spoil: float | None = None) -> None:
        self.graph, self.spoil = graph, spoil

    def __call__(self, images: np.ndarray, *noise: np.ndarray) -> Outputs:
        if self.spoil is None:
            raise RuntimeError("the graph broke")
        outputs = self.graph(images, *noise)
        for values in outputs.values():
            values[images[:, 0, 0, 0] == 1] = self.spoil
        return outputs


class Kept:
    """A graph that keeps the images it was given."""

    def __init__(self, graph: Linear) -> None:
        self.graph = graph
        self.seen: list[np.ndarray] = []

    def __call__(self, images: np.ndarray) -> Outputs:
        self.seen.append(images)
        return self.graph(images)


class Rebuilt:
    """A gate's graph for images whose reconstruction is grey; keeps what it was shown."""

    def __init__(self) -> None:
        self.auxiliary = Linear(3, 55, sharp=2.0)
        self.seen: list[np.ndarray] = []

    def __call__(self, images: np.ndarray) -> Outputs:
        self.seen.append(images)
        error = np.square(images.reshape(len(images), -1) - np.float32(0.5)).sum(axis=1, keepdims=True) / np.float32(20)
        return {"error": error, "auxiliary": self.auxiliary(images)["probabilities"].copy()}


# scores of batches of noise lie on both sides of these thresholds
NOISE = {
    **CALIBRATION,
    "centres": [-2.5, 0.5],
    "spreads": [0.2, 0.3],
    "tail": [[1.0, -3.0], [0.3, 0.0], [0.01, 0.5]],
    "thresholds": [{"rate": 0.01, "score": 0.5, "low": None, "high": None}],
}
GATED = {**GATE, "calibration": NOISE}
PAYING = {**PAID_GATE, "calibration": NOISE}


def graphs() -> dict[str, Any]:
    members = {f"edm-{number}": Linear(3, number) for number in range(5)}
    return {"hash": Linear(10, 99), **members, "perturbation": Noisy(), "same": Rebuilt()}


def pipeline(
    changed: Mapping[str, Any] | None = None, /, *, clock: Callable[[], float] = lambda: 0.0, **changes: Any
) -> Pipeline:
    ticks = itertools.count()
    return Pipeline(
        Policy.parse(routed(**changes)),
        {**graphs(), **(changed or {})},
        key=KEY,
        now=lambda: float(next(ticks)),
        clock=clock,
        random=np.random.default_rng(3),
        entropy=np.random.default_rng(4).bytes,
    )


def batch(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, *SHAPE), dtype=np.float32)


def test_each_row_is_answered_by_the_member_its_hash_names_in_request_order() -> None:
    nets, images = graphs(), batch(64)
    answers = pipeline(nets)(images)
    q = nets["hash"](images)["probabilities"].astype(np.float64)
    values = 2 * q.argmax(1) + np.minimum(np.floor(2 * (10 * q.max(1) - 1) / 9), 1).astype(int)
    members = member_table(KEY, values=20, members=5)[values]
    assert len(set(members.tolist())) == 5, "the batch must reach every member for this test to say anything"
    assert answers.members.tolist() == members.tolist()
    assert answers.probabilities is not None
    for row, member in enumerate(members):
        alone = nets[f"edm-{member}"](images[row : row + 1])["probabilities"]
        np.testing.assert_array_equal(answers.probabilities[row], alone[0])
        assert answers.labels[row] == alone.argmax()
    assert answers.decisions == ("answer",) * 64


def test_each_graph_runs_once_on_its_own_rows() -> None:
    nets = graphs()
    answers = pipeline(nets)(batch(64))
    assert nets["hash"].asked == [64]
    for number, rows in enumerate(np.bincount(answers.members, minlength=5).tolist()):
        assert nets[f"edm-{number}"].asked == ([rows] if rows else [])


@given(
    images=arrays(np.float32, st.tuples(st.integers(1, 9), *map(st.just, SHAPE)), elements=st.floats(0, 1, width=32))
)
def test_a_batch_of_n_is_n_batches_of_one(images: np.ndarray) -> None:
    ask_ = pipeline()
    together, alone = ask_(images), [ask_(images[row : row + 1]) for row in range(len(images))]
    assert together.members.tolist() == [int(each.members[0]) for each in alone]
    assert together.labels.tolist() == [int(each.labels[0]) for each in alone]
    for row, each in enumerate(alone):
        assert together.probabilities is not None
        assert each.probabilities is not None
        np.testing.assert_array_equal(together.probabilities[row], each.probabilities[0])


def averaging(changed: Mapping[str, Any] | None = None, /, **changes: Any) -> Pipeline:
    return pipeline(changed, average=True, route=None, **changes)


def test_the_mean_of_three_answers_worked_out_by_hand() -> None:
    served = ([0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.125, 0.625])

    def member(row: list[float]) -> Callable[[np.ndarray], Outputs]:
        return lambda images: {"probabilities": np.tile(np.float32(row), (len(images), 1))}

    members = {f"edm-{number}": member(row) for number, row in enumerate(served)}
    answers = averaging(members, members=list(members))(batch(2))
    assert answers.probabilities is not None
    np.testing.assert_allclose(answers.probabilities, [[7 / 24, 9 / 24, 8 / 24]] * 2, rtol=1e-6)
    assert answers.probabilities.dtype == np.float32
    assert answers.labels.tolist() == [1, 1]  # though it is the first choice of one of three
    assert answers.members.tolist() == [EVERY, EVERY]


def test_every_member_is_asked_once_and_none_keeps_what_it_answered_from_the_next_batch() -> None:
    nets, images = graphs(), batch(16)
    ask_ = averaging(nets)
    first, again = ask_(images), ask_(images)
    assert [nets[f"edm-{number}"].asked for number in range(5)] == [[16, 16]] * 5
    assert nets["hash"].asked == []
    assert first.probabilities is not None
    assert again.probabilities is not None
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    everyone = np.stack([nets[f"edm-{number}"](images)["probabilities"] for number in range(5)])
    np.testing.assert_allclose(first.probabilities, everyone.mean(0), atol=1e-6)


@given(
    images=arrays(np.float32, st.tuples(st.integers(1, 9), *map(st.just, SHAPE)), elements=st.floats(0, 1, width=32)),
    data=st.data(),
)
def test_no_row_s_mean_depends_on_the_other_rows(images: np.ndarray, data: st.DataObject) -> None:
    ask_ = averaging(perturb=KEYED)
    order = data.draw(st.permutations(range(len(images))))
    together, shuffled = ask_(images).probabilities, ask_(images[order]).probabilities
    assert together is not None
    assert shuffled is not None
    np.testing.assert_array_equal(together[order], shuffled)
    for row in range(len(images)):
        alone = ask_(images[row : row + 1]).probabilities
        assert alone is not None
        np.testing.assert_array_equal(together[row], alone[0])


@pytest.mark.parametrize("spoil", [np.nan, np.inf, -1.0, 2.0])
def test_a_row_that_one_member_spoils_has_no_mean_and_its_neighbours_have(spoil: float) -> None:
    nets, images = graphs(), batch(8)
    images[:, 0, 0, 0] = 0.5
    images[[2, 5], 0, 0, 0] = 1.0
    ask_ = averaging({**nets, "edm-3": Broken(nets["edm-3"], spoil)}, on_stage_error="open")
    with pytest.raises(StageError) as caught:
        ask_(images)
    assert caught.value.stage == "predict"
    assert caught.value.rows.tolist() == [2, 5]
    whole = np.array([0, 1, 3, 4, 6, 7])
    asked, plain = ask_(images[whole]).probabilities, averaging(nets)(images[whole]).probabilities
    assert asked is not None
    assert plain is not None
    np.testing.assert_array_equal(asked, plain)


def test_without_one_member_there_is_no_mean_of_the_others() -> None:
    nets = graphs()
    with pytest.raises(StageError, match="the graph broke") as caught:
        averaging({**nets, "edm-1": Broken(nets["edm-1"])})(batch(3))
    assert caught.value.rows.tolist() == [0, 1, 2]


def test_rule_and_gate_see_the_mean() -> None:
    nets, images = graphs(), batch(32)
    shown = averaging(nets, response={"rule": "rounded", "digits": 2}).__call__(images)
    mean = averaging(nets)(images).probabilities
    assert shown.probabilities is not None
    assert mean is not None
    assert np.abs(shown.probabilities - mean).max() <= 0.02
    gated = averaging(nets, gate=GATED)(images)
    one = pipeline(nets, gate=GATED)(images)
    assert gated.scores is not None
    assert one.scores is not None
    assert not np.array_equal(gated.scores.score, one.scores.score)


def test_seconds_are_those_of_the_clock_that_was_handed_in() -> None:
    readings = iter([10.0, 11.0, 13.0, 17.0])
    policy = Policy.parse(routed())
    answers = Pipeline(
        policy, graphs(), key=KEY, now=lambda: next(readings), clock=lambda: 0.0, random=RANDOM, entropy=RANDOM.bytes
    )(batch(3))
    assert answers.seconds == {"route": 1.0, "predict": 2.0, "respond": 4.0}


def test_without_a_route_the_one_member_answers_the_batch_as_it_came() -> None:
    seen = []

    def victim(images: np.ndarray) -> Outputs:
        seen.append(images)
        return Linear(3, 0)(images)

    images = batch(4)
    answers = Pipeline(
        Policy.parse(section()),
        {"victim": victim},
        key=None,
        now=lambda: 0.0,
        clock=lambda: 0.0,
        random=RANDOM,
        entropy=RANDOM.bytes,
    )(images)
    assert seen[0] is images, "not copied"
    assert answers.members.tolist() == [0, 0, 0, 0]
    assert set(answers.seconds) == {"predict", "respond"}


@pytest.mark.parametrize("rule", [{"rule": "label"}, {"rule": "top_k", "k": 1}, {"rule": "rounded", "digits": 1}])
def test_the_response_rule_shapes_what_is_shown_and_not_the_label(rule: dict[str, Any]) -> None:
    images = batch(32)
    plain, ruled = pipeline()(images), pipeline(response=rule)(images)
    assert ruled.labels.tolist() == plain.labels.tolist()
    assert plain.probabilities is not None
    built = registry.RULES[rule["rule"]](**{k: v for k, v in rule.items() if k != "rule"})
    expected = built(plain.probabilities, Context({}, RANDOM))
    if expected is None:
        assert ruled.probabilities is None
    else:
        np.testing.assert_array_equal(ruled.probabilities, expected)


def test_a_rule_that_moves_the_largest_entry_moves_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reversed(Rule):
        keeps_label = False

        def __call__(self, probabilities: Probabilities, context: Context, /) -> Probabilities:
            return probabilities[:, ::-1]

    monkeypatch.setitem(registry.RULES, "reversed", dataclasses.dataclass(frozen=True)(Reversed))
    images = batch(8)
    assert pipeline(response={"rule": "reversed"})(images).labels.tolist() == (2 - pipeline()(images).labels).tolist()


def test_a_failed_predictor_fails_closed_and_names_its_rows() -> None:
    images = batch(64)
    members = pipeline()(images).members
    for mode in ("closed", "open"):
        with pytest.raises(StageError, match=r"stage 'predict' failed on .* RuntimeError: the graph broke") as caught:
            pipeline({"edm-2": Broken(Linear(3, 2))}, on_stage_error=mode)(images)
        assert caught.value.stage == "predict"
        assert isinstance(caught.value.cause, RuntimeError)
        assert caught.value.rows.tolist() == np.flatnonzero(members == 2).tolist()


def test_a_failed_route_fails_closed() -> None:
    with pytest.raises(StageError, match="stage 'route' failed on 6 rows: RuntimeError: the graph broke") as caught:
        pipeline({"hash": Broken(Linear(10, 99))})(batch(6))
    assert caught.value.rows.tolist() == [0, 1, 2, 3, 4, 5]


def test_an_open_route_sends_the_rows_it_failed_on_to_member_0_and_says_so() -> None:
    images = batch(12)
    images[[2, 7], 0, 0, 0] = 1
    spoiled = pipeline({"hash": Broken(Linear(10, 99), np.nan)}, on_stage_error="open")(images)
    plain = pipeline()(images)
    assert [row for row, said in enumerate(spoiled.decisions) if said == "answer-open"] == [2, 7]
    assert spoiled.members[[2, 7]].tolist() == [0, 0]
    assert spoiled.opened is not None
    assert spoiled.opened.rows.tolist() == [2, 7]
    assert plain.opened is None
    others = [row for row in range(12) if row not in (2, 7)]
    assert spoiled.members[others].tolist() == plain.members[others].tolist()
    broken = pipeline({"hash": Broken(Linear(10, 99))}, on_stage_error="open")(images)
    assert broken.decisions == ("answer-open",) * 12
    assert broken.members.tolist() == [0] * 12
    assert isinstance(broken.opened, StageError)
    assert isinstance(broken.opened.cause, RuntimeError)


@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf, 0.0, 0.5])
@pytest.mark.parametrize("stage", ["route", "predict"])
def test_rows_that_are_no_distribution_fail_their_stage_and_only_they(stage: str, spoil: float) -> None:
    images = batch(12)
    images[[3, 9], 0, 0, 0] = 1
    nets = graphs()
    spoiled = {name: Broken(nets[name], spoil) for name in nets if (name == "hash") == (stage == "route")}
    with pytest.raises(StageError, match=r"GraphError: .* not finite or not normalised") as caught:
        pipeline(spoiled)(images)
    assert caught.value.stage == stage
    assert caught.value.rows.tolist() == [3, 9]


def test_a_row_with_negative_entries_is_no_distribution() -> None:
    assert sound({"probabilities": np.array([[2.0, -1.0], [0.5, 0.5]], np.float32)}).tolist() == [False, True]


def test_another_output_needs_only_be_finite_and_what_is_not_read_is_left_out() -> None:
    def graph(images: np.ndarray) -> Outputs:
        return {
            "features": np.array([[5.0, -3.0], [np.inf, 0.0]], np.float32),
            "unread": np.zeros(0, np.float32),
        }

    outputs = ask(graph, batch(2), {"features": 2})
    assert set(outputs) == {"features"}
    assert sound(outputs).tolist() == [True, False]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            {"logits": np.zeros((2, 3), np.float32)},
            "expected an output named 'probabilities', the graph has logits",
        ),
        ({"probabilities": np.zeros((2, 4), np.float32)}, r"expected float32 \(2, 3\), got float32 \(2, 4\)"),
        ({"probabilities": np.zeros((2, 3))}, r"expected float32 \(2, 3\), got float64 \(2, 3\)"),
    ],
)
def test_a_graph_with_other_outputs_is_an_error(outputs: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        ask(lambda _: outputs, batch(2), {"probabilities": 3})


def test_a_failing_rule_is_a_failed_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pipeline()

    def fail(self: registry.Soft, probabilities: Probabilities, context: Context) -> Probabilities:
        raise ArithmeticError("no response")

    monkeypatch.setattr(registry.Soft, "__call__", fail)
    with pytest.raises(StageError, match="stage 'respond' failed on 2 rows: ArithmeticError: no response"):
        asked(batch(2))


@pytest.mark.parametrize("name", ["hash", "perturbation", "edm-0", "same"])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_is_no_fault_of_a_stage_passes(name: str, error: type[BaseException]) -> None:
    def graph(images: np.ndarray, *noise: np.ndarray) -> Outputs:
        raise error

    asked = pipeline({name: graph}, perturb=FRESH, gate=GATED, on_stage_error="open")
    with pytest.raises(error):
        asked(batch(64))


@pytest.mark.parametrize(
    "images",
    [batch(0), batch(2).astype(np.float64), batch(2)[:, :, :3], batch(2)[0]],
)
def test_images_of_another_kind_are_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected float32 \(N >= 1, \(1, 4, 5\)\), got"):
        pipeline()(images)


def test_a_missing_graph_and_a_missing_key_are_errors_at_construction() -> None:
    policy = Policy.parse(routed())
    without = {name: graph for name, graph in graphs().items() if name != "edm-3"}
    others = "hash, edm-0, edm-1, edm-2, edm-4, perturbation, same"
    with pytest.raises(PolicyError, match=f"expected a graph named 'edm-3', got {others}"):
        Pipeline(policy, without, key=KEY, now=lambda: 0.0, clock=lambda: 0.0, random=RANDOM, entropy=RANDOM.bytes)
    with pytest.raises(PolicyError, match="the route 'class-confidence' draws its table from a key, got none"):
        Pipeline(policy, graphs(), key=None, now=lambda: 0.0, clock=lambda: 0.0, random=RANDOM, entropy=RANDOM.bytes)


@pytest.mark.parametrize("perturb", [None, KEYED])
def test_no_repr_shows_the_key_or_the_table(perturb: dict[str, Any] | None) -> None:
    asked = pipeline(perturb=perturb)
    table = member_table(KEY, values=20, members=5)
    answers = asked(batch(2))
    assert isinstance(answers, Answers)
    for shown in (
        repr(asked),
        repr(asked.policy),
        str(vars(asked)),
        repr(StageError("route", ValueError(), table)),
    ):
        assert KEY.hex() not in shown
        assert repr(KEY) not in shown
        assert str(table) not in shown
        assert str(table.tolist()) not in shown


MAD = {"rule": "mad", "epsilon": 1.5, "keep_label": False}


def test_a_rule_is_handed_its_graph_s_answers_to_the_same_rows() -> None:
    images, surrogate = batch(32), Linear(3, 77)
    plain, poisoned = pipeline()(images), pipeline({"surrogate": surrogate}, response=MAD)(images)
    assert surrogate.asked == [32]
    assert plain.probabilities is not None
    assert poisoned.probabilities is not None
    context = Context({"surrogate": surrogate(images)}, RANDOM)
    expected = registry.RULES["mad"](epsilon=1.5, keep_label=False)(plain.probabilities, context)
    np.testing.assert_array_equal(poisoned.probabilities, expected)
    assert poisoned.labels.tolist() == expected.argmax(axis=1).tolist()
    assert poisoned.labels.tolist() != plain.labels.tolist()
    assert poisoned.members.tolist() == plain.members.tolist()


@given(
    images=arrays(np.float32, st.tuples(st.integers(1, 9), *map(st.just, SHAPE)), elements=st.floats(0, 1, width=32))
)
@pytest.mark.parametrize("rule", [MAD, {"rule": "randp", "epsilon": 0.8}])
def test_a_batch_of_n_is_n_batches_of_one_with_any_rule(rule: dict[str, Any], images: np.ndarray) -> None:
    graph = {"surrogate": Linear(3, 77)}
    together, one = pipeline(graph, response=rule)(images), pipeline(graph, response=rule)
    for row in range(len(images)):
        alone = one(images[row : row + 1])
        assert together.probabilities is not None
        assert alone.probabilities is not None
        np.testing.assert_array_equal(together.probabilities[row], alone.probabilities[0])


def test_noise_is_that_of_the_generator_that_was_handed_in() -> None:
    images, rule = batch(8), {"rule": "randp", "epsilon": 0.8}
    asked, again = pipeline(response=rule), pipeline(response=rule)
    first, second = asked(images), asked(images)
    np.testing.assert_array_equal(first.probabilities, again(images).probabilities)
    assert first.probabilities is not None
    assert second.probabilities is not None
    assert not np.array_equal(first.probabilities, second.probabilities)
    assert first.labels.tolist() == second.labels.tolist()


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_a_failed_surrogate_fails_closed_and_names_its_rows(mode: str) -> None:
    images = batch(12)
    images[[3, 9], 0, 0, 0] = 1
    spoiled = pipeline({"surrogate": Broken(Linear(3, 77), np.nan)}, response=MAD, on_stage_error=mode)
    with pytest.raises(StageError, match=r"'respond' failed on 2 rows: GraphError: .* rule's graph is not finite") as e:
        spoiled(images)
    assert e.value.rows.tolist() == [3, 9]
    broken = pipeline({"surrogate": Broken(Linear(3, 77))}, response=MAD, on_stage_error=mode)
    with pytest.raises(StageError, match="'respond' failed on 12 rows: RuntimeError: the graph broke"):
        broken(images)


def test_a_missing_surrogate_is_an_error_at_construction() -> None:
    with pytest.raises(PolicyError, match="expected a graph named 'surrogate', got hash, edm-0"):
        pipeline(response=MAD)


def test_the_hash_sees_what_was_sent_and_all_that_comes_after_sees_the_perturbed_images() -> None:
    images, noisy = batch(64), Noisy()
    plain, surrogate = graphs(), Kept(Linear(3, 77))
    kept = {name: Kept(graph) for name, graph in plain.items() if name != "perturbation"}
    asked = pipeline({**kept, "perturbation": noisy, "surrogate": surrogate}, perturb=FRESH, response=MAD)
    answers = asked(images)
    assert kept["hash"].seen[0] is images, "as they came"
    ((known, noise),) = noisy.given
    assert known is images
    assert noise.shape == (64, *SHAPE)
    assert noise.dtype == np.float32
    shown = images + noise / 4
    np.testing.assert_array_equal(surrogate.seen[0], shown)
    assert answers.members.tolist() == pipeline()(images).members.tolist()
    for number in range(5):
        np.testing.assert_array_equal(kept[f"edm-{number}"].seen[0], shown[answers.members == number])


def test_keyed_noise_is_drawn_for_the_image_in_8_bits_and_that_is_what_is_perturbed() -> None:
    images, noisy = batch(6), Noisy()
    asked = pipeline({"perturbation": noisy}, perturb=KEYED)
    asked(images)
    levels = (np.rint(images * np.float32(255)) / np.float32(255)).astype(np.float32)
    assert not np.array_equal(levels, images)
    asked(levels)
    (known, noise), (known_again, noise_again) = noisy.given
    np.testing.assert_array_equal(known, levels)
    np.testing.assert_array_equal(known_again, levels)
    np.testing.assert_array_equal(noise, noise_again)


@given(
    images=arrays(np.float32, st.tuples(st.integers(1, 9), *map(st.just, SHAPE)), elements=st.floats(0, 1, width=32))
)
def test_a_batch_of_n_is_n_batches_of_one_with_keyed_noise(images: np.ndarray) -> None:
    ask_ = pipeline(perturb=KEYED)
    together, alone = ask_(images), [ask_(images[row : row + 1]) for row in range(len(images))]
    assert together.members.tolist() == [int(each.members[0]) for each in alone]
    for row, each in enumerate(alone):
        assert together.probabilities is not None
        assert each.probabilities is not None
        np.testing.assert_array_equal(together.probabilities[row], each.probabilities[0])


def test_asking_again_is_no_news_under_keyed_noise_and_is_under_fresh() -> None:
    same = np.repeat(batch(1), 8, axis=0)
    keyed, fresh = pipeline(perturb=KEYED), pipeline(perturb=FRESH)

    def answers_of(asked: Pipeline) -> set[bytes]:
        answers = [asked(same).probabilities, asked(same).probabilities]
        return {row.tobytes() for each in answers if each is not None for row in each}

    assert len(answers_of(keyed)) == 1
    assert len(answers_of(fresh)) == 16, "a draw for every row, never one for the batch"


def test_fresh_noise_follows_from_the_entropy_that_was_handed_in() -> None:
    images, asked, again = batch(8), pipeline(perturb=FRESH), pipeline(perturb=FRESH)
    for _ in range(2):
        np.testing.assert_array_equal(asked(images).probabilities, again(images).probabilities)


def test_another_period_of_the_clock_is_another_draw() -> None:
    images, now = batch(8), [0.0]
    asked = pipeline(perturb={**KEYED, "period": 60.0}, clock=lambda: now[0])

    def at(seconds: float) -> list[list[float]]:
        now[0] = seconds
        shown = asked(images).probabilities
        assert shown is not None
        return [list(row) for row in shown.tolist()]

    first = at(0.0)
    assert at(59.0) == first
    moved = at(60.0)
    assert all(one != other for one, other in zip(first, moved, strict=True))
    assert at(1.0) == first


def test_perturbed_gives_what_the_members_are_shown() -> None:
    images = batch(6)
    assert pipeline().perturbed(images) is images
    member = Kept(Linear(3, 0))
    keyed = pipeline({"edm-0": member}, perturb=KEYED, members=["edm-0"], route=None)
    shown = keyed.perturbed(images)
    keyed(images)
    np.testing.assert_array_equal(member.seen[0], shown)
    np.testing.assert_array_equal(keyed.perturbed(images), shown)
    fresh = pipeline(perturb=FRESH)
    draws = [fresh.perturbed(images) for _ in range(2)]
    assert draws[0].shape == images.shape
    assert not (draws[0] == draws[1]).any()


def test_the_perturbation_s_seconds_are_its_own() -> None:
    readings = iter([10.0, 11.0, 13.0, 17.0, 25.0])
    answers = Pipeline(
        Policy.parse(routed(perturb=FRESH)),
        graphs(),
        key=KEY,
        now=lambda: next(readings),
        clock=lambda: 0.0,
        random=RANDOM,
        entropy=RANDOM.bytes,
    )(batch(3))
    assert answers.seconds == {"route": 1.0, "perturb": 2.0, "predict": 4.0, "respond": 8.0}


@pytest.mark.parametrize("mode", ["closed", "open"])
@pytest.mark.parametrize("perturb", [FRESH, KEYED])
def test_a_failed_perturbation_fails_closed_and_names_its_rows(perturb: dict[str, Any], mode: str) -> None:
    images = batch(12)
    images[[3, 9], 0, 0, 0] = 1
    member = Kept(Linear(3, 0))
    for spoil in (np.nan, np.inf):
        broken = {"perturbation": Broken(Noisy(), spoil), "edm-0": member}
        spoiled = pipeline(broken, perturb=perturb, on_stage_error=mode)
        with pytest.raises(StageError, match=r"'perturb' failed on 2 rows: GraphError: .* not finite") as caught:
            spoiled(images)
        assert caught.value.stage == "perturb"
        assert caught.value.rows.tolist() == [3, 9]
        with pytest.raises(StageError, match="'perturb' failed on 2 rows"):
            spoiled.perturbed(images)
    broken = {"perturbation": Broken(Noisy()), "edm-0": member}
    with pytest.raises(StageError, match="'perturb' failed on 12 rows: RuntimeError: the graph broke"):
        pipeline(broken, perturb=perturb, on_stage_error=mode)(images)
    assert member.seen == [], "no member saw an image without its noise"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"images": np.zeros((2, 20), np.float32)}, "expected an output named 'perturbed', the graph has images"),
        ({"perturbed": np.zeros((2, *SHAPE), np.float32)}, r"expected float32 \(2, 20\), got float32 \(2, 1, 4, 5\)"),
        ({"perturbed": np.zeros((2, 20))}, r"expected float32 \(2, 20\), got float64 \(2, 20\)"),
    ],
)
def test_a_perturbation_with_other_outputs_fails_closed(outputs: Any, message: str) -> None:
    with pytest.raises(StageError, match=f"'perturb' failed on 2 rows: GraphError: .*{message}"):
        pipeline({"perturbation": lambda *_: outputs}, perturb=FRESH)(batch(2))


def test_a_draw_that_fails_fails_closed() -> None:
    def clock() -> float:
        raise OSError("no time")

    with pytest.raises(StageError, match="'perturb' failed on 3 rows: OSError: no time"):
        pipeline(perturb={**KEYED, "period": 60}, clock=clock, on_stage_error="open")(batch(3))


def test_a_missing_perturbation_and_a_missing_key_for_its_noise_are_errors_at_construction() -> None:
    rest: dict[str, Any] = {
        "now": lambda: 0.0,
        "clock": lambda: 0.0,
        "random": RANDOM,
        "entropy": RANDOM.bytes,
    }
    victim = {"victim": Linear(3, 0)}
    with pytest.raises(PolicyError, match="expected a graph named 'perturbation', got victim"):
        Pipeline(Policy.parse(section(perturb=FRESH)), victim, key=None, **rest)
    policy = Policy.parse(section(perturb=KEYED, key_env="TORCHWARDEN_KEY"))
    with pytest.raises(PolicyError, match="keyed noise is drawn from a key, got none"):
        Pipeline(policy, {**victim, "perturbation": Noisy()}, key=None, **rest)


def expected_scores(images: np.ndarray, served: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Terms and scores under GATED, from the formulas, row by row."""
    error = np.square(images.reshape(len(images), -1).astype(np.float64) - 0.5).mean(axis=1)
    auxiliary = Linear(3, 55, sharp=2.0)(images)["probabilities"].astype(np.float64)
    hellinger = np.sqrt((1 - np.sqrt(served.astype(np.float64) * auxiliary).sum(axis=1)).clip(min=0))
    terms = np.stack([np.log(error), hellinger], axis=1)
    return terms, 0.5 * (terms[:, 0] + 2.5) / 0.2 + 0.5 * (terms[:, 1] - 0.5) / 0.3


@pytest.mark.parametrize("action", ["observe", "reject", "proof-of-work"])
def test_each_row_is_scored_by_what_was_sent_and_what_was_predicted(action: str) -> None:
    images, rebuilt = batch(64), Rebuilt()
    section_ = PAYING if action == "proof-of-work" else {**GATED, "action": action}
    asked, plain = pipeline({"same": rebuilt}, gate=section_), pipeline()(images)
    answers = asked(images)
    assert rebuilt.seen[0] is images, "once, as they came"
    assert len(rebuilt.seen) == 1
    assert answers.scores is not None
    assert plain.probabilities is not None
    terms, score = expected_scores(images, plain.probabilities)
    np.testing.assert_allclose(answers.scores.terms, terms, atol=1e-5)
    np.testing.assert_allclose(answers.scores.score, score, atol=1e-5)
    assert (np.abs(score - 0.5) > 1e-4).all(), "no row may lie on the threshold for this test to say anything"
    above = (score > 0.5).tolist()
    assert 10 < sum(above) < 54
    assert answers.decisions == tuple(action if far else "answer" for far in above)
    assert (answers.work > 0).tolist() == [far and action == "proof-of-work" for far in above]
    assert len(set(answers.work.tolist())) > 2 or action != "proof-of-work"
    gate = asked.policy.gate
    assert gate is not None
    np.testing.assert_array_equal(answers.scores.tail, gate.calibration.probability(answers.scores.score))
    # the gate moves no answer
    assert answers.labels.tolist() == plain.labels.tolist()
    np.testing.assert_array_equal(answers.probabilities, plain.probabilities)


def test_the_gate_judges_the_predictor_s_answer_and_not_what_the_rule_shows_of_it() -> None:
    images = batch(32)
    shown = [
        pipeline(gate=GATED, response=rule)(images)
        for rule in ({"rule": "soft"}, {"rule": "label"}, {"rule": "top_k", "k": 1})
    ]
    for answers in shown:
        assert answers.scores is not None
        assert shown[0].scores is not None
        np.testing.assert_array_equal(answers.scores.score, shown[0].scores.score)


def test_the_gate_sees_images_without_the_noise_and_the_answer_to_those_with_it() -> None:
    images, rebuilt = batch(16), Rebuilt()
    answers = pipeline({"same": rebuilt}, gate=GATED, perturb=FRESH)(images)
    assert rebuilt.seen[0] is images
    noisy = pipeline(perturb=FRESH)(images)
    assert noisy.probabilities is not None
    assert answers.scores is not None
    terms, _ = expected_scores(images, noisy.probabilities)
    np.testing.assert_allclose(answers.scores.terms, terms, atol=1e-5)
    assert not np.allclose(terms[:, 1], expected_scores(images, graphs()["edm-0"](images)["probabilities"])[0][:, 1])


@given(
    images=arrays(np.float32, st.tuples(st.integers(1, 9), *map(st.just, SHAPE)), elements=st.floats(0, 1, width=32)),
    data=st.data(),
)
def test_no_row_s_score_depends_on_the_other_rows_paid_or_not(images: np.ndarray, data: st.DataObject) -> None:
    asked = pipeline(gate=PAYING)
    paid = data.draw(arrays(np.bool_, len(images)))
    together = asked(images, paid)
    assert (together.scores is None) == paid.all()
    for row in range(len(images)):
        alone = asked(images[row : row + 1], paid[row : row + 1])
        assert together.decisions[row] == alone.decisions[0]
        assert together.work[row] == alone.work[0]
        if not paid[row]:
            assert alone.scores is not None
            assert together.scores is not None
            np.testing.assert_array_equal(together.scores.terms[row], alone.scores.terms[0])
            assert together.scores.score[row] == alone.scores.score[0]
            assert together.scores.tail[row] == alone.scores.tail[0]


def test_rows_that_are_paid_for_are_not_scored() -> None:
    images, rebuilt = batch(12), Rebuilt()
    paid = np.arange(12) % 3 == 0
    answers = pipeline({"same": rebuilt}, gate=PAYING)(images, paid)
    np.testing.assert_array_equal(rebuilt.seen[0], images[~paid])
    assert [row for row, said in enumerate(answers.decisions) if said == "paid"] == [0, 3, 6, 9]
    assert answers.scores is not None
    for values in (answers.scores.terms[:, 0], answers.scores.terms[:, 1], answers.scores.score, answers.scores.tail):
        assert np.isnan(values).tolist() == paid.tolist()
    assert answers.work[paid].tolist() == [0.0] * 4
    plain = pipeline()(images)
    np.testing.assert_array_equal(answers.probabilities, plain.probabilities)


def test_where_all_is_paid_for_the_gate_s_graph_does_not_run() -> None:
    rebuilt = Rebuilt()
    answers = pipeline({"same": rebuilt}, gate=PAYING)(batch(3), np.ones(3, np.bool_))
    assert rebuilt.seen == []
    assert answers.scores is None
    assert answers.decisions == ("paid",) * 3
    assert answers.work.tolist() == [0.0] * 3


@pytest.mark.parametrize("action", ["observe", "reject"])
def test_what_has_no_price_cannot_be_paid_for(action: str) -> None:
    images, asked = batch(32), pipeline(gate={**GATED, "action": action})
    answers = asked(images, np.ones(32, np.bool_))
    assert answers.decisions == asked(images).decisions
    assert set(answers.decisions) == {"answer", action}


def test_without_a_gate_there_are_no_scores_and_no_work() -> None:
    answers = pipeline()(batch(3), np.ones(3, np.bool_))
    assert answers.scores is None
    assert answers.work.tolist() == [0.0] * 3
    assert answers.decisions == ("answer",) * 3


@pytest.mark.parametrize("paid", [np.zeros(2, np.bool_), np.zeros(3), np.zeros((3, 1), np.bool_)])
def test_what_is_paid_is_a_flag_a_row(paid: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"paid: expected bool \(3,\), got (bool|float64) \("):
        pipeline(gate=PAYING)(batch(3), paid)


class Spoiled:
    """A gate's graph that spoils one output of the rows whose first pixel is 1."""

    def __init__(self, output: str, value: float) -> None:
        self.output, self.value = output, value

    def __call__(self, images: np.ndarray) -> Outputs:
        outputs = Rebuilt()(images)
        outputs[self.output][images[:, 0, 0, 0] == 1] = self.value
        return outputs


SPOILT = [("error", np.nan), ("error", np.inf), ("auxiliary", np.nan), ("auxiliary", 0.5), ("auxiliary", 0.0)]


@pytest.mark.parametrize(("output", "value"), SPOILT)
@pytest.mark.parametrize("section_", [GATED, PAYING])
def test_a_gate_fails_closed_on_the_rows_it_cannot_judge(section_: dict[str, Any], output: str, value: float) -> None:
    images = batch(12)
    images[[3, 9], 0, 0, 0] = 1
    with pytest.raises(StageError, match=r"'gate' failed on 2 rows: GraphError: the gate's output is not finite") as e:
        pipeline({"same": Spoiled(output, value)}, gate=section_)(images)
    assert e.value.stage == "gate"
    assert e.value.rows.tolist() == [3, 9]


@pytest.mark.parametrize(("output", "value"), SPOILT)
def test_an_open_gate_lets_the_rows_pass_that_it_cannot_judge_and_says_so(output: str, value: float) -> None:
    images = batch(12)
    images[[3, 9], 0, 0, 0] = 1
    answers = pipeline({"same": Spoiled(output, value)}, gate=GATED, on_stage_error="open")(images)
    sound_ = pipeline(gate=GATED)(images)
    assert [row for row, said in enumerate(answers.decisions) if said == "answer-open"] == [3, 9]
    others = [row for row in range(12) if row not in (3, 9)]
    assert [answers.decisions[row] for row in others] == [sound_.decisions[row] for row in others]
    assert "reject" in answers.decisions
    assert answers.scores is not None
    assert np.isnan(answers.scores.score).tolist() == [row in (3, 9) for row in range(12)]
    assert answers.opened is not None
    assert answers.opened.stage == "gate"
    assert answers.opened.rows.tolist() == [3, 9]


def test_a_broken_gate_names_the_rows_that_it_was_to_judge() -> None:
    images, paid = batch(6), np.array([True, False, False, True, False, False])
    broken = {"same": Broken(Rebuilt())}
    with pytest.raises(StageError, match="'gate' failed on 4 rows: RuntimeError: the graph broke") as caught:
        pipeline(broken, gate=PAYING)(images, paid)
    assert caught.value.rows.tolist() == [1, 2, 4, 5]
    answers = pipeline(broken, gate=PAYING, on_stage_error="open")(images, paid)
    assert answers.decisions == ("paid", "answer-open", "answer-open", "paid", "answer-open", "answer-open")
    assert answers.scores is None
    assert answers.work.tolist() == [0.0] * 6


def test_the_gate_s_word_on_a_row_outweighs_that_its_route_failed() -> None:
    images = batch(32)
    broken = pipeline({"hash": Broken(Linear(10, 99))}, gate=GATED, on_stage_error="open")(images)
    assert set(broken.decisions) == {"answer-open", "reject"}
    assert broken.opened is not None
    assert broken.opened.stage == "route"
    both = {"hash": Broken(Linear(10, 99)), "same": Broken(Rebuilt())}
    opened = pipeline(both, gate=GATED, on_stage_error="open")(images).opened
    assert opened is not None
    assert opened.stage == "gate", "the last one"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"error": np.zeros((2, 1), np.float32)}, "expected an output named 'auxiliary', the graph has error"),
        (
            {"error": np.zeros(2, np.float32), "auxiliary": np.full((2, 3), 1 / 3, np.float32)},
            r"error: expected float32 \(2, 1\), got float32 \(2,\)",
        ),
        (
            {"error": np.zeros((2, 1), np.float32), "auxiliary": np.full((2, 4), 1 / 4, np.float32)},
            r"auxiliary: expected float32 \(2, 3\), got float32 \(2, 4\)",
        ),
    ],
)
def test_a_gate_with_other_outputs_fails_closed(outputs: Any, message: str) -> None:
    with pytest.raises(StageError, match=f"'gate' failed on 2 rows: GraphError: {message}"):
        pipeline({"same": lambda _: outputs}, gate=GATED)(batch(2))


def test_the_gate_s_seconds_are_its_own() -> None:
    readings = iter([10.0, 11.0, 13.0, 17.0, 25.0])
    answers = Pipeline(
        Policy.parse(routed(gate=GATED)),
        graphs(),
        key=KEY,
        now=lambda: next(readings),
        clock=lambda: 0.0,
        random=RANDOM,
        entropy=RANDOM.bytes,
    )(batch(3))
    assert answers.seconds == {"route": 1.0, "predict": 2.0, "gate": 4.0, "respond": 8.0}


def test_a_missing_gate_is_an_error_at_construction() -> None:
    with pytest.raises(PolicyError, match="expected a graph named 'elsewhere', got hash, edm-0"):
        pipeline(gate={**GATED, "graph": "elsewhere"})


MARK = {"strength": 0.05, "parts": 2, "grid": 2, "width": 32}


def marked(rule: Mapping[str, Any], **changes: Any) -> Pipeline:
    return pipeline(mark=MARK, response=rule, **changes)


def test_a_mark_is_what_the_marker_makes_of_the_images_as_they_were_sent() -> None:
    images, accounts = batch(32), ["a", "b"] * 16
    plain = pipeline()(images)
    policy = Policy.parse(routed(mark=MARK))
    assert policy.mark is not None
    expected, whole = Marker(policy.mark, key=KEY, channels=1, classes=3)(images, plain.probabilities, accounts)
    answers = marked({"rule": "soft"})(images, accounts=accounts)
    assert np.array_equal(answers.probabilities, expected)
    assert np.array_equal(answers.whole, whole)
    assert np.array_equal(answers.labels, plain.labels)
    assert not np.array_equal(answers.probabilities, plain.probabilities)
    assert plain.whole is None
    # a perturbation does not move an image to another cell
    unmarked = pipeline(perturb=FRESH)(images)
    expected, _ = Marker(policy.mark, key=KEY, channels=1, classes=3)(images, unmarked.probabilities, accounts)
    assert np.array_equal(marked({"rule": "soft"}, perturb=FRESH)(images, accounts=accounts).probabilities, expected)


def test_a_mark_goes_in_before_what_tells_less_and_after_what_tells_otherwise() -> None:
    images = batch(32)
    soft = marked({"rule": "soft"})(images).probabilities
    second = marked({"rule": "top_k", "k": 2})(images).probabilities
    assert np.array_equal(second, np.where(second > 0, soft, 0))
    assert np.array_equal(marked({"rule": "rounded", "digits": 3})(images).probabilities, np.round(soft, 3))
    noise = {"rule": "randp", "epsilon": 0.1}
    distorted = pipeline(response=noise)(images)
    policy = Policy.parse(routed(mark=MARK))
    assert policy.mark is not None
    expected, _ = Marker(policy.mark, key=KEY, channels=1, classes=3)(images, distorted.probabilities, ["-"] * 32)
    assert np.array_equal(marked(noise)(images).probabilities, expected)


def test_rows_whose_accounts_are_not_said_are_of_the_shared_one() -> None:
    images = batch(16)
    answers = marked({"rule": "soft"})
    assert np.array_equal(answers(images).probabilities, answers(images, accounts=["-"] * 16).probabilities)
    assert not np.array_equal(answers(images).probabilities, answers(images, accounts=["a"] * 16).probabilities)
    with pytest.raises(ValueError, match="accounts: expected 16, got 1"):
        answers(images, accounts=["a"])


def test_a_mark_without_a_key_is_an_error() -> None:
    policy = Policy.parse(section(mark=MARK, key_env="TORCHWARDEN_KEY"))
    rest: dict[str, Any] = {"now": lambda: 0.0, "clock": lambda: 0.0, "random": RANDOM, "entropy": RANDOM.bytes}
    with pytest.raises(PolicyError, match="a mark is drawn from a key, got none"):
        Pipeline(policy, {"victim": Linear(3, 0)}, key=None, **rest)
