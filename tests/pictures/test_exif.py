"""TIFF directories by hand, and those that Pillow writes."""

from __future__ import annotations

import struct

import pytest
from PIL import Image

from pictures import exif

ENTRY = (0x0112, 3, 1, 6)


def tiff(*entries: tuple[int, int, int, int], order: str = ">", place: int = 8) -> bytes:
    """EXIF data of one directory; a SHORT stands at the left of its field."""
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", place)
    body = b"".join(
        struct.pack(f"{order}HHI", *entry[:3]) + struct.pack(f"{order}HH" if entry[1] == 3 else f"{order}I", *value)
        for entry in entries
        for value in [(entry[3], 0) if entry[1] == 3 else (entry[3],)]
    )
    return head + bytes(place - 8) + struct.pack(f"{order}H", len(entries)) + body + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_of_the_first_directory(order: str) -> None:
    other = (0x0100, 4, 1, 640)
    assert exif.orientation(tiff(ENTRY, order=order)) == 6
    assert exif.orientation(b"Exif\0\0" + tiff(other, ENTRY, order=order)) == 6
    assert exif.orientation(b"Exif\0\0Exif\0\0" + tiff(ENTRY, other, order=order, place=100)) == 6
    assert exif.orientation(tiff((0x0112, 4, 1, 8), order=order)) == 8
    assert exif.orientation(tiff(other, order=order)) == 1
    assert exif.number(tiff(other, order=order), 0x0100) == 640


@pytest.mark.parametrize("entry", [(0x0112, 1, 1, 6), (0x0112, 3, 2, 6), (0x0112, 3, 0, 6), (0x0112, 99, 1, 6)])
def test_an_entry_of_another_type_or_count_says_nothing(entry: tuple[int, int, int, int]) -> None:
    assert exif.orientation(tiff(entry)) == 1


def test_data_that_are_cut_off_anywhere_say_nothing_or_what_they_hold() -> None:
    data = tiff((0x0100, 4, 1, 640), ENTRY, (0x0200, 4, 1, 1))
    for length in range(len(data)):
        assert exif.orientation(data[:length]) in (1, 6)
    assert exif.orientation(data[: 10 + 2 * 12]) == 6
    assert exif.orientation(data[: 10 + 2 * 12 - 1]) == 1
    assert exif.orientation(b"") == exif.orientation(b"JUNK" + data[4:]) == exif.orientation(b"Exif\0\0" * 1000) == 1


def test_no_more_is_looked_at_than_the_bound() -> None:
    assert exif.orientation(tiff(ENTRY, place=65_536 - 2 - 12)) == 6
    assert exif.orientation(tiff(ENTRY, place=65_536 - 2 - 11)) == 1
    assert exif.orientation(tiff(ENTRY, place=65_536)) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_pillow_writes(orientation: int) -> None:
    data = Image.Exif()
    data[0x010F], data[0x0112], data[0x011A] = "Maker", orientation, 72.0
    assert exif.orientation(data.tobytes()) == orientation
