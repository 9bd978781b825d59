"""The runner: some pages or all, and results that are missing or malformed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from report.pages import __main__ as runner
from report.schema import write
from tests.report.pages.reading import check
from tests.report.pages.test_edm import results

CHECKOUT = Path(__file__).resolve().parents[3]
DOCS = CHECKOUT / "docs"
# these were not yet in this order when their results were measured
OPENED_OTHERWISE = ("unmixing", "gate-aware", "serving-memory")


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    words = ["report.pages", *names, "--results", str(folder), "--output", str(folder / "docs")]
    monkeypatch.setattr(sys, "argv", words)
    runner.main()


def test_a_page_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "edm-mnist.json", results())
    run(monkeypatch, tmp_path, "edm")
    made = [tmp_path / "docs/results/edm.md", tmp_path / "docs/results/edm.svg"]
    assert capsys.readouterr().out.split() == [str(path) for path in made]
    before = [path.read_bytes() for path in made]
    run(monkeypatch, tmp_path, "edm")
    assert [path.read_bytes() for path in made] == before


def test_missing_results_are_said_and_other_pages_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "edm-mnist.json", results())
    (tmp_path / "meco-mnist.json").write_text("{")
    with pytest.raises(SystemExit) as failed:
        run(monkeypatch, tmp_path)
    said = str(failed.value)
    assert "report.pages: same: " in said
    assert re.search(r"report.pages: meco: .*meco-mnist\.json: not JSON", said)
    assert "edm" not in said
    assert (tmp_path / "docs/results/edm.md").is_file()


def test_an_unknown_page_is_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "nothing")
    assert "no page nothing; there are unmixing, gate-aware, marks" in capsys.readouterr().err


GENERATED = sorted(path for path in DOCS.rglob("*.md") if "Made by `python -m report.pages" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_pages_are_short_and_their_links_resolve(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    if path.stem not in OPENED_OTHERWISE:
        check(text)
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        linked = (path.parent / target) if target else path
        assert linked.exists(), target
        heads = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads]
