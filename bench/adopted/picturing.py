"""What a photograph costs before a classifier sees it: decoded to 224 x 224 on one core, and served.

The same photograph is sent as a camera or a web page has it, and already in the classifier's size; both by as many
clients as keep every worker busy, in turn. A large photograph is only decoded: what it adds to an answer is that.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from time import process_time

import numpy as np
from PIL import Image

import recipes
from bench import closedloop, overhttp
from bench.adopted.owner import SIDE
from bench.adopted.workplace import Workplace
from pictures.geometry import Geometry
from pictures.picture import Picture
from report.headline import UNDEFENDED
from report.rows.adopted import PictureRow
from zoo import embedded
from zoo.datasets import Data

# width and height of what is sent, and whether it is served
SIZES = {(640, 480): True, (SIDE, SIDE): True, (4000, 3000): False}
QUALITY = 88
# standard deviation of what a sensor adds, in levels: an enlarged photograph alone would be smooth, and cheap to decode
NOISE = 4.0
CLIENTS = 16
ROUNDS = 7
SECONDS = 8.0
DECODED = 20
JPEG = "image/jpeg"


def measure(place: Workplace) -> Iterator[PictureRow]:
    """A row for each size."""
    spec = place.victim(place.small, "serving")
    folders = ("--runs", place.runs, "--build", place.folder / "build")
    place.run("export.graphs", spec, *folders)
    place.run("export.archive", spec, *folders, "--store", place.folder / "store", "--policies", UNDEFENDED)
    recipe = recipes.read(spec)
    archive = place.folder / "store" / f"{recipe.name}-{UNDEFENDED}.mar"
    wanted = recipe.section("dataset", Data).geometry((3, SIDE, SIDE))
    files = {size: photograph(*size) for size in SIZES}
    decoded: dict[tuple[int, int], list[float]] = {size: [] for size in SIZES}
    for _ in range(ROUNDS):
        for size, data in files.items():
            decoded[size].append(milliseconds(data, wanted))
    served: dict[tuple[int, int], list[float]] = {size: [] for size in SIZES}
    with overhttp.server([archive], run_folder=place.folder / "run") as running:
        requests = {
            size: overhttp.message(running, archive.stem, files[size], JPEG) for size, asked in SIZES.items() if asked
        }
        for seconds in (SECONDS / 4, *[SECONDS] * ROUNDS):  # the first is not counted: Java is cold in it
            for size, request in requests.items():
                driven = closedloop.drive(running.target, [request], clients=CLIENTS, seconds=seconds)
                if seconds == SECONDS:
                    served[size].append(len(driven.latencies_ms) / driven.seconds)
    for size in SIZES:
        yield PictureRow(
            f"JPEG, {size[0]} x {size[1]}", len(files[size]), tuple(decoded[size]), CLIENTS, tuple(served[size])
        )


def photograph(width: int, height: int) -> bytes:
    """A JPEG file of one photograph in this size."""
    picture = Image.fromarray(embedded.photograph("china.jpg")).resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, NOISE, (height, width, 3))
    levels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def milliseconds(data: bytes, wanted: Geometry) -> float:
    """Of one core, from a file to pixels."""
    begun = process_time()
    for _ in range(DECODED):
        Picture(data).fitted(wanted)
    return round(1000 * (process_time() - begun) / DECODED, 3)
