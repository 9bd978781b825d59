"""A small policy to change one key of."""

from __future__ import annotations

from typing import Any

KEY = bytes(range(32))
ROUTE = {"hash": "class-confidence", "graph": "hash", "classes": 10, "bins": 2}
FRESH = {"graph": "perturbation", "noise_shape": [1, 4, 5], "noise": "fresh"}
KEYED = {**FRESH, "noise": "keyed", "perceptual": 0.5, "grid": 2}
# log p is linear in s: 0.1 at 1, 0.01 at 3 and from there on a tenth every ln(10) / 2
CALIBRATION: dict[str, Any] = {
    "images": 4000,
    "centres": [-4.0, 0.1],
    "spreads": [0.5, 0.05],
    "tail": [[1.0, -1.0], [0.1, 1.0], [0.01, 3.0]],
    "excess": 0.5,
    "thresholds": [
        {"rate": 0.01, "score": 3.0, "low": 2.5, "high": 3.75},
        {"rate": 0.001, "score": 4.25, "low": 3.5, "high": None},
    ],
}
UNSCALED = {**CALIBRATION, "centres": [0, 0], "spreads": [1, 1]}
GATE = {
    "graph": "same",
    "action": "reject",
    "form": "robust",
    "alpha": 0.5,
    "false_positive_rate": 0.01,
    "calibration": CALIBRATION,
}
PAID_GATE = {**GATE, "action": "proof-of-work", "work": {"mean_benign": 100.0}}


def section(**changes: Any) -> dict[str, Any]:
    """The `handler:` section of an undefended policy, with some keys changed."""
    plain: dict[str, Any] = {
        "recipe": "digits",
        "policy": "undefended",
        "backend": "onnxruntime",
        "threads": 1,
        "input": {"channels": 1, "height": 4, "width": 5},
        "class_names": ["zero", "one", "two"],
        "members": ["victim"],
        "route": None,
        "response": {"rule": "soft"},
        "max_rows": 16,
        "on_stage_error": "closed",
        "key_env": None,
    }
    return {**plain, **changes}


def routed(**changes: Any) -> dict[str, Any]:
    """The same with five members behind a secret hash."""
    members = [f"edm-{number}" for number in range(5)]
    return section(**{"policy": "edm", "members": members, "route": ROUTE, "key_env": "TORCHWARDEN_KEY", **changes})
