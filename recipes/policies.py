"""What a recipe's policies run, and whether defenses.policy would carry them out: before any network is trained.

Part of what an archive states comes from checkpoints: the classes of a hash, a gate's calibration, the shape of noise.
Here stand-ins take their places, so that whatever the recipe's table says is checked by the very code that loads an
archive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from defenses.policy import Policy, PolicyError
from pictures.geometry import Geometry
from recipes import schema
from recipes.fields import nearest

# of a predictor that names the owner's file, as recipes once did
ONNX = ".onnx"
# of a policy's graphs; what is not float32 has a graph of its own (export/quantise.py)
FLOAT32, INT8, FP16 = "float32", "int8", "fp16"
# the network of a route, and of a gate, that names no other
HASH_GRAPH, GATE_GRAPH = "hash", "same"
# the network whose graph a response rule reads, where its table names no other
RULE_GRAPHS = {"mad": "surrogate", "grad": "surrogate", "adaptive_misinformation": "misinformation"}
# the classifier itself, which has a table of its own
VICTIM = "victim"
# what checkpoints decide of a hash
STAND_INS = {"class-confidence": {"classes": 10}, "projection": {"depth": 5}}
CALIBRATION = {"images": 1000, "centres": [0, 0], "spreads": [1, 1], "tail": [[0.5, 0.0]], "excess": 1.0}


def victim_file(tables: Mapping[str, Any]) -> str:
    """The file of a recipe's victim: a checkpoint, or the graph of an adopted model whose weights are not known."""
    graph_alone = "model" in tables and not _table(tables["model"]).get("architecture")
    return f"{VICTIM}{ONNX}" if graph_alone else f"{VICTIM}.safetensors"


def suffixed(graph: str, precision: str) -> str:
    """The name of a graph in a precision."""
    return graph if precision == FLOAT32 else f"{graph}-{precision}"


def twin(name: str, policies: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The float32 policy that NAME-PRECISION is a variant of, by its name, None where there is no such policy."""
    precision = str(policies[name].get("precision", FLOAT32))
    plain = name.removesuffix(f"-{precision}")
    return plain if plain != name and plain in policies else None


def narrowed(policy: Mapping[str, Any]) -> bool:
    """Whether a policy's graphs are not float32."""
    return bool(policy.get("precision", FLOAT32) != FLOAT32)


def networks(policy: Mapping[str, Any]) -> list[str]:
    """The networks that a policy's graphs come from, the predictor's first."""
    predictor = str(policy.get("predictor", ""))
    found = [predictor]
    stages = {name: _table(policy.get(name)) for name in ("route", "perturb", "gate", "response")}
    if "route" in policy:
        found.append(str(stages["route"].get("graph", HASH_GRAPH)))
    if "perturb" in policy:
        found.append(str(stages["perturb"].get("graph", predictor)).removesuffix("-perturbation"))
    if "gate" in policy:
        found.append(str(stages["gate"].get("graph", GATE_GRAPH)))
    graph = stages["response"].get("graph", RULE_GRAPHS.get(str(stages["response"].get("rule"))))
    return list(dict.fromkeys([*found, *([str(graph)] if graph is not None else [])]))


def faults(tables: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the policies of an expanded recipe; each opens with its table."""
    known = [VICTIM, *tables.get("networks", {})]
    graph_alone = "model" in tables and not _table(tables["model"]).get("architecture")
    for name, policy in tables.get("policies", {}).items():
        where = f"[policies.{name}]"
        if str(policy.get("predictor", "")).endswith(ONNX):
            file = policy["predictor"]
            yield f"{where}: predictor: expected 'victim', adopt the file first (make adopt MODEL={file}), got {file!r}"
            continue
        if graph_alone and policy.get("predictor") == VICTIM:
            if policy.get("backend", "onnxruntime") != "onnxruntime":
                yield f"{where}: backend: expected 'onnxruntime', an adopted graph is ONNX, got {policy['backend']!r}"
            if "perturb" in policy and "graph" not in _table(policy["perturb"]):
                yield f"{where}: perturb: expected a graph, an adopted model was not trained with any noise, got none"
        missing = [network for network in networks(policy) if network and network not in known]
        for network in missing:
            lacks = f"it runs {network!r}, and there is no [networks.{network}] to train it"
            yield f"{where}: {lacks}; {nearest(network, known)}"
        if "predictor" not in policy or missing:
            continue
        try:
            Geometry(1, 1, 1, **_table(policy.get("pictures")))
        except (ValueError, TypeError) as error:
            yield f"{where}: pictures: {error}"
            continue
        try:
            Policy.parse(section(name, policy, tables))
        except PolicyError as error:
            yield f"{where}: {str(error).removeprefix('policy: ')}"


def section(name: str, policy: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    """A policy as an archive states it, with stand-ins for what checkpoints will say."""
    predictor = str(policy["predictor"])
    serving = _table(tables.get("serving"))
    found: dict[str, Any] = {
        "recipe": "recipe",
        "policy": name,
        "backend": policy.get("backend", "onnxruntime"),
        "precision": policy.get("precision", FLOAT32),
        "threads": serving.get("threads", 1),
        "input": {"channels": 1, "height": 4096, "width": 4096},
        "class_names": [str(number) for number in range(10)],
        "members": [f"member-{number}" for number in range(members(predictor, tables))],
        "average": policy.get("average", False),
        "response": {"rule": "soft"},
        "max_rows": serving.get("max_rows", 256),
        "key_env": "TORCHWARDEN_KEY",
    }
    for key in ("mark", "limits", "budget", "on_stage_error", "principal_header", "store", "response"):
        if key in policy:
            found[key] = policy[key]
    rule = _table(found["response"])
    if rule.get("rule") in RULE_GRAPHS:
        found["response"] = {"graph": RULE_GRAPHS[rule["rule"]], **rule}
    if "route" in policy:
        route = _table(policy["route"])
        found["route"] = {"graph": HASH_GRAPH, **STAND_INS.get(str(route.get("hash")), {}), **route}
    if "perturb" in policy:
        found["perturb"] = {"graph": "perturbation", "noise_shape": [1], **_table(policy["perturb"])}
    if "gate" in policy:
        gate = _table(policy["gate"])
        found["gate"] = {"graph": GATE_GRAPH, "calibration": _calibration(gate), **gate}
    return found


def members(predictor: str, tables: Mapping[str, Any]) -> int:
    """How many networks answer for a predictor: as many as its table says, or as its program has by default."""
    network = _table(tables.get("networks", {}).get(predictor))
    stated = network.get("members", schema.default(f"networks.{network.get('program')}", "members"))
    if isinstance(stated, list):
        return len(stated)
    return stated if isinstance(stated, int) else 1


def _calibration(gate: Mapping[str, Any]) -> dict[str, Any]:
    """A calibration with a threshold for the rate that the gate asks for."""
    rate = gate.get("false_positive_rate", 0.01)
    return {**CALIBRATION, "thresholds": [{"rate": rate, "score": 1.0, "low": None, "high": None}]}


def _table(value: object) -> Mapping[str, Any]:
    """The value, or an empty table where it is none: its type is checked elsewhere."""
    return value if isinstance(value, Mapping) else {}
