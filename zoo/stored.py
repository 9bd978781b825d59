"""The user's images as bytes in one file: decoded once, in parallel, and read from a memory map ever after.

A data set at 224 x 224 does not fit into memory as float32: 100,000 photographs would be 60 GB. Decoded to
[model.input]'s geometry they are bytes, uint8 (N,C,H,W), in build/pictures/KEY/pixels.u8, and what is read of them is
converted a batch at a time. KEY names everything that decides the bytes: files, their sizes and times, geometry, split.
The environment variable TORCHWARDEN_PICTURES names another folder than build/pictures.

Rows lie in the order of a hash of their file's content. That is an order as good as random, and the same on every
machine; copies of one file lie side by side. A split takes a part of the hash's range, so copies never lie on both
sides of it, and an image that is added moves no other one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from pictures.errors import PictureError
from pictures.files import opened
from pictures.model_input import ModelInput
from zoo.files import CHECKOUT
from zoo.folders import Listing
from zoo.images import DatasetError, unit
from zoo.maps import mapped, was_read

T = TypeVar("T")

# raised where the same file gives other pixels
FORMAT = 2
VARIABLE = "TORCHWARDEN_PICTURES"
PIXELS, INDEX = "pixels.u8", "index.json"
# files that a message names
NAMED = 5
# work that waits for a thread, so that no queue of decoded pictures grows
AHEAD = 4
# a set below this is converted without a progress bar
SMALL = 64


@dataclass(frozen=True)
class Stored:
    """pixels: uint8 (N,C,H,W), a private map of the file: writing to it changes nothing. labels: int64 (N,) or None.
    digests: of each file, hexadecimal, rising."""

    pixels: torch.Tensor
    labels: torch.Tensor | None
    digests: tuple[str, ...]


def stored(
    listing: Listing, wanted: ModelInput, *, split: str, share: float, broken: float, folder: Path | None = None
) -> Stored:
    """The images of a listing in a geometry, decoded unless they were before.

    split: "train" or "test". share: what is held out for "test" where the listing is to be split here. broken: the
    share of files that may be broken; they are named and left out. folder: where maps are kept.
    Raises DatasetError.
    """
    folder = folder or Path(os.environ.get(VARIABLE) or CHECKOUT / "build/pictures")
    key = _key(listing, wanted, split, share if listing.split_here else 0.0, broken)
    place = folder / key
    if not (place / INDEX).is_file():
        _make(place, listing, wanted, split, share if listing.split_here else None, broken)
    index = json.loads((place / INDEX).read_text())
    if index["rows"] == 0:
        raise DatasetError(f"expected images in the {split} split, got none of {len(listing.files)} files")
    pixels = mapped(place / PIXELS, (index["rows"], *wanted.shape))
    labels = None if index["labels"] is None else torch.tensor(index["labels"], dtype=torch.int64)
    return Stored(pixels, labels, tuple(index["digests"]))


def take(images: torch.Tensor, rows: torch.Tensor | slice) -> torch.Tensor:
    """Rows of images (N,C,H,W), float32 in [0,1] and on the images' device; what was read of a map does not stay
    resident."""
    part = images[rows.to(images.device) if isinstance(rows, torch.Tensor) else rows]
    was_read(images, part.numel(), places=len(part) if isinstance(rows, torch.Tensor) else 1)
    return unit(part)


def _make(place: Path, listing: Listing, wanted: ModelInput, split: str, share: float | None, broken: float) -> None:
    """Decode into a folder of another name, then rename."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(_parallel(pool, _digest, listing.files, f"{split}: reading"))
        order = sorted(range(len(digests)), key=lambda row: (digests[row], row))
        if share is not None:
            order = [row for row in order if (_place(digests[row]) < share) == (split == "test")]
        kept: list[int] = []
        faults: list[str] = []
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            with (temporary / PIXELS).open("wb") as file:
                jobs = ((listing.files[row], wanted) for row in order)
                for row, found in zip(order, _parallel(pool, _decoded, list(jobs), f"{split}: decoding"), strict=True):
                    if isinstance(found, np.ndarray):
                        file.write(found.data)
                        kept.append(row)
                    else:
                        faults.append(found)
            _judge(faults, len(order), broken)
            index = {
                "rows": len(kept),
                "labels": None if listing.labels is None else [listing.labels[row] for row in kept],
                "digests": [digests[row] for row in kept],
            }
            (temporary / INDEX).write_text(json.dumps(index))
            _say(listing, split, len(kept), faults)
            try:
                temporary.rename(place)
            except OSError:  # another process was faster, with the same bytes
                if not (place / INDEX).is_file():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _decoded(job: tuple[Path, ModelInput]) -> np.ndarray | str:
    """The picture's bytes, or what is wrong with it."""
    file, wanted = job
    try:
        return opened(file).fitted(wanted.geometry)
    except PictureError as error:
        return f"{file}: {error}"


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened_file:
            return (
                hashlib.file_digest(opened_file, "sha256").hexdigest()
                if hasattr(hashlib, "file_digest")
                else _sha256(opened_file)
            )
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read: {error.strerror}") from error


def _sha256(file: Any) -> str:
    """For Python 3.10, whose hashlib reads no files."""
    hasher = hashlib.sha256()
    while part := file.read(2**20):
        hasher.update(part)
    return hasher.hexdigest()


def _place(digest: str) -> float:
    """Where in [0, 1) a content lies: other bits than those that order the rows."""
    return int(digest[-12:], 16) / 16**12


def _judge(faults: Sequence[str], files: int, broken: float) -> None:
    if len(faults) > broken * files:
        more = f"\n  and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise DatasetError(
            f"{len(faults)} of {files} pictures cannot be read, more than the {broken:.1%} that [dataset] "
            "broken allows:" + "".join(f"\n  {fault}" for fault in faults[:NAMED]) + more
        )


def _say(listing: Listing, split: str, rows: int, faults: Sequence[str]) -> None:
    classes = f" of {len(listing.classes)} classes" if listing.classes else ", unlabelled"
    print(f"{split}: {rows} images{classes}", file=sys.stderr)
    for reason, count in sorted(listing.left_out.items()):
        print(f"{split}: left out {count}: {reason}", file=sys.stderr)
    for fault in faults[:NAMED]:
        print(f"{split}: left out 1: {fault}", file=sys.stderr)
    if len(faults) > NAMED:
        print(f"{split}: left out {len(faults) - NAMED} more that cannot be read", file=sys.stderr)


def _parallel(pool: ThreadPoolExecutor, work: Any, jobs: Sequence[Any], called: str) -> Iterator[Any]:
    """`work` of every job in order, a few ahead: Pillow lets other threads run while it decodes."""
    waiting = iter(jobs)
    ahead = [pool.submit(work, job) for job in islice(waiting, AHEAD * (os.cpu_count() or 1))]
    with tqdm(total=len(jobs), desc=called, unit="file", disable=len(jobs) < SMALL) as bar:
        while ahead:
            done = ahead.pop(0).result()
            ahead += [pool.submit(work, job) for job in islice(waiting, 1)]
            bar.update()
            yield done


def _key(listing: Listing, wanted: ModelInput, split: str, share: float, broken: float) -> str:
    files = [(str(file), (status := file.stat()).st_size, status.st_mtime_ns) for file in listing.files]
    facts = [FORMAT, files, listing.labels, listing.classes, asdict(wanted.geometry), split, share, broken]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:24]
