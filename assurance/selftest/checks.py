"""What a self-test finds out: a control, what was sent against it, what had to come back, and what came."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray

from assurance.selftest.service import Reply, Service, ServiceError
from handlers.wire import WireError
from report.rows.selftest import ABSENT, STOPPED, THROUGH, UNTRIED, WARNED, Finding

# of the table's columns
WIDEST = (18, 26, 46, 40, 46, 12)

SERVER = "(server)"
GATEWAY = "(gateway)"


@dataclass(frozen=True)
class Subject:
    """One served model under test. promised: its recipe's [policies.NAME]. good: a benign image (1,C,H,W) that the
    model answers; benign, attacking: images (n,C,H,W)."""

    name: str
    service: Service
    promised: Mapping[str, Any]
    good: NDArray[np.float32]
    benign: NDArray[np.float32]
    thieving: NDArray[np.float32]

    @property
    def served(self) -> Mapping[str, Any]:
        """The `handler` section of its archive."""
        return self.service.policies[self.name]

    @property
    def archive(self) -> Path:
        """The file that is served."""
        return self.service.archives[self.name]

    def stage(self, name: str) -> Mapping[str, Any]:
        """A stage's table: the recipe's, and what only the archive says of it; empty where neither has the stage."""
        return {**(self.served.get(name) or {}), **(self.promised.get(name) or {})}

    @property
    def max_rows(self) -> int:
        return int(self.served.get("max_rows", 256))


Check = Callable[[Subject], Iterator[Finding]]


def guarded(check: Check, control: str) -> Check:
    """The check, with a finding of its own where it broke off: a control that could not be tried has shown nothing."""

    @functools.wraps(check)
    def kept(subject: Subject) -> Iterator[Finding]:
        try:
            yield from check(subject)
        except (ServiceError, requests.RequestException, WireError, LookupError, TypeError, ValueError) as error:
            reason = f"the check broke off: {type(error).__name__}: {error}"
            sent = check.__name__.replace("_", " ")
            yield judged(control, subject.name, sent, "an answer to judge by", reason, ok=False)

    return kept


def judged(control: str, model: str, sent: str, expected: str, got: str, *, ok: bool) -> Finding:
    """A finding whose control did what it is for, or did not."""
    return Finding(control, model, sent, expected, got, STOPPED if ok else THROUGH)


def warned(control: str, model: str, sent: str, expected: str, got: str) -> Finding:
    """A finding that fails nothing, and that the operator must know of."""
    return Finding(control, model, sent, expected, got, WARNED)


def absent(control: str, model: str, why: str) -> Finding:
    """A control that the model does not have."""
    return Finding(control, model, "", "", why, ABSENT)


def untried(control: str, model: str, why: str) -> Finding:
    """A control that this run could not see at work."""
    return Finding(control, model, "", "", why, UNTRIED)


def stopped(findings: Sequence[Finding]) -> int:
    """How many tries came to nothing, as they must."""
    return sum(finding.verdict == STOPPED for finding in findings)


def exit_code(findings: Sequence[Finding]) -> int:
    """1 where something was let through, or nothing could be tried."""
    return 1 if any(finding.failed for finding in findings) or not stopped(findings) else 0


def shown(reply: Reply) -> str:
    """An answer in a few words."""
    if not reply.status:
        return "connection cut"
    text = reply.code or reply.text[:60].replace("\n", " ")
    return f"{reply.status} {text}".strip()


def table(findings: Sequence[Finding]) -> str:
    """The findings for people: one line for what came out alike on several models, those that failed last, where they
    are seen."""
    rows = [("control", "model", "sent", "expected", "got", "verdict")]
    alike: dict[tuple[str, ...], list[str]] = {}
    for each in sorted(findings, key=lambda finding: finding.failed):
        if each.verdict in (ABSENT, UNTRIED, WARNED):
            continue
        key = (each.control, each.sent, each.expected, each.got if each.failed else "", each.verdict)
        alike.setdefault(key, []).append(each.model)
    by_try = {(each.control, each.sent, each.expected, each.model): each.got for each in findings}
    for (control, sent, expected, _, verdict), models in alike.items():
        got = {by_try[control, sent, expected, model] for model in models}
        shown_ = " / ".join(sorted(got)) if len(got) <= 2 else f"{len(got)} answers of that kind"
        rows.append((control, _models(models), sent, expected, shown_, verdict))
    widths = [min(max(len(row[column]) for row in rows), widest) for column, widest in enumerate(WIDEST)]
    lines = ["  ".join(_fit(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for verdict in (ABSENT, UNTRIED):
        reasons: dict[tuple[str, str], list[str]] = {}
        for each in findings:
            if each.verdict == verdict:
                reasons.setdefault((each.control, each.got), []).append(each.model)
        lines += [f"{verdict}: {control} on {_models(models)}: {why}" for (control, why), models in reasons.items()]
    # in full, for the table cuts long cells
    lines += [f"{WARNED}: {each.control} on {each.model}: {each.got}" for each in findings if each.verdict == WARNED]
    return "\n".join(lines)


def _models(models: Sequence[str]) -> str:
    return models[0] if len(models) == 1 else f"{len(models)} models"


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 3]}..."
