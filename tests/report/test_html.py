"""The page: complete, self-contained, honest about losses."""

from __future__ import annotations

import base64
import dataclasses
import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report import html as program
from report.headline import cells, headline, who
from report.rows.bench import DefenseCostRow
from report.rows.gradients import GradientRow
from report.rows.noise import DenoisingRow, NoiseRow
from report.schema import Report, merge, write
from tests.report import synthetic
from tests.report.synthetic import attack_row


@cache
def the_page() -> str:
    return program.render(synthetic.report(), title="digits")


class Outline(HTMLParser):
    """Collects headings, table cells and everything that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.loads: list[tuple[str, str]] = []
        self._stack: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._stack.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "h2":
            self.headings.append("")
        if tag in ("script", "link", "iframe", "img", "object"):
            self.loads.append((tag, ""))
        self.loads += [
            (name, value or "")
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#")
        ]

    def handle_endtag(self, tag: str) -> None:
        while self._stack and self._stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "h2" in self._stack:
            self.headings[-1] += data
        if self._stack and ("td" in self._stack or "th" in self._stack):
            self.rows[-1][-1] += data


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    return parsed


def test_every_section_is_there() -> None:
    assert outline(the_page()).headings == [
        "Headline",
        "Clone accuracy against queries",
        "Routing",
        "What users pay",
        "Latency",
        "Impact of the attacks on benign users",
        "Detection",
        "Whom the gate hits",
        "Proof of work",
        "Cost of a gate",
        "The gate in fewer bits",
        "Every clone",
        "The run",
    ]
    assert the_page().count("<svg") == 5
    assert the_page().count("<figcaption>") == 5


def test_what_was_measured_of_noise_is_reported() -> None:
    page = program.render(
        Report(
            synthetic.RUN,
            noise=(
                NoiseRow("mnist", "meco", "benign (mnist)", 5_000, (0.01, 0.03), (0.0, 0.01), (0.99, 0.97), 0.1, 0.2),
            ),
            denoising=(DenoisingRow("mnist", "meco", "thief (x)", "jittered", 16, 500, 0.3125, 0.8),),
            gradients=(GradientRow("mnist", "meco", "thief (x)", 0.5, 8, 16, 200, 0.25, 0.1),),
            defense_costs=(DefenseCostRow("conv3", 8, "mad", "naive", 1, 6.0, (6.0,), (2.0,), None),),
        ),
        title="x",
    )
    headings = (
        "Noise on images",
        "Averaging over the noise",
        "Gradients that an attacker can probe",
        "Cost of a defended answer",
    )
    assert set(headings) <= set(outline(page).headings)
    rows = outline(page).rows
    assert ["meco", "benign (mnist)", "5\u202f000", "2", "0.0200", "0.5 %", "98.0 %", "0.100"] in rows
    assert ["meco", "thief (x)", "jittered", "16", "500", "0.3125"] in rows
    assert ["meco", "thief (x)", "0.5", "8", "200", "0.25"] in rows
    assert ["mad", "naive", "8", "6.00", "3.00", "-"] in rows


def test_what_a_gate_sees_hits_and_costs_is_reported() -> None:
    rows = outline(the_page()).rows
    figures = ["0.900", "0.800", "30.0 %", "20.0 %", "50.0 %", "10.0 %"]
    assert ["same", "gate", "knockoff", "1\u202f000", "1\u202f000", "2\u202f000", "0.5", *figures] in rows
    assert ["same", "gate", "jbda, without its seeds", "1\u202f000", "800", "2\u202f000", "0.5", *figures] in rows
    assert ["same", "benign (digits)", "benign", "2\u202f000", "1.20 %", "0.81 to 1.78 %", "1.00 %"] in rows
    assert ["same", "knockoff", "attacker", "2\u202f000", "50.00 %", "47.00 to 53.00 %", "1.00 %"] in rows
    # 120 and 5,000 hashes at 400,000 a second
    paid = ["1.2 %", "120", "0", "5\u202f000", "320\u202f000", "0.0003", "0.013"]
    assert ["same-pow", "benign (digits)", *paid] in rows
    assert ["same", "1", "123\u202f456", "100", "900", "1\u202f100", "110", "10.00"] in rows
    assert ["same", "int8-static", "32", "450", "0.50", "130\u202f000", "1.3 %", "knockoff 0.8999"] in rows
    assert ["same", "bfloat16", "32", "-", "-", "-", "-", "no kernel"] in rows


def test_subsamples_are_distinguished_from_whole_traffic() -> None:
    page = program.render(Report(synthetic.RUN, detection=(synthetic.detection_row(ratio=0.01, draws=5),)), title="x")
    assert [row[6] for row in outline(page).rows if row[0] == "same"] == ["0.01 (5 draws)"]
    assert "<svg" not in page


def test_reconstructions_stand_in_the_page_itself() -> None:
    page = program.render(synthetic.report(), title="x", reconstructions=b"a picture")
    loads = [value for name, value in outline(page).loads if name == "src"]
    assert loads == ["data:image/png;base64," + base64.b64encode(b"a picture").decode()]
    assert "<img" not in the_page()


def test_the_page_loads_nothing() -> None:
    assert outline(the_page()).loads == []
    assert "@import" not in the_page()
    assert not re.search(r"url\((?!#)", the_page())


def test_what_a_figure_refers_to_is_its_own() -> None:
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', the_page()))
    # glyphs are the same in each figure: any definition of "DejaVuSans-30" will do
    shapes = {name for name in referred if not name.startswith("DejaVu")}
    assert shapes
    for name in shapes:
        assert the_page().count(f'id="{name}"') == 1


def test_the_headline_row_says_what_the_rows_say() -> None:
    rows = {row[0]: row[1:] for row in reversed(outline(the_page()).rows) if row}
    assert rows["edm"][:2] == ["98.5 %", "+0.5"]
    assert rows["edm"][-1] == "+20.0"
    assert rows["weak"] == ["-", "-", "85.0 %knockoff, sgd, n = 1", "-", "85.0 %in hindsight 85.0 %", "-5.0"]


def test_every_clone_is_printed() -> None:
    printed = [row for row in outline(the_page()).rows if len(row) == 13 and row[2] in ("soft", "hard")]
    assert len(printed) == len(synthetic.report().attacks)
    assert ["edm", "knockoff", "hard", "4\u202f000", "7"] in [row[:5] for row in printed]


def test_the_impact_on_benign_users_is_reported_for_both_stretches() -> None:
    rows = [row for row in outline(the_page()).rows if len(row) == 15][1:]
    assert [row[6:8] for row in rows] == [["before", "5.0"], ["during", "5.0"]]
    assert rows[1][2:6] == ["10", "50 %", "4\u202f000", "8\u202f000"]
    assert rows[1][8:] == ["90", "45.0", "300.0", "1\u202f234.5", "10.0 %", "7", "1"]


def test_a_stretch_without_an_answer_is_dashes() -> None:
    silent = synthetic.felt_row(requests=3, errors=3, accuracy=None, p50_ms=None, p95_ms=None, p99_ms=None)
    page = program.render(Report(synthetic.RUN, felt=(silent,)), title="x")
    _, rows = [row for row in outline(page).rows if len(row) == 15]
    assert rows[9:] == ["-", "-", "-", "-", "0", "3"]


def test_a_report_with_nothing_measured_yet_is_a_page() -> None:
    assert outline(program.render(Report(synthetic.RUN), title="digits")).headings == ["Headline", "The run"]


def test_names_are_escaped() -> None:
    page = program.render(synthetic.report(attacks=(attack_row(policy="<script>alert(1)</script>"),)), title="<b>")
    assert "<script>" not in page
    assert "<title>TorchWarden report: &lt;b&gt;" in page


def test_an_adopted_model_and_its_preprocessing_are_named() -> None:
    settings = {
        "model.file": "mine.onnx",
        "model.preprocessing": "size 224, mean [0.5]",
        "model.proven": "nothing was proven of its preprocessing",
    }
    report = synthetic.report()
    owner = dataclasses.replace(report, run=dataclasses.replace(report.run, settings=settings))
    page = program.render(owner, title="x")
    for text in ("owner's own, mine.onnx", "size 224, mean [0.5]", "Nothing was proven of its preprocessing."):
        assert text in page
    assert "owner's own" not in the_page()


def test_the_short_table() -> None:
    lines = program.table(headline(synthetic.report())).splitlines()
    assert " ".join(lines[0].split()) == "policy accuracy drop best soft clone best hard clone gap vs top-1"
    assert lines[1].split() == ["undefended", "99.0", "%", "+0.0", "94.0", "±", "2.8", "%", "80.0", "%", "-14.0"]
    assert lines[3].split() == ["weak", "-", "-", "85.0", "%", "-", "-5.0"]
    assert len({len(line) for line in lines}) == 1


def test_the_program_writes_the_page_and_prints_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    merge(tmp_path / "report.json", synthetic.report())
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    program.main()
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert "What an attacker gets out of" in (tmp_path / "report.html").read_text()


def test_a_results_file_is_shown_with_every_field_of_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(synthetic.RUN, shifts=(synthetic.shift_row(kept=0.125), synthetic.shift_row(shift="blurred")))
    write(tmp_path / "misleader-mnist.json", report)
    page = tmp_path / "out" / "x.html"
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path / "misleader-mnist.json"), "--output", str(page)])
    program.main()
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {page}"
    rows = outline(page.read_text()).rows
    assert ["digits", "misleader", "none", "2000", "0.985", "0.125", "0.01"] in rows
    assert ["digits", "misleader", "blurred", "2000", "0.985", "1.0", "0.01"] in rows
    assert "shifts: all 2 rows" in page.read_text()


def test_without_a_report_the_program_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"report\.json: no such file; run `make attack` first"):
        program.main()


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (["http", "http"], "Each policy was queried over HTTP, and clones"),
        (
            ["in process", "in process"],
            "Each policy&#39;s own code was queried in process, without a server, and clones",
        ),
        (["http", "in process"], "over HTTP or, their own code, in process (`path` in the rows of clones below), and"),
        (["", "http"], "Each policy was queried, and clones"),
    ],
)
def test_the_headline_says_by_which_path(paths: list[str], sentence: str) -> None:
    rows = tuple(attack_row(seed=seed, path=path) for seed, path in enumerate(paths))
    assert sentence in program.render(synthetic.report(attacks=rows), title="digits")


def test_a_budget_that_was_not_reached_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (attack_row(budget=1000, queries=60), attack_row(queries=60), attack_row(attack="dfme"))
    page = program.render(synthetic.report(attacks=rows), title="digits")
    assert "Budgets that were not reached" in page
    assert "undefended, knockoff: 60 of 1000 queries; undefended, knockoff: 60 of 4000 queries." in page
    knockoff, dfme = sorted(cells(rows[1:]), key=lambda cell: cell.queries)
    assert (who(knockoff), who(dfme)) == ("knockoff, soft, 60 of 4\u202f000", "dfme, soft, 4\u202f000")
    write(tmp_path / "report.json", synthetic.report(attacks=rows))
    monkeypatch.setattr(sys, "argv", ["report.html", str(tmp_path)])
    program.main()
    assert "budget not reached: undefended, knockoff: 60 of 4000 queries" in capsys.readouterr().out
    assert "Budgets that were not reached" not in program.render(synthetic.report(attacks=rows[2:]), title="digits")
