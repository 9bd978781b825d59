"""results/meco-*.json to docs/results/meco.md and its figures: what MeCo costs, what it stops, what averages it away.

    python -m report.pages.meco

Every number on the page comes from the results files, but the paper's (Wang et al., NeurIPS 2023, Tables 1 to 3 and
section 5.5), which stand here and in the template. Its sentences hold whatever the numbers are: those that say who is
best, or what was missed, are made from them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, mode, stdev
from typing import Any

from attacks.names import COPIES, LABELS, without_copies
from report import atomic
from report.figures.averaging import averaging
from report.figures.gradients import cosines
from report.figures.heat_map import heat_map
from report.format import number, ratio
from report.headline import UNDEFENDED, Cell, Line
from report.pages import page
from report.pages.thieves import Study, share, tried, who
from report.rows.bench import DefenseCostRow
from report.rows.clones import AttackRow
from report.rows.gradients import GradientRow
from report.rows.noise import DenoisingRow, NoiseRow
from report.rows.policies import PolicyRow
from report.schema import Report, ResultError, read

TEMPLATE = Path(__file__).with_name("meco.md.j2")
FRESH, DEFAULT = "meco", "meco-keyed"
# where a policy's noise comes from
NOISES = {
    FRESH: "drawn anew for every query",
    DEFAULT: "keyed by the image, a mix of the next two",
    "meco-keyed-bytes": "keyed by the image's exact bytes",
    "meco-keyed-perceptual": "keyed by a perceptual code of the image",
}
ABLATIONS = {
    "meco-without-dro": "no particle steps",
    "meco-gaussian": "Gaussian noise of the same size, nothing learned",
    "meco-gaussian-small": "Gaussian noise that users lose no more by",
    "meco-random-filters": "the released code's random filters, drawn for each image",
}
BASELINES = (UNDEFENDED, "label", "randp", "mad", "grad", "randp-small", "mad-small", "grad-small")
POLICIES = (*BASELINES, *NOISES, *ABLATIONS)
# what meets more thieves than Knockoff
COMPARED = (*BASELINES, FRESH, DEFAULT)
# adaptive forms that ask for copies of an image, as the page calls them
COPYING = {"repeats": "identical", "jittered": "jittered"}
COPIED = "knockoff"
# the target, in points
WITHIN = 0.5
# a thief who loses fewer points than this is not stopped, if its clone of `undefended` reaches this share of the
# victim's own accuracy; other thieves get nothing to speak of either way
STOPPED = 5.0
WORTH = 0.5
# what optimisations at test time are to be slower by: the paper's section 5.5
PAPER_TIMES = "17 to 172"
# test images of a data set, which no row tells
TEST_IMAGES = {"mnist": 10_000, "fashionmnist": 10_000, "cifar10": 10_000}
# of traffic in the "noise" rows, by how its names begin
BENIGN, THIEVING = "benign (", "thief ("


@dataclass(frozen=True)
class Paper:
    """The paper's Table 3 for one policy: accuracy in percent, and l1."""

    accuracy: float
    l1: float

    def __str__(self) -> str:
        return f"{self.accuracy} % ({self.l1})"


# P-poison is MAD
PAPER = {
    "mnist": {
        UNDEFENDED: Paper(98.91, 0.0),
        "randp": Paper(98.52, 1.0),
        "mad": Paper(98.87, 1.0),
        "grad": Paper(98.73, 1.0),
        FRESH: Paper(98.63, 0.0126),
    },
    "cifar10": {
        UNDEFENDED: Paper(94.91, 0.0),
        "randp": Paper(93.98, 1.0),
        "mad": Paper(94.58, 1.0),
        "grad": Paper(94.65, 1.0),
        FRESH: Paper(94.17, 0.099),
    },
}


@dataclass(frozen=True)
class Verdict:
    """The target on what users lose, for one policy. served: None where it was not measured."""

    policy: str
    served: PolicyRow | None

    @property
    def met(self) -> bool | None:
        return None if self.served is None else round(100 * self.served.accuracy_drop, 6) <= WITHIN

    def __str__(self) -> str:
        return "not measured" if self.met is None else "yes" if self.met else "**no**"


@dataclass(frozen=True)
class Curve:
    """Clones of one policy from copies of one kind; cells by copies an image, ascending, 1 for the plain thief."""

    policy: str
    kind: str
    cells: dict[int, Cell]

    @property
    def best(self) -> tuple[int, Cell] | None:
        """(copies, cell) of the best clone from more than one copy."""
        several = [(count, cell) for count, cell in self.cells.items() if count > 1]
        return max(several, key=lambda each: each[1].accuracy, default=None)

    @property
    def gain(self) -> float | None:
        """Of the best over the plain thief."""
        return self.best[1].accuracy - self.cells[1].accuracy if self.best and 1 in self.cells else None


@dataclass(frozen=True)
class Copying:
    """The averaging thieves of one reading that ask alike: for `size` queries in all, or about `size` images."""

    labels: str
    equal: str
    size: int
    curves: tuple[Curve, ...]
    undefended: Cell | None

    @property
    def title(self) -> str:
        return f"{self.labels} labels, {number(self.size, 0)} {self.equal}"

    @property
    def counts(self) -> list[int]:
        return sorted({count for curve in self.curves for count in curve.cells})

    def curve(self, policy: str, kind: str) -> Curve | None:
        return next((curve for curve in self.curves if (curve.policy, curve.kind) == (policy, kind)), None)


@dataclass(frozen=True)
class Choice:
    """What one noise leaves a thief of COPIED with soft labels, and one who follows gradients.

    plain: without copies. curves: with copies, by what is held equal and kind of copies. once, averaged: the largest
    cosine of any traffic and probe, from one answer and from the mean of most. left: of the distance from T(x) on the
    thief's images, what the mean of the most copies leaves, by kind of copies.
    """

    policy: str
    plain: Cell | None
    curves: dict[tuple[str, str], Curve]
    once: GradientRow | None
    averaged: GradientRow | None
    left: dict[str, DenoisingRow]

    @property
    def worst(self) -> Cell | None:
        """The best clone for equal queries."""
        best = [curve.best for (equal, _), curve in self.curves.items() if equal == "queries"]
        found = [self.plain, *(each[1] for each in best if each)]
        return max((cell for cell in found if cell), key=lambda cell: cell.accuracy, default=None)

    @property
    def clearest(self) -> GradientRow | None:
        """What the thief who follows gradients sees best."""
        return _clearest([row for row in (self.once, self.averaged) if row])


@dataclass(frozen=True)
class Mixed:
    """The mix beside what it is mixed from.

    own, bytes: what the most jittered copies leave of the mix, and of noise keyed by the bytes. seen, shown: the
    clearest view of the gradient through the mix, and through noise keyed by the perceptual code.
    """

    own: DenoisingRow
    bytes: DenoisingRow
    seen: GradientRow
    shown: GradientRow

    @property
    def keeps(self) -> bool:
        return self.own.l1 > self.bytes.l1

    @property
    def hides(self) -> bool:
        return self.seen.cosine < self.shown.cosine


@dataclass(frozen=True)
class Pair:
    """One thief on `undefended` and on another policy, for as many queries."""

    undefended: Cell
    defended: Cell

    @property
    def lost(self) -> float:
        return self.undefended.accuracy - self.defended.accuracy

    @property
    def stopped(self) -> bool | None:
        """None where there is nothing to stop."""
        if (self.undefended.normalised or 0.0) < WORTH:
            return None
        return round(100 * self.lost, 6) >= STOPPED


@dataclass(frozen=True)
class Ratio:
    """How much slower one way to answer a batch is than MeCo's: by policy of MeCo, median over rounds."""

    batch: int
    defense: str
    form: str
    times: dict[str, float]


@dataclass(frozen=True)
class Experiment:
    """One results file, with the look-ups that the page needs."""

    recipe: str
    report: Report

    @property
    def dataset(self) -> str:
        """Empty where no theft told it."""
        return str(self.report.run.settings.get("dataset", {}).get("name", ""))

    @property
    def architectures(self) -> list[str]:
        """The victim's; empty where no time was measured."""
        return list(dict.fromkeys(row.architecture for row in self.report.defense_costs))

    @property
    def command(self) -> str:
        """What makes the results file."""
        recipe = self.recipe.removesuffix("-paper")
        return f"make reproduce-meco RECIPE={recipe}" + (" TIER=paper" if recipe != self.recipe else "")

    @property
    def test_images(self) -> int | None:
        """None where the data set's are not known without its files."""
        return TEST_IMAGES.get(self.dataset)

    @property
    def standard_error(self) -> float | None:
        """Of the undefended accuracy, over test images."""
        served = self.policy(UNDEFENDED)
        if served is None or self.test_images is None:
            return None
        return math.sqrt(served.accuracy * (1 - served.accuracy) / self.test_images)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What the run was told, but for its lists of clones: (name, values)."""
        tables = self.report.run.settings.items()
        return [
            (
                name,
                ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
                if isinstance(value, dict)
                else _plain(value),
            )
            for name, value in sorted(tables)
            if not name.startswith("evaluate.")
        ]

    @cached_property
    def thefts(self) -> Study:
        """Every theft."""
        return Study(self.recipe, self.report)

    @cached_property
    def plain(self) -> Study:
        """Thefts without copies."""
        return self._some(row for row in self.report.attacks if not _copies(row.adaptive))

    @cached_property
    def compared(self) -> Study:
        """The same, of the policies that meet more than Knockoff."""
        return self._some(row for row in self.plain.report.attacks if row.policy in COMPARED)

    def policy(self, name: str) -> PolicyRow | None:
        return next((row for row in self.report.policies if row.policy == name), None)

    @property
    def served(self) -> list[PolicyRow]:
        """What each policy costs its users, in the page's order."""
        return sorted(self.report.policies, key=lambda row: _place(row.policy))

    @property
    def headline(self) -> list[Line]:
        """Of every policy that was robbed, by whatever thief, in the page's order."""
        return sorted(self.thefts.lines, key=lambda line: _place(line.policy))

    @property
    def without_data(self) -> dict[str, Line]:
        """The same against thieves that had no labelled image of the task, by policy; empty where others were not
        tried."""
        return {line.policy: line for line in sorted(self.thefts.without_data, key=lambda line: _place(line.policy))}

    def met(self, policy: str) -> int:
        """How many thieves robbed a policy, each reading for itself."""
        rows = (row for row in self.report.attacks if row.policy == policy)
        return len({(row.attack, row.adaptive, row.labels) for row in rows})

    @property
    def verdicts(self) -> list[Verdict]:
        return [Verdict(policy, self.policy(policy)) for policy in (FRESH, DEFAULT)]

    def noise(self, policy: str, traffic: str) -> NoiseRow | None:
        """The row of the traffic whose name begins so."""
        rows = (row for row in self.report.noise if row.policy == policy and row.traffic.startswith(traffic))
        return next(rows, None)

    @property
    def noises(self) -> list[NoiseRow]:
        """By traffic, policies in the page's order."""
        kinds = list(dict.fromkeys(row.traffic for row in self.report.noise))
        return sorted(self.report.noise, key=lambda row: (kinds.index(row.traffic), _place(row.policy)))

    def largest(self, policy: str, form: str | None, labels: str) -> Cell | None:
        """Knockoff's clone at the largest budget."""
        line = self._line(policy, form, labels)
        return line[-1] if line else None

    @property
    def most(self) -> int:
        """The largest budget of any theft."""
        return max((row.budget for row in self.report.attacks), default=0)

    @property
    def costs_alone(self) -> bool:
        """Whether nothing but time and memory was measured, as of a network whose weights mean nothing."""
        told = self.report
        return bool(told.defense_costs) and not (told.policies or told.attacks or told.noise or told.gradients)

    @property
    def ablations(self) -> list[str]:
        """The default's training, and what was measured of the others."""
        known = {row.policy for row in self.report.policies} | {row.policy for row in self.report.noise}
        return [policy for policy in (FRESH, *ABLATIONS) if policy in known]

    @cached_property
    def copying(self) -> list[Copying]:
        """The averaging thieves by reading, first for as many queries in all, then about as many images."""
        found = []
        for labels in LABELS:
            rows = [row for row in self.report.attacks if (row.attack, row.labels) == (COPIED, labels)]
            plain = {row.budget for row in rows if row.adaptive is None}
            asked = {(row.adaptive, row.budget) for row in rows if _copies(row.adaptive)}
            sizes = {
                "queries": [budget for _, budget in asked if budget in plain],
                "images": [budget // count for form, budget in asked for _, count in _copies(form)],
            }
            for equal, measured in sizes.items():
                known = sorted(size for size in measured if size in plain)
                if known:
                    found.append(self._copying(labels, equal, mode(known)))
        return found

    @property
    def choices(self) -> list[Choice]:
        """The noises that were measured in any way that a choice goes by."""
        soft = [each for each in self.copying if each.labels == "soft"]
        found = []
        for policy in NOISES:
            size = next((each.size for each in soft if each.equal == "queries"), None)
            plain = self.largest(policy, None, "soft") if size is None else self._at(policy, None, "soft", size)
            curves = {
                (each.equal, curve.kind): curve for each in soft for curve in each.curves if curve.policy == policy
            }
            gradients = [row for row in self.report.gradients if row.policy == policy]
            most = max((row.repeats for row in gradients), default=1)
            once, averaged = ([row for row in gradients if row.repeats == count] for count in (1, most))
            if plain or curves or gradients:
                least = _clearest(averaged) if most > 1 else None
                found.append(Choice(policy, plain, curves, _clearest(once), least, self._left(policy)))
        return found

    def _left(self, policy: str) -> dict[str, DenoisingRow]:
        rows = [row for row in self.report.denoising if row.policy == policy and row.traffic.startswith(THIEVING)]
        # ascending, so that the most copies stay
        return {row.copying: row for row in sorted(rows, key=lambda row: row.copies)}

    @property
    def denoised(self) -> dict[str, dict[tuple[str, str], dict[int, DenoisingRow]]]:
        """By traffic, then (policy, copying), then copies."""
        found: dict[str, dict[tuple[str, str], dict[int, DenoisingRow]]] = {}
        for row in sorted(self.report.denoising, key=lambda row: (_place(row.policy), row.copying)):
            found.setdefault(row.traffic, {}).setdefault((row.policy, row.copying), {})[row.copies] = row
        return found

    @property
    def counts(self) -> list[int]:
        """Of the copies that were averaged, ascending."""
        return sorted({row.copies for row in self.report.denoising})

    @property
    def least(self) -> Choice | None:
        """The noise that leaves the best of its thieves with images the least."""
        known = [choice for choice in self.choices if choice.worst]
        return min(known, key=lambda choice: choice.worst.accuracy if choice.worst else math.inf, default=None)

    @property
    def darkest(self) -> Choice | None:
        """The noise that shows least of the gradient."""
        known = [choice for choice in self.choices if choice.clearest]
        return min(known, key=lambda choice: choice.clearest.cosine if choice.clearest else math.inf, default=None)

    @property
    def mixed(self) -> Mixed | None:
        """The reason for the default; None where any of it was not measured."""
        by_policy = {choice.policy: choice for choice in self.choices}
        mix, exact, coarse = (by_policy.get(name) for name in (DEFAULT, "meco-keyed-bytes", "meco-keyed-perceptual"))
        if not (mix and exact and coarse):
            return None
        own, bytes_ = mix.left.get("jittered"), exact.left.get("jittered")
        seen, shown = mix.clearest, coarse.clearest
        return Mixed(own, bytes_, seen, shown) if own and bytes_ and seen and shown else None

    def pairs(self, policy: str) -> list[Pair]:
        """Each thief on `undefended` and on `policy`, at the largest budget that both have, soft and hard."""
        found = []
        study = self.compared
        if policy not in study.policies or UNDEFENDED not in study.policies:
            return []
        for attack, form in study.thieves:
            for labels in LABELS:
                bare = {cell.budget: cell for cell in study.of(attack, form, policy=UNDEFENDED, labels=labels)}
                both = [c for c in study.of(attack, form, policy=policy, labels=labels) if c.budget in bare]
                found += [Pair(bare[cell.budget], cell) for cell in both[-1:]]
        return sorted(found, key=lambda pair: pair.lost)

    @property
    def gradients(self) -> list[GradientRow]:
        """Policies in the page's order."""
        return sorted(self.report.gradients, key=lambda row: (_place(row.policy), row.repeats, row.epsilon))

    @property
    def lengths(self) -> list[float]:
        """Of the probes, ascending."""
        return sorted({row.epsilon for row in self.report.gradients})

    @property
    def estimates(self) -> dict[str, dict[tuple[str, int], dict[float, GradientRow]]]:
        """By traffic, then (policy, repeats), then the probe's length."""
        found: dict[str, dict[tuple[str, int], dict[float, GradientRow]]] = {}
        for row in self.gradients:
            found.setdefault(row.traffic, {}).setdefault((row.policy, row.repeats), {})[row.epsilon] = row
        return found

    @property
    def batches(self) -> list[int]:
        return sorted({row.batch for row in self.report.defense_costs})

    def costs(self, batch: int) -> list[DefenseCostRow]:
        rows = (row for row in self.report.defense_costs if row.batch == batch)
        return sorted(rows, key=lambda row: (_place(row.defense), row.form == "naive"))

    @property
    def ratios(self) -> Iterator[Ratio]:
        """MAD and GRAD in each form, over MeCo measured side by side."""
        for batch in self.batches:
            costs = self.costs(batch)
            own = {row.defense: row for row in costs if row.defense in (FRESH, DEFAULT)}
            for row in costs:
                if row.defense in ("mad", "grad") and own:
                    times = {policy: ratio(row.ms_rounds, each.ms_rounds) for policy, each in own.items()}
                    yield Ratio(batch, row.defense, row.form, times)

    @property
    def victim_seconds(self) -> float | None:
        """Of an epoch of the undefended victim's training."""
        return next((row.seconds_per_epoch for row in self.report.training if row.predictor == "victim"), None)

    @property
    def missing(self) -> list[tuple[str, str]]:
        """(what, of what) was not measured."""
        report = self.report
        served = [f"{name} (served)" for name in (UNDEFENDED, "randp", "mad", "grad", FRESH, DEFAULT)]
        expected: list[tuple[str, Iterable[str], set[str]]] = [
            ("accuracy as served", POLICIES, {row.policy for row in report.policies}),
            ("clones", POLICIES, {row.policy for row in report.attacks}),
            ("noise by traffic", (*NOISES, *ABLATIONS), {row.policy for row in report.noise}),
            ("distance left by averaging", ("randp", *NOISES), {row.policy for row in report.denoising}),
            ("gradients", (UNDEFENDED, "randp", *NOISES), {row.policy for row in report.gradients}),
            (
                "time and memory",
                (*served, "mad (naive)", "grad (naive)"),
                {f"{row.defense} ({row.form})" for row in report.defense_costs},
            ),
            ("training", ("victim", FRESH), {row.predictor for row in report.training}),
        ]
        for each in self.copying:
            for count in each.counts:
                for kind in COPYING.values():
                    known = {curve.policy for curve in each.curves if curve.kind == kind and count in curve.cells}
                    expected.append((f"{kind} copies, K = {count}, {each.title}", NOISES, known))
        if not self.copying:
            expected.append(("copies of an image", NOISES, set()))
        lacking = [(what, [name for name in names if name not in known]) for what, names, known in expected]
        lacking += [(f"{each.thief}, {each.labels} labels", list(each.policies)) for each in self.plain.missing]
        return [(what, ", ".join(names)) for what, names in lacking if names]

    def heat(self) -> dict[str, Any]:
        """What figures.heat_map draws."""
        return {**self.compared.heat(), "columns": sorted(self.compared.policies, key=_place)}

    def averaging(self) -> dict[str, Any]:
        """What figures.averaging draws."""
        return {
            "panels": {
                each.title: {(curve.policy, curve.kind): curve.cells for curve in each.curves} for each in self.copying
            },
            "levels": {each.title: each.undefended.accuracy for each in self.copying if each.undefended},
        }

    def _some(self, rows: Iterable[AttackRow]) -> Study:
        return Study(self.recipe, dataclasses.replace(self.report, attacks=tuple(rows)))

    def _line(self, policy: str, form: str | None, labels: str) -> list[Cell]:
        """Knockoff's clones of a policy, budgets ascending."""
        if policy not in self.thefts.policies:
            return []
        return self.thefts.of(COPIED, form, policy=policy, labels=labels)

    def _at(self, policy: str, form: str | None, labels: str, budget: int) -> Cell | None:
        return next((cell for cell in self._line(policy, form, labels) if cell.budget == budget), None)

    def _copying(self, labels: str, equal: str, size: int) -> Copying:
        forms = sorted({(*copies, form) for _, form in self.thefts.thieves for copies in _copies(form)})
        curves = []
        for policy in sorted(self.thefts.policies, key=_place):
            plain = self._at(policy, None, labels, size)
            for kind in COPYING.values():
                counted = {
                    count: self._at(policy, form, labels, size * count if equal == "images" else size)
                    for each, count, form in forms
                    if each == kind
                }
                cells = {count: cell for count, cell in {1: plain, **counted}.items() if cell}
                if set(cells) - {1}:
                    curves.append(Curve(policy, kind, cells))
        return Copying(labels, equal, size, tuple(curves), self._at(UNDEFENDED, None, labels, size))


def main() -> None:
    """Run the command line; missing or malformed results are a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m report.pages.meco", description="meco-*.json to a page")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of meco-*.json (results)")
    parser.add_argument("--output", type=Path, default=Path("docs/results/meco.md"), help="(docs/results/meco.md)")
    options = parser.parse_args()
    try:
        experiments = load(options.results)
    except ResultError as error:
        sys.exit(f"report.pages.meco: {error}")
    plots = plot(experiments)
    for name, svg in plots.items():
        atomic.write_text(options.output.with_name(name), svg)
    atomic.write_text(options.output, render(experiments))
    print(", ".join(str(options.output.with_name(name)) for name in (options.output.name, *plots)))


def load(folder: Path) -> list[Experiment]:
    """The experiments of a folder, MNIST's first. Raises ResultError where there is none."""
    files = sorted(folder.glob("meco-*.json"), key=lambda file: (not file.stem.startswith("meco-mnist"), file.stem))
    if not files:
        raise ResultError(f"{folder}: no meco-*.json; make one with `make reproduce-meco RECIPE=mnist`")
    return [Experiment(file.stem.removeprefix("meco-"), read(file)) for file in files]


def plot(experiments: Sequence[Experiment]) -> dict[str, str]:
    """The page's figures as SVG, by file name."""
    plots = {}
    for each in experiments:
        if each.compared.thieves:
            plots[f"meco-{each.recipe}-heat-map.svg"] = heat_map(**each.heat())
        if each.copying:
            plots[f"meco-{each.recipe}-averaging.svg"] = averaging(**each.averaging())
        if each.report.gradients:
            # so that a noise has the colour that it has among copies
            rows = sorted(each.gradients, key=lambda row: row.policy not in (UNDEFENDED, *NOISES))
            plots[f"meco-{each.recipe}-gradients.svg"] = cosines(rows)
    return plots


def render(experiments: Sequence[Experiment]) -> str:
    """The page as Markdown."""
    return page.render(
        TEMPLATE,
        filters={
            "tried": tried,
            "who": who,
            "share": share,
            "draws": draws,
            "cosine": cosine,
            "copied": copied,
            "distance": distance,
            "hundredfold": hundredfold,
        },
        experiments=[each for each in experiments if not each.costs_alone],
        benches=[each for each in experiments if each.costs_alone],
        undefended=UNDEFENDED,
        fresh=FRESH,
        default=DEFAULT,
        noises=NOISES,
        ablations=ABLATIONS,
        kinds=list(COPYING.values()),
        paper=PAPER,
        paper_times=PAPER_TIMES,
        within=WITHIN,
        stopped=STOPPED,
        benign=BENIGN,
        thieving=THIEVING,
        unseen=[name for name in PAPER if name not in {each.dataset for each in experiments}],
    )


def draws(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation over draws of noise; a dash for none."""
    if not values:
        return "-"
    return number(mean(values), digits) + (f" ± {number(stdev(values), digits)}" if len(values) > 1 else "")


def hundredfold(shares: Sequence[float]) -> list[float]:
    """Shares in percent."""
    return [100 * share for share in shares]


def cosine(row: GradientRow | None) -> str:
    """Mean and standard deviation over images; a dash for None."""
    return "-" if row is None else f"{row.cosine:.2f} ± {row.deviation:.2f}"


def distance(row: DenoisingRow | None) -> str:
    """What averaging leaves; a dash for None."""
    return "-" if row is None else number(row.l1, 3)


def copied(curve: Curve | None) -> str:
    """The best clone of a curve and its number of copies; a dash for none."""
    best = curve.best if curve else None
    return "-" if best is None else f"{share(best[1])}, K = {best[0]}"


def _clearest(rows: Sequence[GradientRow]) -> GradientRow | None:
    return max(rows, key=lambda row: row.cosine, default=None)


def _copies(form: str | None) -> list[tuple[str, int]]:
    """[(kind of copies, how many)] of an adaptive form that copies images; otherwise []."""
    bare = without_copies(form or "")
    if form is None or bare not in COPYING:
        return []
    return [(COPYING[bare], int(form.removeprefix(f"{bare}-")) if form != bare else COPIES)]


def _place(policy: str) -> tuple[int, str]:
    return (POLICIES.index(policy) if policy in POLICIES else len(POLICIES), policy)


def _plain(value: Any) -> str:
    return json.dumps(value).replace("|", "/")


if __name__ == "__main__":
    main()
