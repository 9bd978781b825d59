"""Cases: the same for the same number, whole after a file, without a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from assurance.fuzz import kinds, messages
from assurance.fuzz.case import AUTHORIZATION, Case, load, save
from tests.assurance.fuzz.subjects import GRAY, RGB

ONCE_ROUND = range(len(kinds.IDEAS))


def test_a_number_and_a_seed_are_one_case() -> None:
    for number in ONCE_ROUND:
        assert kinds.case(number, 7, (GRAY, RGB)) == kinds.case(number, 7, (GRAY, RGB))
    assert any(kinds.case(n, 7, (GRAY,)) != kinds.case(n, 8, (GRAY,)) for n in ONCE_ROUND)


def test_a_round_has_every_idea_and_the_next_round_another_model() -> None:
    first = {kinds.case(number, 0, (GRAY, RGB)).model for number in ONCE_ROUND}
    second = {kinds.case(number + len(kinds.IDEAS), 0, (GRAY, RGB)).model for number in ONCE_ROUND}
    assert (first, second) == ({GRAY.model}, {RGB.model})
    assert {kinds.case(number, 0, (GRAY,)).kind for number in ONCE_ROUND} == {
        "pictures",
        "documents",
        "rows",
        "inference",
        "envelopes",
        "multipart",
        "messages",
    }
    rare = kinds.case(kinds.RARELY - 1, 0, (GRAY,))
    assert rare.idea == "huge"
    assert len(rare.body) >= GRAY.most_bytes - 4


def test_a_saved_case_is_the_same_again(tmp_path: Path) -> None:
    for number in ONCE_ROUND:
        case = kinds.case(number, 3, (GRAY,))
        save(case, tmp_path / "kept" / "case.json", complaint="none")
        assert load(tmp_path / "kept" / "case.json") == case
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["case.json"]


def test_another_file_is_no_case(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text in ("{", "{}", '{"seen": null}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"a\.json: expected a case that assurance\.fuzz saved, got"):
            load(file)


def test_an_honest_request_is_whole() -> None:
    case: Case = kinds.case(list(kinds.IDEAS).index(messages.honest), 0, (GRAY,))
    assert case.head.startswith(b"POST /predictions/digits-edm HTTP/1.1\r\n")
    assert b"Authorization: " + AUTHORIZATION in case.head
    assert b"Content-Length: %d\r\n\r\n" % len(case.body) in case.head
    assert case.seen is not None
    assert case.seen.body == case.body
