"""A measured attest, made up: an endpoint that was copied, and changes to it. No figure of it stands on any page."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from attest import measured, verdict
from attest.measured import (
    Consistency,
    Curve,
    Felt,
    LedgerFacts,
    Measured,
    NotTried,
    Point,
    Resistance,
    RunFacts,
    TargetFacts,
    Utility,
)

QUERIES = 10_000


def curve(thief: str, *accuracies: float, labels: str = "soft", **changed: Any) -> Curve:
    """A thief whose clones have these accuracies after 100, 200, ... times 10 queries; ±2 points."""
    budgets = [QUERIES * (number + 1) // len(accuracies) for number in range(len(accuracies))]
    points = tuple(
        Point(queries, each, max(0.0, each - 0.02), min(1.0, each + 0.02), each, 0, queries * 0.0012, "adam")
        for queries, each in zip(budgets, accuracies, strict=True)
    )
    made = Curve(thief, thief.split(" ")[0], None, labels, None, 0, 0.1, points, "budget")
    return dataclasses.replace(made, **changed)


def made(**changed: Any) -> Measured:
    """An MNIST endpoint that Knockoff copied; keyword arguments replace fields, with the verdict that follows."""
    target = TargetFacts(
        name="shop",
        url="https://staging.example.org/v1/classify",
        send="multipart",
        answer="predictions[0].scores",
        scale="probabilities",
        classes=tuple(str(number) for number in range(10)),
        size=(28, 28),
        channels=1,
        format="png",
        headers=("X-Api-Key",),
        rows=1,
        rate=200.0,
        budget=QUERIES,
        price_per_1000=1.2,
        currency="EUR",
        owner="A. Owner, ticket 4711",
        authorised_until="2026-12-31",
        tls="verified",
        sha256=hashlib.sha256(b"target").hexdigest(),
    )
    run = RunFacts(
        commit="0123456789abcdef0123456789abcdef01234567",
        machine="x86_64, 2 cores",
        versions={"python": "3.11.7", "torch": "2.15.0", "numpy": "2.4.1", "torchwarden": "0.1.0"},
        started="2026-11-30T13:00:00+00:00",
        seconds=640.0,
        resumed=1,
        seeds=(0, 1),
        settings={"attacks": "knockoff jbda dfme in-distribution label-only", "pool": "kmnist"},
        images_sha256=hashlib.sha256(b"images").hexdigest(),
        exam_images=2000,
    )
    whole = Measured(
        format=measured.FORMAT,
        target=target,
        run=run,
        utility=Utility(2000, 0.985, 0.979, 0.99, 0.114, 0.113, 0.0, 0.001, 8.0, 21.0),
        consistency=Consistency(20, 3, 1.0, 0.0, 3, 0.998, 0.002, "deterministic"),
        curves=(
            curve("knockoff", 0.71, 0.86, 0.93, 0.962, spread=0.004),
            curve("in-distribution", 0.9, 0.935, 0.952, 0.958, no_query_accuracy=0.62),
            curve("jbda", 0.55, 0.7, 0.78, 0.81, no_query_accuracy=0.4),
            curve("dfme", 0.11, 0.12, 0.14, ended="dropped"),
            curve("knockoff (label-only)", 0.52, 0.7, 0.79, 0.84, labels="hard", shares="knockoff"),
        ),
        resistance=Resistance(throttled=37, throttled_after=2211, waited_s=41.5),
        felt=(Felt("quiet", 300, 0.0, 0.985, 8.1, 20.4), Felt("campaign", 300, 0.003, 0.982, 9.7, 44.0)),
        spent=12.0,
        ledger=LedgerFacts(QUERIES, "0" * 64, QUERIES, 2),
        not_tried=(
            NotTried("maze", "needs some three million queries, and the budget is 10,000"),
            NotTried("gate-aware", "the service refused nothing that such a thief could learn from"),
            NotTried("several accounts", "one set of headers was given"),
        ),
        verdict=verdict.UNJUDGED,
    )
    return verdict.judged(dataclasses.replace(whole, **changed))


def ledger(folder: Path, lines: int) -> LedgerFacts:
    """Write a ledger of so many queries and its answers; the pictures are `image N`, the answers `answer N`."""
    text, answers = "", b""
    for number in range(lines):
        answer = f"answer {number}".encode()
        line = {
            "index": number,
            "phase": "knockoff",
            "image_sha256": hashlib.sha256(f"image {number}".encode()).hexdigest(),
            "answer_sha256": hashlib.sha256(answer).hexdigest(),
            "status": 200,
            "at": f"2026-11-30T13:00:{number % 60:02}.000+00:00",
            "offset": len(answers),
            "length": len(answer),
        }
        text, answers = text + json.dumps(line) + "\n", answers + answer
    (folder / measured.LEDGER).write_text(text)
    (folder / measured.ANSWERS).write_bytes(answers)
    return LedgerFacts(lines, hashlib.sha256(text.encode()).hexdigest(), lines, 0)


def run(folder: Path, *, lines: int = 500, **changed: Any) -> Measured:
    """A run's folder: measured.json and its ledger, of so many lines."""
    folder.mkdir(parents=True, exist_ok=True)
    found = made(**{"ledger": ledger(folder, lines), **changed})
    measured.write(found, folder)
    return found
