"""Budgets: who sends nothing but an attacker's images is treated as the policy says, and nobody else is."""

from __future__ import annotations

from collections.abc import Iterator

from assurance.selftest.checks import Subject, absent, judged, shown, untried
from assurance.selftest.service import Reply
from defenses.budget import LABEL, OBSERVE, PRICE, REFUSE
from handlers import wire
from handlers.errors import BudgetSpent, WorkWanted
from report.rows.selftest import Finding

CONTROL = "budget"
# of an attacker's rows, within which the account must be spent
MOST_ROWS = 2_000


def budget(subject: Subject) -> Iterator[Finding]:
    """An attacker's images from one principal, until its budget is spent; then a good row of it, and of another."""
    table = subject.stage("budget")
    if not table:
        yield absent(CONTROL, subject.name, "the policy has no budget")
        return
    if not len(subject.thieving):
        yield untried(CONTROL, subject.name, "the recipe's attacks name no surrogate set")
        return
    service, then = subject.service, str(table["then"])
    thief, before = service.principal("surprising"), _events(subject, "spent")
    sent = 0
    while sent < MOST_ROWS and _events(subject, "spent") <= before:
        part = subject.thieving[: subject.max_rows]
        service.rows(subject.name, part, principal=thief)
        sent += len(part)
    spent = service.reached("torchwarden_budget_total", before + 1, ModelName=subject.name, event="spent") - before
    yield judged(
        CONTROL,
        subject.name,
        f"{sent} images of an attacker's from one principal",
        "its budget is spent",
        f"{spent:.0f} accounts spent",
        ok=spent >= 1,
    )
    own = service.rows(subject.name, subject.good, principal=thief)
    if then == OBSERVE:
        yield judged(CONTROL, subject.name, "its next row", "200", shown(own), ok=own.status == 200)
    else:
        yield judged(CONTROL, subject.name, "its next row", _EXPECTED[then], shown(own), ok=_treated(own, then))
    other = service.rows(subject.name, subject.good, principal=service.principal("unsurprising"))
    yield judged(
        CONTROL,
        subject.name,
        "another principal's row meanwhile",
        "200",
        shown(other),
        ok=other.status == 200 and not _treated(other, then),
    )


_EXPECTED = {
    LABEL: "200 without probabilities",
    PRICE: f"{WorkWanted.status} {WorkWanted.code}",
    REFUSE: f"{BudgetSpent.status} {BudgetSpent.code}",
}


def _treated(reply: Reply, then: str) -> bool:
    """Whether an answer is one that a spent account gets."""
    if then == LABEL:
        return reply.status == 200 and wire.decode_answers(reply.body).probabilities is None
    return reply.code == {PRICE: WorkWanted.code, REFUSE: BudgetSpent.code}.get(then)


def _events(subject: Subject, event: str) -> float:
    return subject.service.counted("torchwarden_budget_total", ModelName=subject.name, event=event)
