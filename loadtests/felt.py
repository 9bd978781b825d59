"""What benign users felt of an attack: the "felt" rows of a report, from the summary that its Locust run left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.rows.impact import FeltRow


def rows(
    summary: Mapping[str, Any], *, recipe: str, policy: str, attack: str, labels: str, users: int
) -> tuple[FeltRow, ...]:
    """A row for the stretch before the attack and one for the attack; `summary` is a loadtests.tally.Tally's."""
    told = summary["attack"]
    return tuple(
        FeltRow(
            recipe=recipe,
            policy=policy,
            attack=attack,
            labels=labels,
            stretch=stretch,
            users=users,
            **{name: told[name] for name in ("clients", "dilution", "stolen", "sent")},
            **told[stretch],
        )
        for stretch in FeltRow.STRETCHES
    )
