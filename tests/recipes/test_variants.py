"""What is said once and means several things: like, defaults, tags, tiers, policies of networks."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from recipes.variants import expand

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPE = """
[defaults.networks.meco]
auxiliary = "china"
[defaults.evaluate]
clone = { recipes = ["adamw"], epochs = 3 }

[networks.meco]
filters = 16
optimisation = { epochs = 3, lr = 0.1 }
policy = { perturb = { noise = "fresh" }, tags = ["noisy"] }

[networks.meco_gaussian]
like = "meco"
perturbation = "gaussian"
optimisation = { epochs = 5 }
about = "nothing learned"
policy = { perturb = { noise = "keyed" }, tags = ["noisy", "ablation"] }

[networks.meco_silent]
like = "meco_gaussian"
rms = 0.1

[networks.first]
program = "edm"

[policies.undefended]
predictor = "victim"

[evaluate.knockoff]
policies = ["undefended", "tag:noisy", "undefended"]
budgets = [10]
[evaluate.labels]
like = "knockoff"
labels = ["soft"]
clone = { epochs = 1 }

[studies.meco]
utility = ["tag:ablation"]
detection = { policies = ["tag:ablation"], ensemble = "edm" }
evaluate = ["knockoff"]
"""
TIER = """
[networks]
"tag:noisy" = { filters = 64 }
first = { members = 2 }
[policies."tag:ablation"]
backend = "torchscript"
"""


def expanded(text: str = RECIPE, tier: str = "") -> dict[str, Any]:
    faults: list[str] = []
    found = expand(tomllib.loads(text), tomllib.loads(tier), faults)
    assert not faults
    return found


def test_a_network_is_like_another_but_for_what_it_says_itself() -> None:
    networks = expanded()["networks"]
    gaussian = {name: value for name, value in networks["meco_gaussian"].items() if name not in ("policy", "about")}
    assert gaussian == {
        "program": "meco",
        "auxiliary": "china",
        "filters": 16,
        "perturbation": "gaussian",
        "optimisation": {"epochs": 5, "lr": 0.1},
    }
    # through two steps; policy, about and tags are a table's own
    assert networks["meco_silent"]["rms"] == 0.1
    assert networks["meco_silent"]["perturbation"] == "gaussian"
    assert not {"policy", "about"} & set(networks["meco_silent"])
    # defaults are of a program, whatever its networks are called
    assert networks["first"] == {"program": "edm"}


def test_a_network_s_policy_is_called_as_it_is_with_dashes() -> None:
    assert expanded()["policies"] == {
        "undefended": {"predictor": "victim"},
        "meco": {"predictor": "meco", "perturb": {"noise": "fresh"}, "tags": ["noisy"]},
        "meco-gaussian": {
            "predictor": "meco_gaussian",
            "about": "nothing learned",
            "perturb": {"noise": "keyed"},
            "tags": ["noisy", "ablation"],
        },
    }


def test_a_tag_stands_for_every_policy_that_has_it_each_once() -> None:
    found = expanded()
    assert found["evaluate"]["knockoff"]["policies"] == ["undefended", "meco", "meco-gaussian"]
    assert found["studies"]["meco"]["utility"] == ["meco-gaussian"]
    assert found["studies"]["meco"]["detection"] == {"policies": ["meco-gaussian"], "ensemble": "edm"}
    assert found["studies"]["meco"]["evaluate"] == ["knockoff"]


def test_evaluations_are_like_one_another_and_have_defaults() -> None:
    assert expanded()["evaluate"]["labels"] == {
        "policies": ["undefended", "meco", "meco-gaussian"],
        "budgets": [10],
        "labels": ["soft"],
        "clone": {"recipes": ["adamw"], "epochs": 1},
    }


def test_a_tier_may_address_a_tag() -> None:
    found = expanded(tier=TIER)
    assert {name: fields.get("filters") for name, fields in found["networks"].items()} == {
        "meco": 64,
        "meco_gaussian": 64,
        "meco_silent": 16,  # no policy of it has the tag
        "first": None,
    }
    assert found["networks"]["first"]["members"] == 2
    assert found["policies"]["meco-gaussian"]["backend"] == "torchscript"
    assert "backend" not in found["policies"]["meco"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[networks.a]\nlike = "b"', "[networks.a]: like: no [networks.b]; expected one of none"),
        (
            '[networks.a]\nlike = "b"\n[networks.b]\nlike = "a"',
            "[networks.a]: like: expected no circle, got a -> b -> a",
        ),
        (
            '[policies.a]\npredictor = "victim"\n[networks.a]\npolicy = {}',
            "[networks.a]: policy: expected no other, got [policies.a] as well",
        ),
        ("[networks.a]\npolicy = 3", "[networks.a]: policy: expected a table, got 3"),
        ("[networks]\na = 3", "[networks]: expected a table [networks.a], got a = 3"),
        (
            '[policies.edm]\npredictor = "edm"\ntags = ["noisy"]\n[evaluate.x]\npolicies = ["tag:nosy"]',
            "[evaluate.x]: policies: nothing has the tag 'nosy'; did you mean 'noisy'? expected one of noisy",
        ),
        (
            '[policies.edm]\npredictor = "edm"\n[studies.x]\nutility = ["edn"]',
            "[studies.x]: utility: no policy 'edn'; did you mean 'edm'? expected one of edm",
        ),
    ],
)
def test_what_cannot_be_carried_out_is_reported_with_its_table(text: str, message: str) -> None:
    faults: list[str] = []
    expand(tomllib.loads(text), {}, faults)
    assert message in faults


def test_a_tier_that_addresses_a_tag_of_what_has_none() -> None:
    faults: list[str] = []
    expand(tomllib.loads(RECIPE), {"evaluate": {"tag:noisy": {"budgets": [1]}}}, faults)
    assert faults == ["[tiers]: evaluate: expected a tag of networks or policies, got tag:noisy of evaluate"]
