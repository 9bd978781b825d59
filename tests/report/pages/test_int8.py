"""The page of what 8 bits cost, and the rows that it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.pages import int8 as document
from report.rows.quantised import QuantisedRow
from report.rows.run import RunInfo
from report.schema import Report, ResultError
from tests.report.pages.reading import answer, check, lines
from tests.report.synthetic import attack_row

RUN = RunInfo("abc", 0, "Linux x86_64, 2 CPUs", "a CPU", None, {}, "2026-01-01T00:00:00+00:00", 1.0, {})


def row(policy: str, *, agreement: float, accuracy: float = 0.987) -> QuantisedRow:
    return QuantisedRow("mnist", policy, "int8", 10_000, accuracy, 0.988, agreement, 5, 1, "minmax", 0.9985, 0.3, 1.15)


def test_what_is_outside_the_rule_stands_first_and_is_bold() -> None:
    inside, labels, accuracy = (
        row("a", agreement=0.995),
        row("b", agreement=0.9949),
        row("c", agreement=1.0, accuracy=0.9859),
    )
    text = document.render([Report(RUN, quantised=(inside, labels, accuracy))])
    check(text)
    (said,) = answer(text)
    assert "1 of 3 policies keep within the rule there too." in said
    assert lines(text, "`b`", "98.80 %", "98.70 %", "**99.49 %**", "99.85 %", "4 of 5", "1.15")
    assert lines(text, "`a`", "| 99.50 % |")
    assert text.index("`b`") < text.index("`a`")
    assert text.index("`c`") < text.index("`a`")


def test_attackers_who_gain_by_8_bits_stand_first() -> None:
    users = (row("undefended-int8", agreement=1.0),)
    attacks = [
        attack_row(
            policy=policy, attack=attack, seed=seed, clone_accuracy=accuracy, rejected=400 * (policy != "undefended")
        )
        for policy, attack, accuracies in (
            ("undefended", "knockoff", (0.5, 0.6)),
            ("undefended-int8", "knockoff", (0.45, 0.55)),
            ("undefended", "jbda", (0.3,)),
            ("undefended-int8", "jbda", (0.34,)),
            ("undefended-int8", "maze", (0.9,)),  # no twin met it
        )
        for seed, accuracy in enumerate(accuracies)
    ]
    text = document.render([Report(RUN, quantised=users, attacks=tuple(attacks))])
    check(text)
    said = " ".join(" ".join(answer(text)).split())
    assert "1 of 2 attackers' clones are better" in said
    assert "gains is 4.0 points (`jbda` of `undefended-int8`)" in said
    assert lines(text, "| jbda |", "30.0 %", "34.0 %", "| +4.0 |", "10.0 %")
    assert lines(text, "| knockoff |", "55.0 %", "50.0 %", "| -5.0 ± 10.0 |")
    assert text.index("| jbda |") < text.index("| knockoff |")
    assert "| maze |" not in text


def test_without_rows_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="expected rows, got none"):
        document.render([Report(RUN)])
    with pytest.raises(ResultError, match=r"no int8-\*\.json; run `make reproduce-int8"):
        document.pages(tmp_path)


def test_a_share_is_one() -> None:
    with pytest.raises(ResultError, match="agreement"):
        row("a", agreement=1.5)
