"""A small policy to change one key of."""

from __future__ import annotations

from typing import Any

KEY = bytes(range(32))
ROUTE = {"hash": "class-confidence", "graph": "hash", "classes": 10, "bins": 2}
FRESH = {"graph": "perturbation", "noise_shape": [1, 4, 5], "noise": "fresh"}
KEYED = {**FRESH, "noise": "keyed", "perceptual": 0.5, "grid": 2}


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
