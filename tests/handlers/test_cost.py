"""No picture of the fuzzer's grammar costs over four plain ones of its length and pixels, or twice their memory."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import orjson
import pytest

from assurance.fuzz import formats, metadata, pictures
from assurance.fuzz.case import Make, Subject
from assurance.fuzz.pngs import saved
from handlers.errors import RequestError
from handlers.images import read_image
from handlers.wire import JSON
from tests.assurance.fuzz.subjects import GRAY, RGB

MOST = 4.0
FLOOR = 0.1e-3  # seconds: what a busy machine takes now and then
MOST_MEMORY = 2.0
FLOOR_MEMORY = 2**18
CASES = 4
IDEAS = tuple(dict.fromkeys((*pictures.IDEAS, *metadata.IDEAS, *formats.IDEAS)))
CHECKOUT = Path(__file__).resolve().parents[2]


def files(make: Make, subject: Subject) -> tuple[bytes, ...]:
    """The pictures of some cases of one idea."""
    found: list[bytes] = []
    for number in range(CASES):
        case = make(Random(f"{make.__name__}/{number}"), subject)
        assert case.seen is not None
        if case.seen.content_type == JSON:
            found += [base64.b64decode(row["b64"]) for row in orjson.loads(case.seen.body)["instances"]]
        else:
            found.append(bytes(case.seen.body))
    return tuple(found)


def plain(form: str, subject: Subject) -> bytes:
    make = pictures.gray if subject is GRAY else pictures.colours
    return saved(make(Random(0), subject), form)


def as_long(file: bytes, subject: Subject) -> bytes:
    """A plain picture with nothing but zeros behind it."""
    own = plain("JPEG" if file[:2] == b"\xff\xd8" else "PNG", subject)
    return own + bytes(max(0, len(file) - len(own)))


def seconds(file: bytes, subject: Subject) -> float:
    started = time.perf_counter()
    read(file, subject)
    return time.perf_counter() - started


def read(file: bytes, subject: Subject) -> None:
    with contextlib.suppress(RequestError):
        read_image(file, subject.accepts.input)


def ratio(file: bytes, subject: Subject, repeats: int) -> float:
    """The least time for the file by that for a plain one, measured in turns."""
    other = as_long(file, subject)
    times = [(seconds(file, subject), seconds(other, subject)) for _ in range(repeats)]
    return (min(own for own, _ in times) - FLOOR) / min(least for _, least in times)


@pytest.mark.alone
@pytest.mark.parametrize("make", IDEAS, ids=lambda make: f"{make.__module__.rpartition('.')[2]}-{make.__name__}")
def test_a_picture_takes_no_longer_than_four_plain_ones(make: Make) -> None:
    for subject in (GRAY, RGB):
        for file in files(make, subject):
            if ratio(file, subject, 5) > MOST:
                assert ratio(file, subject, 100) <= MOST


# what a process holds at most after it has read the files named on its standard input; ru_maxrss would be its parent's
CHILD = """
import sys
from pathlib import Path
from pictures.geometry import Geometry
from handlers.errors import RequestError
from handlers.images import read_image
for line in sys.stdin:
    channels, name = line.split(maxsplit=1)
    try:
        read_image(Path(name.rstrip()).read_bytes(), Geometry(int(channels), 28, 28))
    except RequestError:
        pass
print(1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]))
"""


def peak(lines: list[str]) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=CHECKOUT, check=True, capture_output=True, text=True, input="".join(lines)
    )
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what a process held")
def test_pictures_take_no_more_memory_than_two_plain_ones(tmp_path: Path) -> None:
    """In separate processes: at most what plain pictures of the same lengths take."""
    own, other = [], []
    for make in IDEAS:
        for subject in (GRAY, RGB):
            for number, file in enumerate(files(make, subject)):
                for which, content in ((own, file), (other, as_long(file, subject))):
                    path = tmp_path / f"{make.__module__}-{make.__name__}-{subject.model}-{number}-{which is own}"
                    path.write_bytes(content)
                    which.append(f"{subject.accepts.input.channels} {path}\n")
    nothing = peak([])
    assert peak(own) - nothing <= MOST_MEMORY * (peak(other) - nothing) + FLOOR_MEMORY
