"""results/thieves-*.json to docs/results/thieves.md and its figure: every policy against every attacker.

    python -m report.pages thieves

Every number on the page comes from the results files, but the literature's, which stand here with their sources. Its
sentences hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attacks.names import ATTACKS, FORMS, GATE_AWARE, without_copies
from report.analysis.finding import Finding, answer
from report.analysis.literature import TARGETS, TOLERANCE, Verdict
from report.analysis.study import Study
from report.figures.heat_map import heat_map
from report.format import points
from report.headline import UNDEFENDED
from report.pages import gate_aware, page, unmixing
from report.rows.attack_speeds import AttackSpeedRow
from report.schema import ResultError, read

PREFIX = "thieves-"
# queries a second that DFME was to reach in process on two cores
FAST = 1_500


@dataclass(frozen=True)
class Thieves(Study):
    """One results file, with the look-ups that the page needs."""

    @property
    def verdicts(self) -> list[Verdict]:
        """Known for MNIST alone."""
        found = []
        for target in TARGETS if self.dataset == "mnist" else ():
            line = self.of(target.attack, policy=UNDEFENDED, labels=target.labels)
            within = [cell for cell in line if cell.budget <= target.budget]
            found.append(Verdict(target, within[-1] if within else None))
        return found

    @property
    def not_run(self) -> list[str]:
        """Attacks and forms that were not run, a form with any number of copies; but those made against gates."""
        run = {attack for attack, _ in self.attackers} | {without_copies(form or "") for _, form in self.attackers}
        return [name for name in (*ATTACKS, *FORMS) if name not in {*run, *GATE_AWARE}]


def pages(results: Path) -> dict[str, str]:
    """The page and its figure, by file name below docs/. Raises ResultError."""
    paths = page.files(results, PREFIX, made_by="make reproduce-thieves")
    studies = [Thieves(path.stem.removeprefix(PREFIX), read(path)) for path in paths]
    speeds = results / "bench-attacks.json"
    text = render(studies, read(speeds).attack_speeds if speeds.exists() else (), *informed(results))
    return {"results/thieves.md": text, "results/thieves.svg": heat_map(**studies[0].heat())}


def informed(folder: Path) -> tuple[unmixing.Study | None, gate_aware.Study | None]:
    """What attackers got that have read the papers: of EDM, and behind a gate, where measured. Raises ResultError."""
    edm = any(not path.stem.endswith(unmixing.SECOND) for path in folder.glob(f"{unmixing.PREFIX}*.json"))
    gate = any(folder.glob(f"{gate_aware.PREFIX}*.json"))
    return unmixing.found(folder)[0] if edm else None, gate_aware.found(folder)[0] if gate else None


def findings(studies: Sequence[Thieves], speeds: Sequence[AttackSpeedRow]) -> Iterator[Finding]:
    """What policies add, and whether attackers are as strong as the literature's, as over HTTP, and fast."""
    for study in studies:
        kinds = {"all attackers": study.lines, "attackers without task images": study.without_data.values()}
        for kind, lines in kinds.items():
            gaps = [(e.gap_vs_top1, e.policy) for e in lines if e.gap_vs_top1 is not None and e.policy != UNDEFENDED]
            lost, won = _told(gaps, adding=False), _told(gaps, adding=True)
            text = f"{study.recipe}, against {kind}, in points added to hiding probabilities: {'; '.join(lost + won)}."
            if gaps:
                yield Finding(not lost, text)
        known = [each for each in study.verdicts if each.met is not None]
        missed = [each for each in known if not each.met]
        text = f"{study.recipe}: {len(missed)} of {len(known)} attackers are weaker than the literature's."
        yield Finding(not missed if known else None, text)
        apart = sum(not row.agrees for row in study.report.agreement)
        text = (
            f"{study.recipe}: {apart} of {len(study.report.agreement)} clones differ over HTTP from those in process."
        )
        if study.report.agreement:
            yield Finding(not apart, text)
    for row in speeds:
        if row.attack == "dfme":
            text = f"DFME makes {row.queries_per_s:.0f} queries a second in process; {FAST} was asked."
            yield Finding(row.queries_per_s >= FAST, text)


def _told(gaps: Sequence[tuple[float, str]], *, adding: bool) -> list[str]:
    return [f"`{policy}` {points(gap)}" for gap, policy in sorted(gaps) if (round(100 * gap, 1) > 0) == adding]


def render(
    studies: Sequence[Thieves],
    speeds: Sequence[AttackSpeedRow] = (),
    edm: unmixing.Study | None = None,
    gate: gate_aware.Study | None = None,
) -> str:
    """The page as Markdown. edm, gate: what it opens with (informed). Raises ResultError."""
    for study in studies:
        if not study.report.attacks:
            raise ResultError(
                f"{study.recipe}: no attacks; make some with `make reproduce-thieves RECIPE={study.recipe}`"
            )
    return page.render(
        "thieves.md.j2",
        studies=studies,
        findings=answer(findings(studies, speeds)),
        edm=edm,
        gate=gate,
        undefended=UNDEFENDED,
        tolerance=TOLERANCE,
        speeds=speeds,
        fast=FAST,
        made_by=lambda study: f"reproduce-thieves RECIPE={study.recipe}",
    )
