"""How long adoption takes, in front of the owner's own pictures: by weights and by graph."""

from __future__ import annotations

from collections.abc import Iterator

from bench.adopted.owner import ARCHITECTURE
from bench.adopted.workplace import FITTED, Workplace
from report.rows.adopted import ProgramRow

ROUNDS = 2


def measure(place: Workplace) -> Iterator[ProgramRow]:
    """A row for each form. Every preprocessing is tried: labels alone decide for the weights, the owner's own
    predictions for the graph, whose normalisation was left outside."""
    files = place.owner
    forms = {
        "adopt weights": (files.weights, "--architecture", ARCHITECTURE),
        "adopt graph": (files.graph, "--expect", files.expect),
    }
    for what, words in forms.items():
        name = what.replace(" ", "-")
        folders = ("--recipes", place.folder, "--runs", place.runs, "--name", name, "--replace")
        ran = [place.run("export.adopt", *words, "--images", place.fitted, *folders) for _ in range(ROUNDS)]
        peaks = {counter: max(each.peak_mb[counter] for each in ran) for counter in ran[0].peak_mb}
        yield ProgramRow(what, "export.adopt", FITTED, tuple(each.seconds for each in ran), {}, peaks)
