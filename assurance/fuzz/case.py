"""One hostile request, byte for byte, and what may come back.

A case holds no token and no address: AUTHORIZATION and HOST stand for them, so that a failing one can be kept in a file
and sent again (`python -m assurance.fuzz --replay FILE`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from handlers import wire
from report.atomic import write_json

AUTHORIZATION = b"@AUTHORIZATION@"
HOST = b"@HOST@"

Header = tuple[bytes, bytes]


class Seen(NamedTuple):
    """What the handler is given, whatever became of it on the way: it must answer as its decoder says.

    headers: other ones that mean something, in small letters. parts: of a form, by their names, in place of the body.
    """

    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    parts: tuple[tuple[str, bytes], ...] = ()

    @property
    def message(self) -> wire.Message:
        """As the handler has it."""
        headers = {"content-type": self.content_type, **dict(self.headers)}
        return wire.Message(headers, None if self.parts else self.body, dict(self.parts))


@dataclass(frozen=True)
class Subject:
    """A model that is asked. images: honest rows (n,C,H,W) in 8-bit steps. most_bytes: of a body that is read. names:
    of its classes."""

    model: str
    accepts: wire.Accepts
    most_bytes: int
    images: NDArray[np.float32] = field(repr=False)
    names: tuple[str, ...] = tuple(map(str, range(10)))


@dataclass(frozen=True)
class Case:
    """A request and what may become of it.

    kind, idea: where it comes from. head: with the blank line. seen: None where nothing is promised but a clean
    end. refusable: the front end may refuse it, or close the connection. complete: if not, the server may wait for
    the rest. also: codes of ours that are right besides. pieces: how many bytes go out at a time, `pause` seconds
    apart; what is left goes out at once. half: then the sending side is closed.
    """

    kind: str
    idea: str
    model: str
    head: bytes
    body: bytes = b""
    seen: Seen | None = None
    refusable: bool = False
    complete: bool = True
    also: tuple[str, ...] = ()
    pieces: tuple[int, ...] = ()
    pause: float = 0.0
    half: bool = False

    @property
    def message(self) -> bytes:
        """What is sent, but for the two places."""
        return self.head + self.body

    @property
    def method(self) -> bytes:
        """As the answer's reader must know it."""
        return self.head.partition(b" ")[0]


class Make(Protocol):
    """An idea: makes a case of a subject with random numbers that are the case's own."""

    def __call__(self, rng: Random, subject: Subject, /) -> Case: ...


def head(headers: Iterable[Header], target: bytes, method: bytes = b"POST", version: bytes = b"HTTP/1.1") -> bytes:
    """A request's head with these headers, and no other."""
    lines = [b" ".join((method, target, version)), *(b": ".join(header) for header in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def path(subject: Subject) -> bytes:
    """Where the subject is asked."""
    return b"/predictions/" + subject.model.encode()


def usual(content_type: str, length: int | None) -> list[Header]:
    """The headers of an honest request."""
    headers = [(b"Host", HOST), (b"Authorization", AUTHORIZATION), (b"Content-Type", content_type.encode("latin-1"))]
    return headers if length is None else [*headers, (b"Content-Length", str(length).encode())]


def posted(kind: str, idea: str, subject: Subject, content_type: str, body: bytes) -> Case:
    """An honest envelope around a body that need not be."""
    return Case(
        kind,
        idea,
        subject.model,
        head(usual(content_type, len(body)), path(subject)),
        body,
        seen=Seen(content_type, body),
        refusable=len(body) > subject.most_bytes,
    )


def save(case: Case, file: Path, **notes: Any) -> None:
    """Write the case, with `notes` on what was wrong, under a temporary name that is then changed."""
    seen = None
    if case.seen is not None:
        own = None if case.seen.body == case.body else _text(case.seen.body)
        parts = [[name, _text(part)] for name, part in case.seen.parts]
        seen = [case.seen.content_type, own, list(map(list, case.seen.headers)), parts]
    content = {
        **{name: getattr(case, name) for name in _PLAIN},
        "head": _text(case.head),
        "body": _text(case.body),
        "seen": seen,
        **notes,
    }
    write_json(file, content)


def load(file: Path) -> Case:
    """A case that `save` wrote; its notes are left aside. Raises ValueError where the file is no such thing."""
    try:
        content = json.loads(file.read_text("utf-8"))
        seen, body = content["seen"], _bytes(content["body"])
        return Case(
            **{name: content[name] for name in _PLAIN if name not in ("also", "pieces")},
            also=tuple(content["also"]),
            pieces=tuple(content["pieces"]),
            head=_bytes(content["head"]),
            body=body,
            seen=None if seen is None else _seen(body, *seen),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: expected a case that assurance.fuzz saved, got {type(error).__name__}: {error}"
        ) from error


_PLAIN = ("kind", "idea", "model", "refusable", "complete", "also", "pieces", "pause", "half")


def _seen(body: bytes, content_type: str, own: str | None, headers: Any = (), parts: Any = ()) -> Seen:
    """What was saved of it; files of before have no headers and parts."""
    return Seen(
        content_type,
        body if own is None else _bytes(own),
        tuple((name, value) for name, value in headers),
        tuple((name, _bytes(part)) for name, part in parts),
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
