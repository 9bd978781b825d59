"""What an attest says of the controls that frameworks ask for against model extraction: a pure function of what was
measured.

    MITRE ATLAS 5.6: technique AML.T0024.002 and its mitigations; OWASP Machine Learning Top 10 (2023): ML05;
    OWASP AISVS 1.0: C11.2, C11.3, C12.2

An attest sees what a client sees. A control that shows itself to no client (a detector that only logs, an alert, a
watermark) is not tested, and the row says with what it could be. Without a verdict nothing counts as tested, since no
good mark may come of an endpoint that fails or lies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from attest.measured import Measured
from report.format import number, percent, points

ATLAS, ML, AISVS = "MITRE ATLAS 5.6", "OWASP ML Top 10", "OWASP AISVS 1.0"
STATES = ("passed", "partly", "failed", "not tested")
# by how much a clone from numbers must beat the same thief's from labels, for the numbers to be worth hiding
WORTH_HIDING = 0.02
OF_WORD = {"copied": "failed", "partly copied": "partly", "not copied": "passed", "no verdict": "not tested"}


@dataclass(frozen=True)
class Control:
    """One row. state: one of STATES. why: what was seen, or why it was not tested."""

    framework: str
    name: str
    asks: str
    state: str
    why: str


def controls(measured: Measured) -> list[Control]:
    """All rows, by framework."""
    rows = list(_rows(measured))
    if measured.verdict.word == "no verdict":
        return [replace(row, state="not tested", why="there is no verdict") for row in rows]
    return rows


def _rows(measured: Measured) -> Iterator[Control]:
    held = OF_WORD[measured.verdict.word], measured.verdict.sentence
    unseen = "a client does not see it. To test it, hold the alerts of the campaign's hours against the ledger"
    yield Control(ATLAS, "AML.T0024.002", "Extract AI Model: the technique itself", *held)
    yield Control(ATLAS, "AML.M0002", "Passive AI Output Obfuscation", *_obfuscation(measured))
    yield Control(ATLAS, "AML.M0004", "Restrict Number of AI Model Queries", *_limits(measured))
    yield Control(ATLAS, "AML.M0015", "Adversarial Input Detection", *_detection(measured, unseen))
    yield Control(ATLAS, "AML.M0024", "AI Telemetry Logging", "not tested", unseen)
    yield Control(ML, "ML05:2023", "Model Theft", *held)
    yield Control(AISVS, "11.2.2", "limits for each principal and for all, sized to extraction", *_sized(measured))
    yield Control(AISVS, "11.3.1", "query-pattern analysis feeds a detector", *_detection(measured, unseen))
    yield Control(AISVS, "11.3.2", "no raw outputs; answers calibrated to the risk", *_obfuscation(measured))
    marks = "it needs the owner's mark and a suspected copy; an attest has no access to the former"
    yield Control(AISVS, "11.3.3", "watermark or fingerprint", "not tested", marks)
    yield Control(AISVS, "11.3.4", "suspected extraction triggers a response", *_response(measured))
    yield Control(AISVS, "12.2.4", "alerts name the offending queries", "not tested", unseen)


def _obfuscation(measured: Measured) -> tuple[str, str]:
    scale = measured.target.scale
    if scale == "label":
        return "passed", "answers are labels alone"
    pairs = list(_with_and_without_numbers(measured))
    if not pairs:
        return "failed", f"answers are {scale}; what they are worth to a thief, over labels alone, was not measured"
    thief, soft, hard = max(pairs, key=lambda pair: pair[1] - pair[2])
    worth = f"from them {thief} has {percent(soft)}, from their labels {percent(hard)}, {points(soft - hard)} points"
    if soft - hard <= WORTH_HIDING:
        return "passed", f"answers are {scale}, but worth no more than labels: {worth}"
    return ("partly" if scale == "top-k" else "failed"), f"answers are {scale}: {worth}"


def _with_and_without_numbers(measured: Measured) -> Iterator[tuple[str, float, float]]:
    """For each attack, the clones' accuracies from numbers and from labels, after as many queries: the last that both
    have."""
    for soft, hard in itertools.product(measured.curves, measured.curves):
        if (soft.labels, hard.labels) == ("soft", "hard") and soft.attack == hard.attack:
            from_labels = {point.queries: point.accuracy for point in hard.points}
            common = [point for point in soft.points if point.queries in from_labels]
            if common:
                yield soft.thief, common[-1].accuracy, from_labels[common[-1].queries]


def _limits(measured: Measured) -> tuple[str, str]:
    seen = list(_hindrances(measured))
    if not seen:
        queries, rate = number(measured.ledger.queries, 0), measured.target.rate
        return "failed", f"none of {queries} queries was refused or slowed, at up to {rate:g} a second"
    return ("partly" if measured.verdict.word == "copied" else "passed"), "; ".join(seen)


def _sized(measured: Measured) -> tuple[str, str]:
    state, why = _limits(measured)
    if state == "failed":
        return state, why
    if measured.verdict.word == "copied":
        return "failed", f"{why}; but within these limits the model was copied"
    return "partly", f"{why}. All principals together: not tested, the campaign had one account"


def _detection(measured: Measured, unseen: str) -> tuple[str, str]:
    seen = measured.resistance
    marks = [
        _after("flagged", seen.flagged, seen.flagged_after),
        _after("asked for proof of work", seen.challenges, seen.challenged_after),
        _after("refused", seen.refused, seen.refused_after),
    ]
    found = [each for each in marks if each]
    return ("passed", "; ".join(found)) if found else ("not tested", f"no answer showed any, and {unseen}")


def _response(measured: Measured) -> tuple[str, str]:
    seen = list(_hindrances(measured))
    if seen:
        return ("partly" if measured.verdict.word == "copied" else "passed"), "; ".join(seen)
    flagged = _after("flagged", measured.resistance.flagged, measured.resistance.flagged_after)
    if flagged:
        return "partly", f"{flagged}, and answered all the same"
    return (
        "failed",
        f"no answer changed in {number(measured.ledger.queries, 0)} queries; a person may have been called, unseen",
    )


def _hindrances(measured: Measured) -> Iterator[str]:
    """What kept the campaign from asking as it liked."""
    seen = measured.resistance
    throttled = _after("throttled", seen.throttled, seen.throttled_after)
    if throttled:
        yield f"{throttled}, {number(seen.waited_s)} s of waiting in all"
    yield from filter(None, [_after("refused", seen.refused, seen.refused_after)])
    work = _after("asked for proof of work", seen.challenges, seen.challenged_after)
    if work:
        yield f"{work}, {number(seen.hashes, 0)} hashes"


def _after(what: str, times: int, queries: int | None) -> str:
    return f"{what} {number(times, 0)} times, first after {number(queries, 0)} queries" if times else ""
