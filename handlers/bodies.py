"""What a request's body holds, in whichever of the ways that clients send pictures.

    a picture                      by its first bytes, whatever type is stated; "image/jpg" and none at all are common
    multipart/form-data            a picture a part, each part under a name of its own
    application/octet-stream       float32 little-endian values, row after row. Pictures come under this type too: no
                                   value in [0, 1] begins as PNG, JPEG or WebP files do
    JSON  {"instances": [...]}     each nested lists C x H x W (H x W where C = 1), or a picture in base64 under one of
                                   FILES, as text or as {"b64": text}
    JSON  {"data": ...}            one such instance alone, under any of FILES
    Open Inference Protocol, v2    handlers/oip.py

A body is first opened, which judges pictures by their headers, then read: the pictures of all requests of a batch
together, in as many threads as the caller has.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from handlers import numbers, oip
from handlers.errors import (
    NoRows,
    RequestError,
    TooManyPixels,
    Undecodable,
    UnsupportedContent,
)
from handlers.forms import JSON, PREDICTIONS, STOCK, TORCHSERVE, Form
from handlers.images import open_image, read_image
from handlers.rows import Expects, Images, Rows, check_count
from pictures.formats import NO_NUMBER, Body, format_of
from pictures.geometry import Geometry
from pictures.picture import Picture

RAW = "application/octet-stream"
PARTS = "multipart/form-data"
FORM = "application/x-www-form-urlencoded"
# of an object that holds a picture: ours and TensorFlow's, TorchServe's, and those of KServe's examples
FILES = ("b64", "data", "image_bytes", "image", "body")
# how many pictures of the largest size one request may have: what it may cost is bounded by it (Picture.work)
LARGEST = 4
# of one multipart part: its header lines, the longest file name among them; its boundary comes on top
PART_HEADERS = 1024
# what a JSON text of numbers alone is made of, and what is left of it without that
_NUMBERS = b"0123456789.eE+-[], \t\r\n"
_AROUND = b'{"instancs":}'
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_SPACE = b" \t\r\n"

Entry: TypeAlias = "Picture | Images | RequestError"
Each: TypeAlias = Callable[[Callable[[Picture], "Images | RequestError"], Iterable[Picture]], Iterable[Any]]
"""As `map`, or a thread pool's."""


class Message(NamedTuple):
    """A request as the server hands it over: headers by their lower-case names, and a body, or the parts of one by
    their names. model: the name that the client asked for."""

    headers: Mapping[str, str]
    body: Body | None = None
    parts: Mapping[str, Body] = {}
    model: str = ""

    @property
    def media_type(self) -> str:
        """Of the body, in small letters; "" where none is stated."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Unread(NamedTuple):
    """Rows whose pictures are yet to be decoded."""

    entries: Sequence[Entry]
    form: Form


def form_of(message: Message) -> Form:
    """The form of the answer, as far as it shows before the body is read."""
    if oip.asked(message.headers, message.body if isinstance(message.body, bytes | bytearray) else b""):
        return oip.Inference(message.model)
    accept = message.headers.get("accept", "")
    return STOCK if len(accept) >= len(TORCHSERVE) and TORCHSERVE in accept.lower() else PREDICTIONS


def opened(message: Message, form: Form, expects: Expects) -> Rows | Unread:
    """A request's rows, counted, numbers read and pictures judged by their headers. Raises RequestError for a request
    at fault as a whole: UnsupportedContent, TooManyRows, NoRows, and Undecodable or WrongShape where rows cannot be
    separated; the fault of a row stands at its place."""
    encoding = message.headers.get("content-encoding")
    if encoding and encoding.strip().lower() != "identity":
        raise UnsupportedContent("expected no Content-Encoding; send the body as it is, not compressed")
    if message.body is None and message.parts:
        return _parts(message, form, expects)
    body = message.body or b""
    if isinstance(form, oip.Inference):
        return _inference(body, message, form, expects)
    format_, stated = format_of(body), message.media_type
    if format_ in NO_NUMBER or (format_ and stated != RAW):
        return Unread(_within([body], expects.input), form)
    if stated == RAW:
        return numbers.raw(body, expects, form)
    if stated.startswith("image/"):
        if not body:
            raise NoRows("expected a picture, got an empty body")
        return Unread(_within([body], expects.input), form)
    if stated == JSON or stated.endswith("json") or bytes(body[:64]).removeprefix(numbers.MARK).lstrip()[:1] == b"{":
        return _json(body, form, expects)
    if not body:
        raise NoRows("expected a picture, got an empty body")
    if not stated and len(body) % (4 * expects.input.channels * expects.input.height * expects.input.width) == 0:
        return numbers.raw(body, expects, form)
    raise UnsupportedContent(f"expected a picture, {PARTS} of pictures, {JSON} or {RAW}, got a body that is none")


def read(opened_: Sequence[Rows | Unread], expects: Geometry, each: Each = map) -> list[Rows]:
    """The rows of requests, all their pictures decoded by `each`."""
    unread = [rows for rows in opened_ if isinstance(rows, Unread)]
    if not unread:
        return list(opened_)  # type: ignore[arg-type]
    pictures = [entry for rows in unread for entry in rows.entries if _waits(entry)]
    pixels = iter(each(partial(_pixels, expects=expects), pictures))  # type: ignore[arg-type]
    return [
        Rows.gathered(
            (next(pixels) if _waits(entry) else entry for entry in rows.entries),  # type: ignore[misc]
            len(rows.entries),
            expects,
            rows.form,
        )
        if isinstance(rows, Unread)
        else rows
        for rows in opened_
    ]


def _waits(entry: Entry) -> bool:
    return isinstance(entry, Picture)


def _pixels(picture: Picture, *, expects: Geometry) -> Images | RequestError:
    try:
        return read_image(picture, expects)
    except RequestError as error:
        return error


def _within(files: Iterable[Body | RequestError], expects: Geometry) -> list[Entry]:
    """Each file as a picture, of LARGEST large ones together."""
    entries: list[Entry] = []
    room = LARGEST * expects.most_pixels
    for file in files:
        try:
            picture = open_image(file, expects) if isinstance(file, bytes | bytearray | memoryview) else file
        except RequestError as error:
            picture = error
        if isinstance(picture, Picture) and expects.fit != "exact":
            room -= picture.work(expects)
            if room < 0:
                most = f"{LARGEST * expects.megapixels:g}"
                picture = TooManyPixels(f"expected pictures of {most} megapixels together; send fewer in a request")
        entries.append(picture)
    return entries


def _parts(message: Message, form: Form, expects: Expects) -> Unread:
    if message.media_type == FORM:
        raise UnsupportedContent(
            f"expected {PARTS}, {JSON} or a picture, got {FORM}; with curl, send a file by -T FILE"
        )
    check_count(len(message.parts), expects)
    _check_names(message)
    return Unread(_within(message.parts.values(), expects.input), form)


def _check_names(message: Message) -> None:
    """TorchServe keeps the last of all parts of one name: what is gone shows in the length of what was sent. Raises
    Undecodable."""
    length = numbers.whole(message.headers.get("content-length", ""))
    boundary = len(message.headers.get("content-type", ""))
    if length is None:
        return
    kept = sum(len(name) + len(part) + boundary + PART_HEADERS for name, part in message.parts.items())
    if length > kept + boundary:
        raise Undecodable("expected each part under a name of its own (file1, file2, ...), got several under one")


def _json(body: Body, form: Form, expects: Expects) -> Unread:
    request = numbers.parsed(body, expects)
    if isinstance(request, dict) and len(request) == 1 and next(iter(request)) in FILES:
        instances = [request]
    elif isinstance(request, dict) and request.keys() == {"instances"} and isinstance(request["instances"], list):
        instances = request["instances"]
    else:
        raise Undecodable('expected {"instances": [...]} and no other key')
    check_count(len(instances), expects)
    plain = body.translate(None, _NUMBERS) == _AROUND
    if plain:
        return Unread([_nested(instance, expects.input, plain=True) for instance in instances], form)
    files = [_file(instance) for instance in instances]
    pictures = iter(_within([file for file in files if file is not None], expects.input))
    return Unread(
        [
            _nested(instance, expects.input, plain=False) if file is None else next(pictures)
            for instance, file in zip(instances, files, strict=True)
        ],
        form,
    )


def _nested(instance: Any, expects: Geometry, *, plain: bool) -> Entry:
    try:
        if isinstance(instance, dict):
            keys = ", ".join(FILES)
            raise Undecodable(f'expected nested lists of numbers or {{"b64": a picture}}, or another key of {keys}')
        return numbers.nested(instance, expects, plain=plain)
    except RequestError as error:
        return error


def _file(instance: Any) -> Body | RequestError | None:
    """The picture's bytes of an instance that is an object with one of FILES; None for another instance."""
    value: Any = instance
    for _ in range(2):  # {"image_bytes": {"b64": text}}
        if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in FILES:
            break
        value = next(iter(value.values()))
    return _decoded(value) if isinstance(instance, dict) and isinstance(value, str) else None


def from_base64(text: str) -> bytes:
    """What a text holds: in lines, URL-safe, without its padding or behind `data:...;base64,` as well. Raises
    Undecodable."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Undecodable("b64: expected a data URL with ;base64, and the text behind it")
    try:
        letters = text.encode("ascii").translate(_TO_STANDARD, _SPACE)
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except ValueError as error:
        raise Undecodable("b64: expected base64 text: letters, digits, + and /, or - and _, padded with =") from error


def _inference(body: Body, message: Message, form: oip.Inference, expects: Expects) -> Rows | Unread:
    asked = oip.read(body, message.headers, form, expects)
    if isinstance(asked.rows, Rows):
        return asked.rows
    files = [_decoded(each) if isinstance(each, str) else each for each in asked.rows]
    return Unread(_within(files, expects.input), asked.form)


def _decoded(text: str) -> Body | RequestError:
    try:
        return from_base64(text)
    except RequestError as error:
        return error
