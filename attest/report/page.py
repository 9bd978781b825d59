"""The report of an attest: one HTML file of three printed pages, without script and network.

1  does it hold, at what price, can I believe it; every thief's clone; what users felt
2  the controls that frameworks ask for: passed, failed, not tested and why
3  what was not tried; versions and seeds; how to verify it
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import jinja2

from attest import verdict
from attest.measured import Measured
from attest.report import figures
from attest.report.controls import controls
from report.format import number, percent

TEMPLATE = Path(__file__).with_name("report.html.j2")
ENDED = {
    "budget": "budget spent",
    "exhausted": "nothing more to ask",
    "dropped": "others gained more",
    "nothing to gain": "nothing to gain",
    "stopped": "no longer answered",
}


def render(measured: Measured, marks: Mapping[str, str] | None = None) -> str:
    """The page as HTML. What was measured is escaped; only the figure is taken as it is.

    marks: of what will be signed, `measured` (SHA-256 of measured.json), `root` of the ledger's tree and `fingerprint`
    of the key. Without them the page says that it is not signed.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # a line must not break before the sign
    environment.filters.update(percent=lambda share: percent(share).replace(" ", "\u00a0"), number=number)
    rows = controls(measured)
    return environment.get_template(TEMPLATE.name).render(
        measured=measured,
        marks=marks,
        sentence=_without_word(measured),
        by=verdict.BY,
        confidence=verdict.confidence(measured.verdict),
        caveats=verdict.caveats(measured.verdict),
        best=max(verdict.bought(measured), key=lambda each: each.share, default=None),
        first=verdict.first(measured, verdict.BY.copied),
        bought=_largest_share(measured),
        price=lambda amount: verdict.price_of(amount, measured.target.currency),
        figure=figures.curves(measured) if any(curve.points for curve in measured.curves) else None,
        ended=ENDED,
        frameworks={name: list(each) for name, each in itertools.groupby(rows, lambda row: row.framework)},
        counts={
            state: sum(row.state == state for row in rows) for state in ("passed", "partly", "failed", "not tested")
        },
    )


def _without_word(measured: Measured) -> str:
    """The verdict's sentence as it stands below the word."""
    text = measured.verdict.sentence.removeprefix(f"{measured.verdict.word.capitalize()}: ")
    return text[:1].upper() + text[1:]


def _largest_share(measured: Measured) -> dict[str, float]:
    """What each thief's best clone got of what there was to buy, for those that had something to gain."""
    found: dict[str, float] = {}
    for each in verdict.bought(measured):
        found[each.curve.thief] = max(each.share, found.get(each.curve.thief, each.share))
    return found
