"""A defense's page, of every results file about it: the sections of method.md.j2 in their order, and one figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from report.analysis.finding import Finding, answer
from report.analysis.study import Study
from report.headline import UNDEFENDED
from report.pages import page
from report.schema import Report, read

Experiment = TypeVar("Experiment", bound=Study)


@dataclass(frozen=True)
class Method(Generic[Experiment]):
    """name: of results/NAME-*.json, NAME.md.j2 and docs/results/NAME.md. kind: makes an experiment of a recipe and its
    report. findings: of the experiments and of all files. draw: the
    experiments' figure, None where there is nothing to draw."""

    name: str
    kind: Callable[[str, Report], Experiment]
    findings: Callable[[Sequence[Experiment], Sequence[Experiment]], Iterable[Finding]]
    draw: Callable[[Sequence[Experiment]], str | None]
    caption: str
    filters: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def pages(self, results: Path) -> dict[str, str]:
        """The page and its figure, by file name below docs/. Raises ResultError."""
        paths = page.files(results, f"{self.name}-", made_by=f"make reproduce-{self.name}")
        files = [self.kind(path.stem.removeprefix(f"{self.name}-"), read(path)) for path in paths]
        figure = self.draw(_studies(files))
        made = {f"results/{self.name}.md": self.render(files, figure=figure is not None)}
        return made if figure is None else {**made, f"results/{self.name}.svg": figure}

    def render(self, files: Sequence[Experiment], *, figure: bool = False) -> str:
        """The page as Markdown. figure: whether there is one."""
        studies = _studies(files)
        return page.render(
            f"{self.name}.md.j2",
            filters=self.filters,
            name=self.name,
            experiments=studies,
            everything=files,
            findings=answer(self.findings(studies, files)),
            figure=figure,
            caption=self.caption,
            made_by=lambda study: f"reproduce-{self.name} RECIPE={study.recipe}",
            missing=[f"{each.recipe}: {what}" for each in studies for what in each.missing],
            undefended=UNDEFENDED,
            **self.values,
        )


def _studies(files: Sequence[Experiment]) -> list[Experiment]:
    """Those that measured more than costs; all where none did."""
    return [each for each in files if not each.costs_alone] or list(files)
