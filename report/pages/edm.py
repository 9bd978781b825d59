"""results/edm-*.json to docs/results/edm.md and its figures: EDM's tables redone, beside the paper's.

    python -m report.pages.edm

Every number on the page comes from the results files, but the paper's own (Kariyappa et al., ICLR 2021, Tables 1, 3, 4
and 5), which stand here. Its sentences hold whatever the numbers are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report import atomic
from report.figures import routing
from report.headline import UNDEFENDED, Cell, cells
from report.pages import page
from report.rows.policies import PolicyRow
from report.rows.routing import CoherenceRow, InvarianceRow, entropy
from report.rows.training import TrainingRow
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("edm.md.j2")
REGULAR, EDM = "ensemble", "edm"
# the three targets, in points of 100
NEAR, LOWER, WITHIN = 85.0, 25.0, 0.5


@dataclass(frozen=True)
class Paper:
    """The paper's numbers for one data set, in percent: Table 1's accuracies, Table 3's Knockoff clones (soft, hard),
    Table 4's clone of a regular ensemble, Table 5's clone of the averaging thief (both soft)."""

    undefended: float
    edm: float
    soft: tuple[float, float]
    hard: tuple[float, float]
    regular: float
    averaging: float


PAPER = {
    "mnist": Paper(99.49, 99.5, (90.18, 51.34), (61.20, 41.25), 88.04, 72.00),
    "fashionmnist": Paper(91.02, 91.01, (34.76, 15.28), (28.60, 15.64), 30.11, 15.02),
    "cifar10": Paper(94.83, 94.35, (85.39, 68.50), (73.64, 54.98), 84.25, 63.89),
}


@dataclass(frozen=True)
class Balance:
    """How one policy spreads one traffic over its members: entropy over that of equal shares, and the largest share."""

    policy: str
    traffic: str
    entropy: float
    largest: float


@dataclass(frozen=True)
class Experiment:
    """One results file, with the look-ups that the page needs."""

    recipe: str
    report: Report
    paper: Paper | None

    @property
    def dataset(self) -> str:
        return str(self.report.run.settings["dataset"]["name"])

    @property
    def hashed(self) -> list[str]:
        """The policies that differ from EDM's in their hash alone, EDM first."""
        trained = {row.predictor for row in self.report.training}
        names = list(dict.fromkeys(row.policy for row in self.report.hash_costs))
        return sorted((name for name in names if name not in trained - {EDM}), key=lambda name: (name != EDM, name))

    def policy(self, name: str) -> PolicyRow | None:
        return next((row for row in self.report.policies if row.policy == name), None)

    def cell(self, policy: str, labels: str, budget: int, attack: str = "knockoff") -> Cell | None:
        rows = (row for row in self.report.attacks if row.policy == policy)
        return next((c for c in cells(rows) if (c.attack, c.labels, c.budget) == (attack, labels, budget)), None)

    @property
    def budgets(self) -> list[int]:
        """Budgets of the plain attack, ascending."""
        return sorted({row.budget for row in self.report.attacks if row.adaptive is None})

    @property
    def averaged(self) -> list[tuple[int, int]]:
        """(images, charged queries) of the averaging attack, where the plain one has as many images."""
        charged = {row.budget for row in self.report.attacks if row.adaptive == "averaging"}
        return [(images, spent) for spent in sorted(charged) for images in self.budgets if spent == 5 * images]

    def normalised(self, policy: str, cell: Cell | None) -> float | None:
        served = self.policy(policy)
        return cell.accuracy / served.accuracy if cell and served else None

    def training(self, predictor: str) -> TrainingRow | None:
        return next((row for row in self.report.training if row.predictor == predictor), None)

    def balance(self) -> list[Balance]:
        counts: dict[tuple[str, str], list[int]] = {}
        for row in self.report.routing:
            counts.setdefault((row.policy, row.traffic), []).append(row.rows)
        shown = {*self.hashed, *self.public}
        return [
            Balance(policy, traffic, entropy(rows), max(rows) / sum(rows))
            for (policy, traffic), rows in counts.items()
            if policy in shown
        ]

    @property
    def public(self) -> list[str]:
        """The public hashes that were measured for comparison."""
        known = {row.policy for row in self.report.hash_costs}
        return [name for name in dict.fromkeys(row.policy for row in self.report.invariance) if name not in known]

    @property
    def traffics(self) -> list[str]:
        return list(dict.fromkeys(row.traffic for row in self.report.routing))

    def kept(self, policy: str, traffic: str) -> list[InvarianceRow]:
        """Share of transformed copies that keep their member, at each strength, weakest first."""
        found = [row for row in self.report.invariance if (row.policy, row.traffic) == (policy, traffic)]
        return sorted(found, key=lambda row: row.degrees)

    @property
    def thief(self) -> str:
        """The traffic of a thief with images."""
        return next(name for name in self.traffics if name.startswith("thief"))

    def coherence(self, policy: str) -> list[CoherenceRow]:
        return [row for row in self.report.coherence if row.policy == policy]


@dataclass(frozen=True)
class Verdict:
    """One target of the experiment: what was asked, what was seen."""

    recipe: str
    asked: str
    seen: float | None
    met: bool | None


def verdicts(experiment: Experiment) -> list[Verdict]:
    """The three targets, at the largest budget, soft labels; in points. None: not measured."""
    budget = experiment.budgets[-1]
    undefended = experiment.cell(UNDEFENDED, "soft", budget)
    defended = experiment.cell(EDM, "soft", budget)
    served = experiment.policy(EDM)
    level = 100 * undefended.accuracy if undefended else None
    lost = 100 * (undefended.accuracy - defended.accuracy) if undefended and defended else None
    drop = 100 * served.accuracy_drop if served else None
    with_queries = f"soft labels, {budget:,} queries"
    found = [
        Verdict(
            experiment.recipe,
            f"EDM's clone at least {LOWER:.0f} points below the undefended, {with_queries}",
            lost,
            None if lost is None else lost >= LOWER,
        ),
        Verdict(
            experiment.recipe,
            f"accuracy as served within {WITHIN} points of undefended",
            drop,
            None if drop is None else drop <= WITHIN,
        ),
    ]
    if experiment.dataset == "mnist":
        asked = f"undefended clone near the paper's 90 % (at least {NEAR:.0f}), {with_queries}"
        found.insert(0, Verdict(experiment.recipe, asked, level, None if level is None else level >= NEAR))
    return found


def main() -> None:
    """Run the command line; missing or malformed results are a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m report.pages.edm", description="edm-*.json to a page")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of edm-*.json (results)")
    parser.add_argument("--output", type=Path, default=Path("docs/results/edm.md"), help="(docs/results/edm.md)")
    options = parser.parse_args()
    try:
        experiments = load(options.results)
    except ResultError as error:
        sys.exit(f"report.pages.edm: {error}")
    plots = plot(experiments)
    for name, svg in plots.items():
        atomic.write_text(options.output.with_name(name), svg)
    atomic.write_text(options.output, render(experiments))
    print(", ".join(str(options.output.with_name(name)) for name in (options.output.name, *plots)))


def load(folder: Path) -> list[Experiment]:
    """The experiments of a folder, MNIST first. Raises ResultError where there is none."""
    files = sorted(folder.glob("edm-*.json"), key=lambda file: (file.stem != "edm-mnist", file.stem))
    if not files:
        raise ResultError(f"{folder}: no edm-*.json; make one with `make reproduce RECIPE=mnist`")
    found = []
    for file in files:
        report = read(file)
        recipe = file.stem.removeprefix("edm-")
        found.append(Experiment(recipe, report, PAPER.get(str(report.run.settings["dataset"]["name"]))))
    return found


def plot(experiments: Sequence[Experiment]) -> dict[str, str]:
    """The page's figures as SVG, by file name."""
    thefts = {each.recipe: [row for row in each.report.coherence if row.traffic == each.thief] for each in experiments}
    copies = {
        f"{each.recipe}, {kind}": {
            policy: each.kept(policy, traffic)[1].sorted_counts for policy in (*each.hashed, *each.public)
        }
        for each in experiments
        for kind, traffic in (("benign", each.traffics[0]), ("thief's", each.thief))
    }
    return {"edm-coherence.svg": routing.coherence(thefts), "edm-invariance.svg": routing.copies(copies)}


def render(experiments: Sequence[Experiment]) -> str:
    """The page as Markdown."""
    return page.render(
        TEMPLATE,
        experiments=experiments,
        verdicts=[verdict for each in experiments for verdict in verdicts(each)],
        undefended=UNDEFENDED,
        regular=REGULAR,
        edm=EDM,
    )


if __name__ == "__main__":
    main()
