"""What a recipe may leave out: [dataset], [victim] and one policy are enough to train, serve and attack.

`python -m recipes show NAME` prints what was added. Keys that a table leaves out have their dataclass's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# an attacker with images of anything: crops of a photograph that scikit-learn carries along
KNOCKOFF = {"surrogate": "flower", "budget": 4000}
# of a clone, where the victim is a file whose architecture nobody knows
ARCHITECTURE = "lenet5"


def added(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables, and a default for each of [serving], [loadtest], [attacks] and [clone] that is not among them. A
    clone is what its victim is: the attacker is given the architecture. Of an adopted [model], [dataset] takes the
    preprocessing and the classes."""
    victim, model = tables.get("victim", {}), tables.get("model")
    clone = {
        "architecture": victim.get("architecture", ARCHITECTURE),
        "options": victim.get("options", {}),
        "epochs": 10,
        "recipes": ["sgd", "adamw"],
        "seeds": [0, 1],
        "fractions": [0.25, 1.0],
    }
    whole = {"serving": {}, "loadtest": {}, "attacks": {"knockoff": KNOCKOFF}, "clone": clone, **tables}
    if model is not None and "dataset" in tables:
        # images are prepared as the model's owner prepares them, and labels are columns of its output
        whole["dataset"] = {"classes": model["classes"], "input": model["input"], **tables["dataset"]}
    return whole
