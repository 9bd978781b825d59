"""results/gate-aware-*.json to docs/results/gate-aware.md: what thieves get past SAME's gate who know that it is there.

    python -m report.pages.gate_aware

Every number on the page comes from the results files; its sentences hold whatever the numbers are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report import atomic
from report.figures.bought import bought
from report.gain import Gain, gain
from report.headline import UNDEFENDED, Cell, cells
from report.pages import page
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("gate_aware.md.j2")
# the gate that the page opens with, and the thief that no gate can tell from a customer
GATE, CUSTOMER = "same-reject", "in-distribution"
# the gate before an ensemble
BOTH = "edm-same"


@dataclass(frozen=True)
class Behind:
    """One thief behind one policy with a gate. gain: None where its baseline was not measured."""

    policy: str
    cell: Cell
    gain: Gain | None

    @property
    def refused(self) -> float:
        """Share of its charged images."""
        return self.cell.rejected / self.cell.queries


@dataclass(frozen=True)
class Thief:
    """One thief and reading: its clone of the undefended victim, and behind each gate."""

    name: str
    labels: str
    undefended: Cell
    gates: tuple[Behind, ...]

    def behind(self, policy: str) -> Behind | None:
        return next((each for each in self.gates if each.policy == policy), None)

    @property
    def points(self) -> float:
        """What its queries bought behind GATE, or behind the first gate that it met, as a fraction of test images."""
        met = self.behind(GATE) or self.gates[0]
        return met.gain.points if met.gain else met.cell.accuracy


@dataclass(frozen=True)
class Study:
    """One results file, read. thieves: those whose queries bought most behind GATE first."""

    report: Report
    thieves: tuple[Thief, ...]

    @property
    def recipe(self) -> str:
        return self.report.attacks[0].recipe

    @property
    def policies(self) -> tuple[str, ...]:
        """Those with a gate."""
        return tuple(dict.fromkeys(each.policy for thief in self.thieves for each in thief.gates))

    @property
    def tellable(self) -> tuple[Thief, ...]:
        """Those behind GATE whose images are not the task's own."""
        return tuple(each for each in self.thieves if each.behind(GATE) and not each.name.startswith(CUSTOMER))

    @property
    def both(self) -> Thief | None:
        """The thief with the best clone behind BOTH whose images are not the task's own."""
        met = [each for each in self.tellable if each.behind(BOTH)]
        return max(met, key=lambda each: _accuracy(each, BOTH), default=None)

    @property
    def figure(self) -> str:
        """Of the thieves who read probabilities."""
        shown = {
            thief.name: {UNDEFENDED: thief.undefended, **{each.policy: each.cell for each in thief.gates}}
            for thief in self.thieves
            if thief.labels == "soft"
        }
        return bought(shown, policies=(UNDEFENDED, *self.policies))

    @property
    def picture(self) -> str:
        """The name of the figure's file."""
        return f"gate-aware-{self.recipe}.svg"


def main() -> None:
    """Run the command line; a missing or malformed results file is a message and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m report.pages.gate_aware", description="gate-aware-*.json to a page"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=Path("docs/results/gate-aware.md"), metavar="FILE")
    options = parser.parse_args()
    try:
        studies = found(options.results)
        text = render(studies)
    except ResultError as error:
        sys.exit(f"report.pages.gate_aware: {error}")
    for each in studies:
        atomic.write_text(options.output.parent / each.picture, each.figure)
    atomic.write_text(options.output, text)
    print(options.output)


def found(folder: Path) -> list[Study]:
    """All that was measured. Raises ResultError where nothing was, or where a file lacks what the page is about."""
    paths = sorted(folder.glob("gate-aware-*.json"), key=lambda path: ("-mnist" not in path.name, path.name))
    if not paths:
        raise ResultError(f"{folder}: no gate-aware-*.json; make gate-aware RECIPE=mnist measures one")
    return [study(read(path, measured_by="make gate-aware")) for path in paths]


def render(studies: Sequence[Study]) -> str:
    """The page."""
    return page.render(TEMPLATE, studies=studies, gate=GATE)


def study(report: Report) -> Study:
    """Each thief that met `undefended` and a gate. Raises ResultError where there is none that a gate could tell."""
    stolen = {
        policy: {
            (cell.attack, cell.labels): cell for cell in cells(row for row in report.attacks if row.policy == policy)
        }
        for policy in dict.fromkeys(row.policy for row in report.attacks)
    }
    plain = stolen.pop(UNDEFENDED, {})
    thieves = []
    for key, undefended in plain.items():
        gates = tuple(
            Behind(policy, mine[key], gain(mine[key], undefended)) for policy, mine in stolen.items() if key in mine
        )
        if gates:
            thieves.append(Thief(*key, undefended, gates))
    result = Study(report, tuple(sorted(thieves, key=lambda thief: -thief.points)))
    if not result.tellable:
        raise ResultError(f"attacks: expected thieves of `{UNDEFENDED}` and `{GATE}` other than {CUSTOMER}, got none")
    return result


def _accuracy(thief: Thief, policy: str) -> float:
    met = thief.behind(policy)
    return met.cell.accuracy if met else 0.0


if __name__ == "__main__":
    main()
