"""What one request holds, from the handler's decoding of it to the answer."""

from __future__ import annotations

from typing import NamedTuple

from handlers.rows import Rows


class Request(NamedTuple):
    """rows: what is to be answered. decoded: what the request held, before limits and solutions left none of it;
    None where it was not decoded. principal: the client. solution: of a challenge, where the request brings one."""

    rows: Rows
    decoded: Rows | None
    principal: str
    solution: str | None
