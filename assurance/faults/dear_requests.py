"""The requests of a hostile client: accepted, as expensive as the limits allow, and which of them costs the most.

A request has a limit of rows and one of bytes. So there are three ways to be expensive: most rows, in the form that
takes longest to read; most bytes; and both, as files with as much metadata as fits. All files are valid, as Pillow
writes them. The cost of a request is measured on the archive's own code in this process, not guessed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from assurance.faults.clients import FaultError
from assurance.fuzz.pngs import saved
from evaluation.oracles import InProcessOracle
from handlers import wire

Images = NDArray[np.float32]
TRIES = 5
# of a file's parts besides its pixels: far fewer than are allowed (pictures/parts.py), and each as large as its share
TEXTS = 40


@dataclass(frozen=True)
class Request:
    """A body and its content type. rows: that it holds."""

    name: str
    content_type: str
    rows: int
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Priced:
    """A request and the processor seconds that it takes to read, ask and answer, the least of TRIES."""

    request: Request
    seconds: float


def requests(images: Images, *, rows: int, most_bytes: int) -> list[Request]:
    """Requests of `rows` rows or one, from honest images (N, C, H, W), of up to `most_bytes`."""
    chosen = np.resize(images, (rows, *images.shape[1:]))
    room = most_bytes * 3 // 4 // rows - 64  # of a row's file, once base64 and the text around it have taken theirs
    numbers = orjson.dumps({"instances": chosen.astype(np.float64).tolist()})
    # digits of float64: each number is a text of 17 and more
    long = orjson.dumps({"instances": (chosen.astype(np.float64) * (1 - 1e-9)).tolist()})
    forms: Mapping[str, Sequence[bytes]] = {
        "PNG": [saved(_picture(each), "PNG") for each in chosen],
        "progressive JPEG": [saved(_picture(each), "JPEG", quality=100, progressive=True) for each in chosen],
        "PNG with texts": [_with_texts(each, room) for each in chosen],
        "JPEG with a comment": [
            saved(_picture(each), "JPEG", comment=b"a" * min(room - 4096, 65_000)) for each in chosen
        ],
    }
    all_of_them = [
        Request("raw numbers", wire.RAW, rows, wire.encode_rows(chosen, wire.RAW)),
        Request("JSON numbers", wire.JSON, rows, numbers),
        Request("JSON numbers of 17 digits", wire.JSON, rows, long),
        Request("JSON numbers in the longest text", wire.JSON, rows, long.ljust(most_bytes)),
        *(Request(f"JSON of {name}", wire.JSON, rows, _listed(files)) for name, files in forms.items()),
        Request("one PNG with the longest texts", wire.PNG, 1, _with_texts(chosen[0], most_bytes - 65_536)),
        Request("one progressive JPEG", wire.JPEG, 1, forms["progressive JPEG"][0]),
    ]
    return [each for each in all_of_them if len(each.body) <= most_bytes]


def priced(archive: Path, images: Images, *, most_bytes: int) -> list[Priced]:
    """What each of `requests` costs that is accepted with all its rows, dearest first. Raises FaultError where none
    is."""
    with InProcessOracle(archive) as oracle:
        most = oracle.pipeline.policy.max_rows
        asked = [
            each for rows in (most, max(1, most // 4)) for each in requests(images, rows=rows, most_bytes=most_bytes)
        ]
        found = [Priced(each, _seconds(oracle, each)) for each in asked if _accepted(oracle, each)]
    if not found:
        raise FaultError(f"{archive.name}: expected to accept one of {len(asked)} good requests, got none")
    return sorted(found, key=lambda each: each.seconds, reverse=True)


def _seconds(oracle: InProcessOracle, asked: Request) -> float:
    """Of the processor, once everything is warm."""
    taken = []
    for _ in range(TRIES):
        begun = process_time()
        oracle.post(asked.body, asked.content_type)
        taken.append(process_time() - begun)
    return min(taken)


def _accepted(oracle: InProcessOracle, asked: Request) -> bool:
    status, body = oracle.post(asked.body, asked.content_type)
    return status == 200 and not wire.decode_answers(body).errors


def _listed(files: Sequence[bytes]) -> bytes:
    return orjson.dumps({"instances": [{"b64": base64.b64encode(file).decode()} for file in files]})


def _with_texts(image: Images, room: int) -> bytes:
    """A PNG file of nearly `room` bytes."""
    info = PngInfo()
    for number in range(TEXTS):
        info.add_text(f"Comment{number}", "a" * max(0, room // TEXTS - 64))
    return saved(_picture(image), "PNG", pnginfo=info)


def _picture(image: Images) -> Image.Image:
    levels = np.rint(image * 255).astype(np.uint8)
    return Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
