from __future__ import annotations

from typing import Any

import pytest

from defenses.budget import Budget
from defenses.mark import Mark
from defenses.noise import PerceptualCode
from defenses.policy import Perturb, Policy, PolicyError, Response, Route
from defenses.work import Work
from handlers import wire
from pictures.geometry import Geometry
from tests.defenses.policies import CALIBRATION, FRESH, GATE, KEYED, PAID_GATE, ROUTE, UNSCALED, routed, section


def test_a_routed_policy_is_read_whole() -> None:
    policy = Policy.parse(routed(response={"rule": "top_k", "k": 2}))
    assert policy.input == Geometry(channels=1, height=4, width=5)
    assert policy.input.shape == (1, 4, 5)
    assert policy.route == Route(hash="class-confidence", graph="hash", options={"classes": 10, "bins": 2})
    assert policy.response == Response(rule="top_k", options={"k": 2})
    assert policy.members == ("edm-0", "edm-1", "edm-2", "edm-3", "edm-4")
    assert policy.needs_key
    assert policy.graphs == {
        **{member: {"probabilities": 3} for member in policy.members},
        "hash": {"probabilities": 10},
    }


def test_the_graphs_of_a_response_rule_are_the_policy_s() -> None:
    mad = {"rule": "mad", "epsilon": 0.5}
    policy = Policy.parse(routed(response=mad))
    assert policy.graphs["surrogate"] == {"probabilities": 3}
    assert policy.consulted == {"surrogate": {"probabilities": 3}}
    other = Policy.parse(section(response={"rule": "grad", "epsilon": 0.5, "graph": "student"}))
    assert other.graphs == {"victim": {"probabilities": 3}, "student": {"redirection": 3}}
    assert Policy.parse(section()).consulted == {}


def test_a_perturbed_policy_is_read_whole() -> None:
    policy = Policy.parse(routed(perturb={**KEYED, "step": 32, "period": 3600}))
    assert policy.perturb == Perturb(
        graph="perturbation", noise_shape=(1, 4, 5), noise="keyed", perceptual=0.5, grid=2, step=32, period=3600
    )
    assert policy.perturb.code == PerceptualCode(grid=2, step=32)
    assert policy.graphs["perturbation"] == {"perturbed": 20}
    assert policy.consulted == {}
    plain = Policy.parse(section(perturb={"graph": "perturbation", "noise_shape": [44]}))
    assert plain.perturb == Perturb(graph="perturbation", noise_shape=(44,), noise="fresh", perceptual=0, period=0)


def test_keyed_noise_needs_the_key_and_fresh_noise_none() -> None:
    assert not Policy.parse(section(perturb=FRESH)).needs_key
    assert Policy.parse(section(perturb=KEYED, key_env="TORCHWARDEN_KEY")).needs_key
    assert Policy.parse(routed(perturb=FRESH)).needs_key
    needs = "key_env: expected an environment variable's name, {} a key, got null"
    with pytest.raises(PolicyError, match=needs.format("keyed noise needs")):
        Policy.parse(section(perturb=KEYED))
    with pytest.raises(PolicyError, match=needs.format("the route needs")):
        Policy.parse(routed(perturb=KEYED, key_env=None))


def test_what_may_be_left_out_has_the_safe_value() -> None:
    brief = section()
    for key in ("route", "max_rows", "on_stage_error", "key_env"):
        del brief[key]
    policy = Policy.parse(brief)
    assert policy.perturb is None
    assert (policy.route, policy.max_rows, policy.on_stage_error, policy.key_env) == (
        None,
        256,
        "closed",
        None,
    )
    assert not policy.needs_key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, r"unknown key 'colour'; known keys: recipe, policy, .*, key_env"),
        ({"recipe": "../digits"}, r"recipe: expected letters, digits, .* got '\.\./digits'"),
        ({"policy": ""}, r"policy: expected letters, digits, .* got ''"),
        ({"backend": None}, r"backend: expected letters.* got None"),
        ({"threads": 0}, r"threads: expected an integer from 1 to 1024, got 0"),
        ({"threads": True}, r"threads: expected an integer from 1 to 1024, got True"),
        ({"max_rows": 1.5}, r"max_rows: expected an integer from 1 to 65536, got 1\.5"),
        ({"on_stage_error": "ajar"}, r"on_stage_error: expected one of closed, open, got 'ajar'"),
        ({"input": [1, 28, 28]}, r"input: expected a table, got \[1, 28, 28\]"),
        (
            {"input": {"channels": 1, "height": 4}},
            r"input: missing key 'width'; keys: channels, height, width",
        ),
        (
            {"input": {"channels": 1, "height": 4, "width": 4, "depth": 2}},
            r"input: unknown key 'depth'; known",
        ),
        ({"input": {"channels": 2, "height": 4, "width": 4}}, r"input: channels: expected 1 or 3, got 2"),
        ({"input": {"channels": 1, "height": 0, "width": 4}}, r"input: height: expected an integer from 1"),
        ({"class_names": [0, 1]}, r"class_names: expected a list of strings \(quote numbers\), got \[0, 1\]"),
        ({"class_names": ["a", "a"]}, r"class_names: expected each name once, got \['a', 'a'\]"),
        ({"class_names": ["a"]}, r"class_names: their number: expected an integer from 2"),
        ({"members": []}, r"members: expected a list of strings"),
        ({"members": "victim"}, r"members: expected a list of strings"),
        ({"members": ["../x"]}, r"members: expected letters"),
        ({"members": ["a", "b"]}, r"route: expected a table, 2 members need one, or `average: true`, got null"),
        ({"average": True}, r"average: expected false, the one member needs none, got true"),
        ({"members": ["a", "b"], "average": 1}, r"average: expected true or false, got 1"),
        ({"route": ROUTE}, r"route: expected null, the one member needs none, got 'class-confidence'"),
        ({"response": {}}, r"response: missing key 'rule'; keys: rule, options"),
        (
            {"response": {"rule": "loud"}},
            r"response: rule: expected one of soft, label, top_k, rounded, steps, randp, .*, got 'loud'",
        ),
        ({"response": {"rule": []}}, r"response: rule: expected one of soft, .* got \[\]"),
        ({"response": {"rule": "soft", "k": 2}}, r"response: unknown key 'k'; known keys: none"),
        ({"response": {"rule": "top_k"}}, r"response: missing key 'k'; keys: k"),
        (
            {"response": {"rule": "top_k", "k": 4}},
            r"response: k: expected at most the number of classes, 3, got 4",
        ),
        (
            {"response": {"rule": "steps", "edges": [0.5], "confidences": [0.3, 0.9]}},
            r"response: confidences: expected the first above 1 / 3, got 0\.3",
        ),
        (
            {"response": {"rule": "rounded", "digits": 7}},
            r"response: digits: expected an integer from 1 to 6, got 7",
        ),
        ({"response": {"rule": "randp", "epsilon": 3}}, r"response: epsilon: expected a number above 0, at most 2"),
        ({"response": {"rule": "mad"}}, r"response: missing key 'epsilon'; keys: epsilon, keep_label, graph"),
        (
            {"response": {"rule": "mad", "epsilon": 1, "graph": "victim"}},
            r"response: graph: expected one that neither answers nor routes, got 'victim'",
        ),
        ({"key_env": "key"}, r"key_env: expected a name of A-Z, 0-9 and _, or null, got 'key'"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.parse(section(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"key_env": None},
            r"key_env: expected an environment variable's name, the route needs a key, got null",
        ),
        ({"route": {**ROUTE, "hash": "md5"}}, r"route: hash: expected one of class-confidence, projection, got 'md5'"),
        ({"route": {"hash": "projection", "graph": "hash", "depth": 2}}, r"expected 5 hash values or more, .* got 4"),
        ({"route": {**ROUTE, "salt": 1}}, r"route: unknown key 'salt'; known keys: classes, bins"),
        ({"route": {**ROUTE, "bins": 0}}, r"route: bins: expected an integer from 1 to 1000, got 0"),
        ({"route": {**ROUTE, "classes": 1}}, r"route: classes: expected an integer from 2"),
        (
            {"route": {**ROUTE, "graph": "edm-0"}},
            r"route: graph: expected a graph that is no member, got 'edm-0'",
        ),
        (
            {"response": {"rule": "grad", "epsilon": 1, "graph": "hash"}},
            r"response: graph: expected one that neither answers nor routes, got 'hash'",
        ),
        (
            {"route": {**ROUTE, "classes": 2, "bins": 2}},
            r"route: expected 5 hash values or more, one a member, got 4",
        ),
        ({"average": True}, r"average: expected false, the route 'class-confidence' picks one member, got true"),
    ],
)
def test_a_wrong_route_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.parse(routed(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perturb": []}, r"perturb: expected a table, got \[\]"),
        (
            {"perturb": {"graph": "perturbation"}},
            r"perturb: missing key 'noise_shape'; keys: graph, noise_shape, noise",
        ),
        ({"perturb": {**FRESH, "sigma": 1}}, r"perturb: unknown key 'sigma'; known keys: graph, .*, period"),
        ({"perturb": {**FRESH, "graph": "../x"}}, r"perturb: graph: expected letters, .* got '\.\./x'"),
        (
            {"perturb": {**FRESH, "graph": "victim"}},
            r"perturb: graph: expected one that neither answers nor routes, got",
        ),
        ({"perturb": {**FRESH, "noise": "pink"}}, r"perturb: noise: expected one of fresh, keyed, got 'pink'"),
        ({"perturb": {**FRESH, "perceptual": 0.5}}, r"perturb: perceptual, period: expected 0, fresh noise has no key"),
        ({"perturb": {**FRESH, "period": 60}}, r"perturb: perceptual, period: expected 0, fresh noise has no key"),
        ({"perturb": {**KEYED, "perceptual": -0.1}}, r"perturb: perceptual: expected a number from 0 to 1, got -0\.1"),
        ({"perturb": {**KEYED, "perceptual": 1.1}}, r"perturb: perceptual: expected a number from 0 to 1, got 1\.1"),
        ({"perturb": {**KEYED, "perceptual": True}}, r"perturb: perceptual: expected a number from 0 to 1, got True"),
        (
            {"perturb": {**KEYED, "perceptual": float("nan")}},
            r"perturb: perceptual: expected a number from 0 to 1, got",
        ),
        ({"perturb": {**KEYED, "period": -1}}, r"perturb: period: expected a number from 0 to 1e\+09, got -1"),
        ({"perturb": {**KEYED, "period": 0.5}}, r"perturb: period: expected 0 or at least 1 second, got 0\.5"),
        ({"perturb": {**KEYED, "period": "day"}}, r"perturb: period: expected a number from 0 to 1e\+09, got 'day'"),
        ({"perturb": {**KEYED, "grid": 0}}, r"perturb: grid: expected an integer from 1 to 64, got 0"),
        ({"perturb": {**KEYED, "grid": 5}}, r"perturb: grid: expected at most the image's side, 4, got 5"),
        ({"perturb": {**KEYED, "step": 256}}, r"perturb: step: expected an integer from 1 to 255, got 256"),
        (
            {"perturb": FRESH, "response": {"rule": "mad", "epsilon": 1, "graph": "perturbation"}},
            r"response: graph: expected one that neither answers nor routes, got 'perturbation'",
        ),
    ],
)
def test_a_wrong_perturbation_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.parse(section(**{"key_env": "TORCHWARDEN_KEY", **changes}))


@pytest.mark.parametrize("sizes", [[], [1, 2, 3, 4], [0, 4], [65537], [4.0], [True], 44, "44", None])
def test_a_wrong_shape_of_noise_is_named(sizes: object) -> None:
    with pytest.raises(PolicyError, match=r"perturb: noise_shape: expected one to three integers from 1 to 65536, got"):
        Policy.parse(section(perturb={**FRESH, "noise_shape": sizes}))


def test_a_perturbation_does_not_hash() -> None:
    with pytest.raises(PolicyError, match=r"perturb: graph: expected one that neither answers nor routes, got 'hash'"):
        Policy.parse(routed(perturb={**FRESH, "graph": "hash"}))


def test_the_gate_s_graph_is_the_policy_s() -> None:
    policy = Policy.parse(section(gate=GATE))
    assert policy.graphs == {"victim": {"probabilities": 3}, "same": {"error": 1, "auxiliary": 3}}
    assert policy.consulted == {}
    assert Policy.parse(section(gate=None)).gate is None
    assert Policy.parse(section()).gate is None


def test_proof_of_work_needs_the_key_and_no_other_action_does() -> None:
    assert Policy.parse(section(gate=PAID_GATE, key_env="TORCHWARDEN_KEY")).needs_key
    for action in ("observe", "reject"):
        assert not Policy.parse(section(gate={**GATE, "action": action})).needs_key
    with pytest.raises(PolicyError, match="expected an environment variable's name, proof of work needs a key, got nu"):
        Policy.parse(section(gate=PAID_GATE))


def test_the_gate_has_a_graph_of_its_own() -> None:
    taken = {"members": "edm-0", "route": "hash", "perturb": "perturbation", "response": "surrogate"}
    for graph in taken.values():
        with pytest.raises(PolicyError, match=f"gate: graph: expected one that nothing else reads, got '{graph}'"):
            Policy.parse(routed(perturb=FRESH, response={"rule": "mad", "epsilon": 1}, gate={**GATE, "graph": graph}))
    policy = Policy.parse(routed(perturb=FRESH, response={"rule": "mad", "epsilon": 1}, gate=GATE))
    assert set(policy.graphs) == {*policy.members, "hash", "perturbation", "surrogate", "same"}


THRESHOLD = CALIBRATION["thresholds"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph": "../x"}, r"graph: expected letters, .* got '\.\./x'"),
        ({"action": "allow"}, r"action: expected one of observe, reject, proof-of-work, got 'allow'"),
        ({"form": "sum"}, r"form: expected one of paper, robust, got 'sum'"),
        ({"form": []}, r"form: expected one of paper, robust, got \[\]"),
        ({"alpha": 1.1}, r"alpha: expected a number from 0 to 1, got 1\.1"),
        ({"alpha": -0.1}, r"alpha: expected a number from 0 to 1, got -0\.1"),
        ({"alpha": True}, r"alpha: expected a number from 0 to 1, got True"),
        ({"alpha": float("nan")}, r"alpha: expected a number from 0 to 1, got nan"),
        (
            {"false_positive_rate": 0.02},
            r"false_positive_rate: expected one that was calibrated, 0\.01, 0\.001, got 0\.02",
        ),
        ({"false_positive_rate": None}, r"false_positive_rate: expected one that was calibrated, .* got None"),
        ({"threshold": 3}, r"unknown key 'threshold'; known keys: graph, action, form, .*, work"),
        ({"action": "proof-of-work"}, r"work: expected a table, proof of work has a price, got null"),
        ({"work": {"mean_benign": 1}}, r"work: expected null, the action 'reject' has no price, got a table"),
        ({"action": "proof-of-work", "work": []}, r"work: expected a table, got \[\]"),
        ({"action": "proof-of-work", "work": {}}, r"work: missing key 'mean_benign'; keys: mean_benign, exponent"),
        (
            {"action": "proof-of-work", "work": {"mean_benign": 0}},
            r"work: mean_benign: expected a number above 0, at most .*, got 0",
        ),
        (
            {"action": "proof-of-work", "work": {"mean_benign": 1e5}},
            r"work: mean_benign: expected at most 6553, or the highest price of a row, 3\.277e\+10 hashes, .* got 1000",
        ),
        ({"form": "paper"}, r"calibration: expected centres 0 and spreads 1, 'paper' has no others, got \(\(-4\.0, "),
        ({"calibration": None}, r"calibration: expected a table, got None"),
    ],
)
def test_a_wrong_gate_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=f"gate: {message}"):
        Policy.parse(section(gate={**GATE, **changes}, key_env="TORCHWARDEN_KEY"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "robust"}, r"unknown key 'form'; known keys: images, centres, .*, thresholds"),
        ({"images": 0}, r"images: expected an integer from 1 to 1000000000, got 0"),
        ({"centres": [0.0]}, r"centres: expected 2 numbers, got \[0\.0\]"),
        ({"centres": 0.0}, r"centres: expected 2 numbers, got 0\.0"),
        ({"centres": [0.0, float("inf")]}, r"centres: expected a finite number, got inf"),
        ({"spreads": [1.0, 0.0]}, r"spreads: expected numbers above 0, got \(1\.0, 0\.0\)"),
        ({"spreads": [1.0, True]}, r"spreads: expected a finite number, got True"),
        ({"tail": []}, r"tail: expected a list of \[probability, score\], got \[\]"),
        ({"tail": {}}, r"tail: expected a list of \[probability, score\], got \{\}"),
        ({"tail": [[1.0]]}, r"tail: expected 2 numbers, got \[1\.0\]"),
        ({"tail": [[1.0, "high"]]}, r"tail: expected a finite number, got 'high'"),
        ({"tail": [[1.5, 0.0]]}, r"tail: expected probabilities that fall from at most 1 and stay above 0, got"),
        ({"tail": [[1.0, 0.0], [1.0, 1.0]]}, r"tail: expected probabilities that fall from at most 1"),
        ({"tail": [[1.0, 0.0], [0.0, 1.0]]}, r"tail: expected probabilities that fall from at most 1"),
        (
            {"tail": [[1.0, 1.0], [0.5, 0.0]]},
            r"tail: expected scores that rise, got \(\(1\.0, 1\.0\), \(0\.5, 0\.0\)\)",
        ),
        ({"excess": 0}, r"excess: expected a number above 0, at most 1e\+09, got 0"),
        ({"excess": float("nan")}, r"excess: expected a number above 0, at most 1e\+09, got nan"),
        ({"thresholds": []}, r"thresholds: expected one or more, each of a rate of its own, got rates \(\)"),
        ({"thresholds": [THRESHOLD, THRESHOLD]}, r"thresholds: expected one or more, .* got rates \(0\.01, 0\.01\)"),
        ({"thresholds": {}}, r"thresholds: expected a list, got \{\}"),
        ({"thresholds": [0.01]}, r"thresholds: expected a table, got 0\.01"),
        ({"thresholds": [{"rate": 0.01}]}, r"thresholds: missing key 'score'; keys: rate, score, low, high"),
        (
            {"thresholds": [{**THRESHOLD, "rate": 0}]},
            r"thresholds: rate: expected a number above 0, at most 0\.5, got 0",
        ),
        ({"thresholds": [{**THRESHOLD, "score": None}]}, r"thresholds: score: expected a finite number, got None"),
        ({"thresholds": [{**THRESHOLD, "high": "3"}]}, r"thresholds: high: expected a finite number, got '3'"),
        (
            {"thresholds": [{**THRESHOLD, "low": 3.5}]},
            r"thresholds: score: expected from low, 3\.5, to high, 3\.75, got 3\.0",
        ),
        (
            {"thresholds": [{**THRESHOLD, "low": None, "high": 2.0}]},
            r"thresholds: score: expected from low, None, to high, 2\.0, got 3\.0",
        ),
    ],
)
def test_a_wrong_calibration_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=f"gate: calibration: {message}"):
        Policy.parse(section(gate={**GATE, "calibration": {**CALIBRATION, **changes}}))


def test_equal_scores_in_the_tail_and_the_paper_s_form_are_fine() -> None:
    tied = {**UNSCALED, "tail": [[1.0, 0.0], [0.5, 1.0], [0.2, 1.0]]}
    policy = Policy.parse(section(gate={**GATE, "form": "paper", "calibration": tied}))
    assert policy.gate is not None
    assert policy.gate.calibration.tail == ((1.0, 0.0), (0.5, 1.0), (0.2, 1.0))


def test_a_missing_key_and_a_section_that_is_no_table_are_named() -> None:
    without = section()
    del without["threads"]
    with pytest.raises(PolicyError, match=r"policy: missing key 'threads'"):
        Policy.parse(without)
    with pytest.raises(PolicyError, match=r"policy: expected a table, got None"):
        Policy.parse(None)  # type: ignore[arg-type]


LABELS = {"level": 0.001, "then": "label"}
PRICED = {"level": 0.001, "then": "price", "work": {"mean_benign": 100.0}}


def test_a_budget_is_read_and_left_out_where_there_is_none() -> None:
    policy = Policy.parse(section(gate=GATE, budget=LABELS))
    assert policy.budget == Budget(level=0.001, then="label")
    assert not policy.needs_key
    assert (policy.work, policy.price) == (None, 0.0)
    assert Policy.parse(section(gate=GATE, budget=None)).budget is None


def test_the_price_of_a_spent_budget_is_the_gate_s_highest() -> None:
    own = Policy.parse(section(gate=GATE, budget=PRICED, key_env="TORCHWARDEN_KEY"))
    assert own.work == Work(mean_benign=100.0)
    assert own.price == Work(mean_benign=100.0).dearest(0.01)
    gate_s = {"gate": PAID_GATE, "budget": {**PRICED, "work": None}, "key_env": "TORCHWARDEN_KEY"}
    assert Policy.parse(section(**gate_s)).price == own.price
    with pytest.raises(
        PolicyError, match="key_env: expected an environment variable's name, proof of work needs a key"
    ):
        Policy.parse(section(gate=GATE, budget=PRICED))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": None}, "expected null, a budget adds up the scores of a gate and this policy has none, got a table"),
        (
            {"budget": {**LABELS, "work": {"mean_benign": 1.0}}},
            "work: expected null, 'label' has no price, got a table",
        ),
        ({"budget": {"level": 0.001, "then": "price"}}, "work: expected a table, neither it nor the gate has a price"),
        ({"gate": PAID_GATE, "budget": PRICED}, "work: expected null, the gate's price is asked, got a table"),
        ({"budget": {**PRICED, "work": {"mean_benign": 1e9}}}, "work: mean_benign: expected at most"),
        ({"budget": {**PRICED, "work": {"mean_benign": 0}}}, "work: mean_benign"),
        ({"budget": {**LABELS, "levels": 1}}, "unknown key 'levels'; known keys: level, then, work"),
        ({"budget": {"then": "label"}}, "missing key 'level'"),
        ({"budget": "label"}, "expected a table, got 'label'"),
    ],
)
def test_a_wrong_budget_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=f"budget: {message}"):
        Policy.parse(section(**{"gate": GATE, "budget": LABELS, "key_env": "TORCHWARDEN_KEY", **changes}))


MARK = {"strength": 0.02, "parts": 4, "grid": 4}


def test_a_mark_needs_a_key_and_is_told_to_nobody() -> None:
    policy = Policy.parse(section(mark=MARK, key_env="TORCHWARDEN_KEY"))
    assert policy.needs_key
    assert policy.mark == Mark(0.02, parts=4)
    assert wire.describe(policy) == wire.describe(Policy.parse(section()))
    with pytest.raises(PolicyError, match="key_env: expected an environment variable's name, a mark needs a key"):
        Policy.parse(section(mark=MARK))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"response": {"rule": "label"}},
            "'label' tells no probabilities, and a mark in labels would be wrong answers",
        ),
        ({"response": {"rule": "top_k", "k": 1}}, "'top_k' with k = 1 tells no second class"),
        ({"response": {"rule": "rounded", "digits": 1}}, "'rounded' with digits = 1 rounds it away"),
        ({"class_names": ["a", "b"]}, "mark: expected null, of two classes there is none to choose"),
        ({"mark": {**MARK, "grid": 5}}, "mark: grid: expected at most the image's side, 4, got 5"),
        ({"mark": {**MARK, "parts": 3}}, "mark: parts: expected a power of two, got 3"),
        ({"mark": {**MARK, "cells": 80}}, "mark: unknown key 'cells'; known keys: strength, parts, grid, width"),
        ({"mark": {}}, "mark: missing key 'strength'"),
    ],
)
def test_a_mark_that_nobody_would_see_is_refused(changes: dict[str, Any], error: str) -> None:
    with pytest.raises(PolicyError, match=error):
        Policy.parse(section(**{"mark": MARK, "key_env": "TORCHWARDEN_KEY", **changes}))
