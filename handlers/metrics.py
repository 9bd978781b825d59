"""What the operator sees on TorchServe's Prometheus endpoint, counted once a batch.

TorchServe knows only the metrics that its metrics_config lists, and drops an update whose dimensions differ
from the listed ones with a line in the log; both are load errors here. Every label is a word of ours: a
client's text in a label would be a metric of the client's making.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from defenses.pipeline import Answers
from handlers.errors import LoadError


class Metrics:
    """The metrics of one model, from TorchServe's `context.metrics`. Raises LoadError if one is not configured.

    torchwarden_rows_total{ModelName, decision}         rows answered
    torchwarden_member_rows_total{ModelName, member}    rows answered, by the graph that answered
    torchwarden_errors_total{ModelName, code}           rows, or whole requests, refused
    torchwarden_stage_seconds{ModelName, stage}         histogram: seconds a stage took on one batch
    """

    def __init__(self, cache: Any, model_name: str, members: Sequence[str]) -> None:
        self._model = model_name
        self._members = members
        self._rows = _find(cache, "torchwarden_rows_total", "decision")
        self._member_rows = _find(cache, "torchwarden_member_rows_total", "member")
        self._errors = _find(cache, "torchwarden_errors_total", "code")
        # TorchServe's enum of kinds, reached through a metric: importing it would tie this room to the server
        histogram = type(self._rows.metric_type)("histogram")
        self._seconds = _find(cache, "torchwarden_stage_seconds", "stage", histogram)

    def count(self, answers: Answers | None, codes: Iterable[str], seconds: Mapping[str, float]) -> None:
        """One batch: what was answered, the codes of what was refused, and what each stage took."""
        if answers is not None:
            self._add(self._rows, Counter(answers.decisions))
            asked = np.bincount(answers.members, minlength=len(self._members)).tolist()
            self._add(
                self._member_rows,
                {name: rows for name, rows in zip(self._members, asked, strict=True) if rows},
            )
        self._add(self._errors, Counter(codes))
        self._add(self._seconds, seconds)

    def _add(self, metric: Any, values: Mapping[str, float]) -> None:
        for label, value in values.items():
            metric.add_or_update(value, [self._model, label])


def _find(cache: Any, name: str, dimension: str, *kind: Any) -> Any:
    """The metric `name` of a kind (a counter where none is given). Raises LoadError."""
    wanted = ["ModelName", dimension]
    try:
        metric = cache.get_metric(name, *kind)
    except KeyError as error:
        raise LoadError(
            f"metric {name!r} is not in TorchServe's metrics_config: add it there, with dimensions {wanted}"
        ) from error
    if list(metric.dimension_names) != wanted:
        raise LoadError(
            f"metric {name!r}: expected dimensions {wanted} in metrics_config, got {metric.dimension_names}"
        )
    return metric
