"""What the operator sees on TorchServe's Prometheus endpoint, counted once a batch.

TorchServe knows only the metrics that its metrics_config lists, and drops an update whose dimensions differ
from the listed ones with a line in the log; both are load errors here. Every label is a word of ours: a
client's text in a label would be a metric of the client's making.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from defenses.pipeline import EVERY, Answers
from handlers.errors import ExpiredSolution, InvalidSolution, LoadError, SpentSolution

# upper ends of the bands in which rows are counted by the tail probability of their score
TAILS = np.array([1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0])
REFUSALS = {InvalidSolution.code: "invalid", ExpiredSolution.code: "expired", SpentSolution.code: "replayed"}


class Metrics:
    """The metrics of one model, from TorchServe's `context.metrics`. Raises LoadError if one is not configured.

    torchwarden_rows_total{ModelName, decision}         rows by what became of them, refused and charged ones too
    torchwarden_member_rows_total{ModelName, member}    rows answered, by the graph that answered, or all that did
    torchwarden_errors_total{ModelName, code}           rows, or whole requests, refused
    torchwarden_scores_total{ModelName, tail}           rows that the gate scored, by the band of their tail probability
    torchwarden_work_total{ModelName, event}            challenges issued; solutions solved, expired, replayed, invalid
    torchwarden_limited_rows_total{ModelName, limit}    rows over a limit of the principal or in total; unchecked ones
    torchwarden_budget_total{ModelName, event}          accounts whose budget is spent; rows by what that made of them
    torchwarden_audit_total{ModelName, event}           lines of the audit log, written and failed
    torchwarden_marked_rows_total{ModelName, strength}  rows that carry a mark, whole or less of it
    torchwarden_stage_seconds{ModelName, stage}         histogram: seconds a stage took on one batch, `handle` all of it
    """

    def __init__(self, cache: Any, model_name: str, members: Sequence[str]) -> None:
        self._model = model_name
        self._members = members
        self._rows = _find(cache, "torchwarden_rows_total", "decision")
        self._member_rows = _find(cache, "torchwarden_member_rows_total", "member")
        self._errors = _find(cache, "torchwarden_errors_total", "code")
        self._scores = _find(cache, "torchwarden_scores_total", "tail")
        self._work = _find(cache, "torchwarden_work_total", "event")
        self._limited = _find(cache, "torchwarden_limited_rows_total", "limit")
        self._budgets = _find(cache, "torchwarden_budget_total", "event")
        self._audit = _find(cache, "torchwarden_audit_total", "event")
        self._marked = _find(cache, "torchwarden_marked_rows_total", "strength")
        # TorchServe's enum of kinds, reached through a metric: importing it would tie this room to the server
        histogram = type(self._rows.metric_type)("histogram")
        self._seconds = _find(cache, "torchwarden_stage_seconds", "stage", histogram)

    def count(
        self,
        answers: Answers | None,
        codes: Sequence[str],
        seconds: Mapping[str, float],
        *,
        issued: int = 0,
        solved: int = 0,
        limited: Mapping[str, int] | None = None,
        audited: Mapping[str, int] | None = None,
        budgets: Mapping[str, int] | None = None,
    ) -> None:
        """One batch: what was answered, the codes of what was refused, what each stage took; of proof of work the
        challenges issued and the requests that were paid for; rows by the limit they are over; lines of the audit log
        by what became of them; accounts whose budget is spent, and rows by what that made of them."""
        if answers is not None:
            self._add(self._rows, Counter(answers.decisions))
            # members are numbered from 0; below that stands EVERY, which has every one of them answer
            everyone, *own = np.bincount(answers.members - EVERY, minlength=len(self._members) + 1).tolist()
            asked = [everyone + rows for rows in own]
            self._add(
                self._member_rows,
                {name: rows for name, rows in zip(self._members, asked, strict=True) if rows},
            )
            if answers.scores is not None:
                tail = answers.scores.tail
                bands = TAILS[np.searchsorted(TAILS, tail[~np.isnan(tail)])]
                self._add(self._scores, Counter(f"{band:g}" for band in bands))
            if answers.whole is not None:
                whole = int(answers.whole.sum())
                rows = {"whole": whole, "less": len(answers.whole) - whole}
                self._add(self._marked, {strength: count for strength, count in rows.items() if count})
        self._add(self._errors, Counter(codes))
        events = Counter({"issued": issued, "solved": solved})
        events.update(REFUSALS[code] for code in codes if code in REFUSALS)
        self._add(self._work, +events)  # those that there were
        self._add(self._limited, limited or {})
        self._add(self._audit, audited or {})
        self._add(self._budgets, budgets or {})
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
