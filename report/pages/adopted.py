"""results/adopted-bench.json to docs/your-model-costs.md: what an adopted model of real size costs its owner.

    python -m report.pages your-model-costs

Every number on the page comes from the results file; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from report.format import ratios
from report.pages import page
from report.rows.adopted import PictureRow, ProgramRow
from report.schema import Report, read

# goals: seconds of an adoption, of the gate's epoch; times the victim's answer; megabytes; times computing
ADOPTION_S, EPOCH_S = 60.0, 60.0
TIMES = {"same-observe": 1.15, "edm": 1.10}
RESIDENT_MB = 3000.0
READING = 1.2
# milliseconds of a core, of a photograph of 12 megapixels; times the classifier's own size
DECODING_MS = 25.0
PICTURE = 1.25


@dataclass(frozen=True)
class Goal:
    """What was to be kept below, and what was measured, in a unit."""

    what: str
    most: float
    measured: float
    unit: str
    digits: int

    @property
    def kept(self) -> bool:
        return self.measured <= self.most


def pages(results: Path) -> dict[str, str]:
    """The page, by file name below docs/. Raises ResultError."""
    report = read(results / "adopted-bench.json", measured_by="make bench-adopted")
    return {"your-model-costs.md": render(report)}


def render(report: Report) -> str:
    """The page."""
    return page.render(
        "adopted.md.j2",
        run=report.run,
        goals=sorted(goals(report), key=lambda goal: goal.kept),
        programs=report.adopted_programs,
        costs=report.defense_costs,
        reading=report.adopted_reading,
        pictures=report.adopted_pictures,
        epochs=epochs,
        ratios=ratios,
    )


def goals(report: Report) -> Iterator[Goal]:
    """Those that the rows tell something about."""
    for row in report.adopted_programs:
        if row.what.startswith("adopt"):
            yield Goal(
                f"`make adopt` of a ResNet-18, {row.what.removeprefix('adopt ')}", ADOPTION_S, row.seconds, "s", 0
            )
    for defense, most in TIMES.items():
        costs = [cost for cost in report.defense_costs if cost.defense == defense]
        if costs:
            dearest = max(costs, key=lambda cost: cost.times)
            batches = " or ".join(str(cost.batch) for cost in costs)
            what = f"`{defense}` at {batches} rows a request (dearest: {dearest.batch})"
            yield Goal(what, most, dearest.times, "times undefended", 3)
    for row in report.adopted_programs:
        if row.what.startswith("read ") and row.peak_mb:
            what = f"a training that reads {row.photographs:,} photographs, {row.what.removeprefix('read ')}"
            yield Goal(what, RESIDENT_MB, row.peak_mb["resident"], "MB resident", 0)
    for each in report.adopted_reading:
        yield Goal(f"an epoch that reads, {each.member}", READING, each.times, "times its computing", 2)
    for row in report.adopted_programs:
        if row.what == "gate":
            slowest = max(row.epoch_seconds, key=lambda network: max(row.epoch_seconds[network]))
            what = f"an epoch of the gate over {row.photographs:,} photographs (slowest network: {slowest})"
            yield Goal(what, EPOCH_S, max(row.epoch_seconds[slowest]), "s", 1)
    yield from pictures(report)


def pictures(report: Report) -> Iterator[Goal]:
    """Those about photographs."""
    served = [picture for picture in report.adopted_pictures if picture.rate_rounds]
    for picture in served[:-1]:
        what = f"a photograph ({picture.picture}) answered by TorchServe, against the same already in the model's size"
        yield Goal(what, PICTURE, median(times(picture, served[-1])), "times its time", 3)
    for picture in report.adopted_pictures:
        if not picture.rate_rounds:
            what = f"a photograph ({picture.picture}) from its file to pixels"
            yield Goal(what, DECODING_MS, picture.decoding_ms, "ms of a core", 1)


def times(picture: PictureRow, fitting: PictureRow) -> tuple[float, ...]:
    """The time of a picture over that of one in the model's size, round by round."""
    return tuple(b / a for a, b in zip(picture.rate_rounds, fitting.rate_rounds, strict=True))


def epochs(row: ProgramRow) -> str:
    """Of each network the mean of its epochs, and their number."""
    found = [f"{name} {mean(each):.1f} s (n = {len(each)})" for name, each in row.epoch_seconds.items()]
    return ", ".join(found) or "-"
