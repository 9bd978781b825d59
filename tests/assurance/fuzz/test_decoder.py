"""The decoder in this process, under every idea that a server is sent, and under hypothesis' own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assurance.fuzz import (
    documents,
    envelopes,
    formats,
    inference,
    kinds,
    metadata,
    multipart,
    pictures,
    rows,
)
from assurance.fuzz.case import Case, Make, Subject, load
from assurance.fuzz.judge import CODES
from assurance.fuzz.reference import refused
from handlers import wire
from handlers.errors import RequestError
from tests.assurance.fuzz.subjects import FITTED, GRAY, RGB

CORPUS = Path(__file__).parent / "corpus"
PLAIN = (pictures, metadata, documents, rows, formats, inference, envelopes)
IDEAS = tuple(dict.fromkeys((*(make for kind in PLAIN for make in kind.IDEAS), multipart.intact, multipart.many)))
# generous on a busy machine: what was found here took ten seconds and more
SECONDS = 5.0


def outcome(case: Case, subject: Subject) -> list[str]:
    """The code of each row, "" where it is good; what is good is proven to be a picture in [0, 1]."""
    assert case.seen is not None
    started = time.perf_counter()
    fault: RequestError | None = None
    try:
        decoded = wire.decode_message(case.seen.message, expects=subject.accepts)
    except RequestError as error:
        fault = error
    assert time.perf_counter() - started < SECONDS
    if fault is not None:
        assert fault.status < 500
        return [fault.code]
    assert decoded.images.shape[1:] == subject.accepts.input.shape
    assert decoded.images.dtype == np.float32
    assert ((decoded.images >= 0) & (decoded.images <= 1)).all()
    assert not np.signbit(decoded.images).any()
    for row, error in decoded.errors.items():
        assert error.row == row
    count = len(decoded.images) + len(decoded.errors)
    assert 1 <= count <= subject.accepts.max_rows
    return [decoded.errors[row].code if row in decoded.errors else "" for row in range(count)]


@pytest.mark.parametrize("make", IDEAS, ids=lambda make: f"{make.__module__.rpartition('.')[2]}-{make.__name__}")
def test_every_idea_ends_in_rows_or_in_a_documented_code(make: Make) -> None:
    met = set()
    for number in range(6):
        for subject in (GRAY, RGB, FITTED):
            case = make(Random(f"{make.__name__}/{number}"), subject)
            met |= {refused(code) for code in outcome(case, subject)}
    assert {row.code for row in met} <= {"", *CODES}


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_any_case_of_any_seed_ends_so(place: int, seed: int) -> None:
    subjects = {subject.model: subject for subject in (GRAY, RGB, FITTED)}
    case = kinds.case(place, seed, tuple(subjects.values()))
    subject = subjects[case.model]
    if case.seen is not None and case.idea != "huge":
        assert set(outcome(case, subject)) <= {"", *CODES}


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("b64"),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["b64", "instances", "x"]), inner, max_size=3)
    ),
    max_leaves=30,
)


@settings(max_examples=80, deadline=None)
@given(value=JSON_VALUES, inside=st.booleans())
def test_any_json_ends_so(value: Any, inside: bool) -> None:
    body = json.dumps({"instances": [value]} if inside else value).encode()
    case = documents._case("any", GRAY, body)
    assert set(outcome(case, GRAY)) <= {"", *CODES}


@settings(max_examples=80, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=4),
    seed=st.integers(0, 50),
    form=st.sampled_from(["png", "jpeg"]),
)
def test_any_damage_to_a_picture_ends_so(changes: list[tuple[int, bytes, int]], seed: int, form: str) -> None:
    file = (pictures.png if form == "png" else pictures.jpeg)(Random(seed), GRAY)
    for place, put, taken in changes:
        at = place % (len(file) + 1)
        file = file[:at] + put + file[at + taken :]
    case = rows.posted("pictures", "damage", GRAY, f"image/{form}", file)
    assert set(outcome(case, GRAY)) <= {"", *CODES}


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*.json")), ids=lambda file: file.stem)
def test_what_was_found_once_is_answered_as_stated(file: Path) -> None:
    case = load(file)
    stated = json.loads(file.read_text())["rows"]
    assert outcome(case, GRAY) == stated


def test_there_is_a_corpus() -> None:
    assert len(list(CORPUS.glob("*.json"))) >= 15
