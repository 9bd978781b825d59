"""GIF (89a): the header, its colours, the one picture with its transparency. Comments and the like are dropped."""

from __future__ import annotations

from pictures.formats import GIF, Body
from pictures.parts import FREE, Essence, Kept, broken, most, too_many

# the fewest bytes that a block of pixels has, on average: encoders fill them, 255 bytes each
BLOCK = 32
_EXTENSION, _PICTURE, _END = 0x21, 0x2C, 0x3B
_CONTROL = 0xF9


def gif(data: Body) -> Essence:
    """Raises Unsupported, Broken."""
    if len(data) < 13:
        raise broken()
    kept, bound, dropped = Kept(data), most(data), 0
    place = 13 + _colours(data[10])
    pictures, controls, end = 0, 0, None
    while place < len(data) and data[place] != _END and pictures < 2:
        if data[place] == _EXTENSION and place + 2 < len(data):
            after = _behind(data, place + 2)
            if data[place + 1] == _CONTROL and not pictures and not controls:
                controls = 1
            else:
                kept.drop(place, after)
                dropped += 1
                if dropped > bound:
                    raise too_many()
        elif data[place] == _PICTURE and place + 10 < len(data):
            pictures += 1
            after = _behind(data, place + 10 + _colours(data[place + 9]) + 1)
            end = after if end is None else end
        else:
            raise broken()
        place = after
    if end is None:
        raise broken()
    return Essence(b"".join((kept.until(end), bytes([_END]))), GIF, several=pictures > 1)


def _colours(flags: int) -> int:
    """The bytes of a colour table, of which flags tell."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _behind(data: Body, place: int) -> int:
    """Where a run of blocks ends: each begins with its length, and one without any is the last."""
    start, blocks = place, 0
    while place < len(data) and data[place]:
        place += data[place] + 1
        blocks += 1
        if blocks > FREE + (place - start) // BLOCK:
            raise too_many()
    return place + 1
