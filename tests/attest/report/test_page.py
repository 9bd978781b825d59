"""The report: self-contained, escaped, complete, and three pages on paper."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from attest import measured
from attest.measured import NotTried, Resistance
from attest.report import page
from attest.report.controls import controls
from tests.attest import synthetic

MARKS = {"measured": "a" * 64, "root": "b" * 64, "fingerprint": "c" * 64}
MADE = synthetic.made()


class Text(HTMLParser):
    """The text of a page, and every address and tag in it."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags, self.addresses = "", set[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.text += " "
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Text:
    found = Text()
    found.feed(html)
    return found


def words(html: str) -> str:
    return spaced(read(html).text)


def spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_it_needs_no_network_and_runs_no_script() -> None:
    found = read(page.render(MADE, MARKS))
    assert not found.tags & {"script", "link", "img", "iframe", "object"}
    assert all(each.startswith("#") for each in found.addresses)
    assert found.addresses, "the figure refers to its own marks: the check would pass on nothing"


def test_the_first_page_answers_three_questions() -> None:
    text = words(page.render(MADE, MARKS))
    assert "Does it hold? 97.4 % bought of what there was to buy (95.1 % to 99.7 %), by knockoff." in text
    assert "At what price? 6.00 EUR for a copy: in-distribution had one after 5 000 queries." in text
    assert "Can I believe it? High confidence" in text
    assert text.index("Does it hold?") < text.index("knockoff numbers")


def test_every_thief_control_and_omission_has_its_row() -> None:
    text = words(page.render(MADE, MARKS))
    for thief in MADE.curves:
        assert thief.thief in text
    for control in controls(MADE):
        assert spaced(f"{control.name} {control.asks} {control.state} {control.why}") in text
    for each in MADE.not_tried:
        assert f"{each.what} {each.why}" in text
    assert all(value in text for value in (*MARKS.values(), MADE.target.sha256, MADE.run.images_sha256))


def test_without_a_verdict_nothing_looks_like_a_grade() -> None:
    html = page.render(synthetic.made(resistance=Resistance(failed=1000)))
    assert 'class="verdict no"' in html
    text = words(html)
    assert "No verdict 10.0 % of the campaign's queries failed" in text
    assert "0 passed, 0 partly, 0 failed, 12 not tested" in text
    assert text.count("Cannot be said") == 2


def test_an_unsigned_page_says_so() -> None:
    assert "This page is not signed." in words(page.render(MADE))
    assert "not signed" not in words(page.render(MADE, MARKS))


def test_a_run_without_clones_price_or_consistency_is_shown() -> None:
    bare = synthetic.made(
        curves=(),
        felt=(),
        not_tried=(),
        target=dataclasses.replace(MADE.target, price_per_1000=0.0, owner="", authorised_until=""),
        consistency=measured.Consistency(0, 0, None, None, 0, None, None, "not measured"),
        complete=False,
    )
    text = words(page.render(bare))
    assert "No verdict No thief could train a clone." in text
    assert "a server on the attesting machine" in text
    assert "stopped before its end" in text


def test_what_was_measured_is_escaped() -> None:
    hostile = synthetic.made(not_tried=(NotTried("<script>alert(1)</script>", "<img src=x>"),))
    assert not read(page.render(hostile)).tags & {"script", "img"}


def test_the_same_measurement_is_the_same_page() -> None:
    assert page.render(MADE, MARKS) == page.render(MADE, MARKS)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "attest.report", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def test_the_program_writes_it_and_leaves_a_signed_one_alone(tmp_path: Path) -> None:
    missing = command(tmp_path)
    assert missing.returncode == 1
    assert "attest first" in missing.stderr
    synthetic.run(tmp_path)
    assert command(tmp_path).returncode == 0
    assert "This page is not signed" in (tmp_path / "report.html").read_text()
    (tmp_path / "evidence.dsse.json").touch()
    refused = command(tmp_path)
    assert refused.returncode == 1
    assert "is signed" in refused.stderr


@pytest.mark.drill
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
def test_it_prints_on_three_pages(tmp_path: Path) -> None:
    synthetic.run(tmp_path)
    assert command(tmp_path, "--pdf").returncode == 1
    assert command(tmp_path).returncode == 0
    done = command(tmp_path, "--pdf")
    assert done.returncode == 0, done.stderr
    printed = (tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 3
