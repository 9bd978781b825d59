"""results/unmixing-mnist.json to docs/results/unmixing.md: what EDM's answers tell whoever has read its paper.

    python -m report.pages.unmixing

Every number on the page comes from the results file; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report import atomic
from report.headline import UNDEFENDED, Cell, cells
from report.pages import page
from report.rows.training import TrainingRow
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("unmixing.md.j2")
# what each thief does with the answers; others follow by name
THIEVES = {
    "knockoff": "fits them as they are",
    "knockoff (log-p)": "fits the logits behind them",
    "knockoff (centred)": "takes each label's mean logits off",
    "knockoff (mixture)": "takes the mean logits of each cluster of answers off",
    "knockoff (masked)": "leaves out the label where it is a frequent one",
    "knockoff (masked-log-p)": "leaves out the label where it is a frequent one, and fits the other logits",
    "knockoff (second-label)": "reads the second label where the first is a frequent one",
    "knockoff (prior-adjusted)": "counts frequent labels for less",
}


@dataclass(frozen=True)
class Thief:
    """One thief and reading: its clones of the undefended victim, and of the ensemble."""

    name: str
    labels: str
    undefended: Cell
    ensemble: Cell

    @property
    def does(self) -> str:
        return THIEVES.get(self.name, "")

    @property
    def lost(self) -> float:
        """What the ensemble takes from this thief, a fraction of all test images."""
        return self.undefended.accuracy - self.ensemble.accuracy


@dataclass(frozen=True)
class Verdict:
    """The strongest thief of each reading, by the clones of the ensemble; and of the undefended victim."""

    soft: Thief
    hard: Thief
    undefended_soft: Cell
    undefended_hard: Cell


def main() -> None:
    """Run the command line; a missing or malformed results file is a message and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m report.pages.unmixing", description="unmixing-mnist.json to a page"
    )
    parser.add_argument("--results", type=Path, default=Path("results/unmixing-mnist.json"), metavar="FILE")
    parser.add_argument("--output", type=Path, default=Path("docs/results/unmixing.md"), metavar="FILE")
    options = parser.parse_args()
    try:
        text = render(read(options.results, measured_by="make unmixing RECIPE=mnist"))
    except ResultError as error:
        sys.exit(f"report.pages.unmixing: {error}")
    atomic.write_text(options.output, text)
    print(options.output)


def render(report: Report) -> str:
    """The page. Raises ResultError where a policy or a reading is missing."""
    (policy,) = {row.policy for row in report.attacks} - {UNDEFENDED}
    found = thieves(report, policy)
    return page.render(
        TEMPLATE, run=report.run, policy=policy, thieves=found, verdict=verdict(found), members=members(report)
    )


def thieves(report: Report, policy: str) -> list[Thief]:
    """Each thief that both policies met, those who get most of the ensemble first."""

    def stolen(name: str) -> dict[tuple[str, str], Cell]:
        return {(cell.attack, cell.labels): cell for cell in cells(row for row in report.attacks if row.policy == name)}

    plain, mixed = stolen(UNDEFENDED), stolen(policy)
    both = [Thief(*key, plain[key], mixed[key]) for key in mixed if key in plain]
    return sorted(both, key=lambda thief: -thief.ensemble.accuracy)


def verdict(found: Sequence[Thief]) -> Verdict:
    """What the page opens with. Raises ResultError where a reading was not measured."""
    soft, hard = ([each for each in found if each.labels == labels] for labels in ("soft", "hard"))
    if not soft or not hard:
        raise ResultError("attacks: expected thieves who read probabilities and thieves who read labels")
    strongest = [max((each.undefended for each in side), key=lambda cell: cell.accuracy) for side in (soft, hard)]
    return Verdict(soft[0], hard[0], *strongest)


def members(report: Report) -> TrainingRow:
    """How the ensemble was trained, and what its members give away."""
    (row,) = [row for row in report.training if row.members > 1]
    return row


if __name__ == "__main__":
    main()
