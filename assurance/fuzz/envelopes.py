"""One picture in every way that clients send one: odd types and none, PUT, base64, packed bodies, answers asked for."""

from __future__ import annotations

import base64
import gzip
import zlib
from random import Random

import orjson

from assurance.fuzz import formats, pictures
from assurance.fuzz.case import AUTHORIZATION, HOST, Case, Header, Make, Seen, Subject, head, path
from handlers import wire
from handlers.bodies import FILES
from handlers.forms import TORCHSERVE

KIND = "envelopes"
TYPES = (
    *("", "image/jpg", "image/pjpeg", "image/x-png", "image/*", "*/*", "image", "text/plain", "application/json"),
    *("IMAGE/PNG", "image/png; charset=binary", "application/octet-stream", "application/pdf", "image/svg+xml"),
    *("application/x-www-form-urlencode", "application/vnd.x+json", "image/heic", "a" * 1000, ";;", "image/png,"),
)


def _sent(
    idea: str, subject: Subject, body: bytes, content_type: str | None, *more: Header, method: bytes = b"POST"
) -> Case:
    """A request of ours at the usual path. content_type: None, where none is stated."""
    headers = [(b"Host", HOST), (b"Authorization", AUTHORIZATION), (b"Content-Length", b"%d" % len(body)), *more]
    if content_type is not None:
        headers.insert(2, (b"Content-Type", content_type.encode()))
    stated = tuple((name.decode().lower(), value.decode()) for name, value in more)
    return Case(
        KIND,
        idea,
        subject.model,
        head(headers, path(subject), method),
        body,
        seen=Seen((content_type or "").strip(), body, stated),
        refusable=len(body) > subject.most_bytes or method != b"POST",
    )


def types(rng: Random, subject: Subject) -> Case:
    """A picture, rows or a text under a type that is odd, wrong or not there."""
    row = wire.encode_rows(subject.images[:1], wire.RAW)
    text = orjson.dumps({"instances": [{"b64": base64.b64encode(pictures.png(rng, subject)).decode()}]})
    body = rng.choice(
        [formats.any_file(rng, subject), formats.any_file(rng, subject), row, row[:-4], text, b"", b"<html>"]
    )
    return _sent("type", subject, body, rng.choice([None, *TYPES]))


def put(rng: Random, subject: Subject) -> Case:
    """PUT, as `curl -T` sends a file."""
    body = rng.choice([formats.any_file(rng, subject), b"", wire.encode_rows(subject.images[:1], wire.RAW)])
    return _sent("put", subject, body, rng.choice([None, wire.PNG, wire.RAW]), method=b"PUT")


def texts(rng: Random, subject: Subject) -> Case:
    """Base64 in lines, URL-safe, unpadded, behind data URLs, doubled, broken; under each key, in each nesting."""
    file = formats.any_file(rng, subject)
    plain = base64.b64encode(file).decode()
    at = rng.randrange(len(plain))
    width = rng.choice([1, 60, 76])
    text = rng.choice(
        [
            plain,
            base64.urlsafe_b64encode(file).decode(),
            plain.rstrip("="),
            "\r\n".join(plain[start : start + width] for start in range(0, len(plain), width)) + "\n",
            f"data:image/png;base64,{plain}",
            f"data:;base64,{plain}",
            f"data:image/png,{plain}",
            f"data:image/png;base64;{plain}",
            "data:" + "a" * 5000 + f";base64,{plain}",
            f" \t{plain} ",
            plain + "=" * rng.choice([1, 4, 1000]),
            plain[:at] + "=" + plain[at:],
            plain[:at] + rng.choice("\0!é\u2028\U0001f600,") + plain[at:],
            plain[:at],
            base64.b64encode(plain.encode()).decode(),
            "",
        ]
    )
    key = rng.choice(FILES)
    inner: object = rng.choice([text, {"b64": text}, {key: {"b64": {"b64": text}}}, [text], text.encode("utf-8").hex()])
    request = rng.choice([{"instances": [{key: inner}]}, {key: inner}, {key: inner, "more": 1}, [{key: inner}]])
    body = orjson.dumps(request)
    mark = rng.choice([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf" * 2, b" \r\n"])
    return _sent("text", subject, mark + body, rng.choice([wire.JSON, None, "text/plain"]))


def packed(rng: Random, subject: Subject) -> Case:
    """A compressed body, with the header that says so or without; bombs among them."""
    file = formats.any_file(rng, subject)
    body = rng.choice([gzip.compress(file, mtime=0), zlib.compress(file), gzip.compress(bytes(10**7), mtime=0), file])
    coding = rng.choice([b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"GZIP", b"gzip, br", b"identity"])
    more = [(b"Content-Encoding", coding)] if rng.random() < 0.8 else []
    return _sent("packed", subject, body, rng.choice([wire.PNG, None, wire.JSON, wire.RAW]), *more)


def accepts(rng: Random, subject: Subject) -> Case:
    """TorchServe's own form of the answer, and other things that `Accept` may say."""
    rows = [{"b64": base64.b64encode(formats.any_file(rng, subject)).decode()} for _ in range(rng.randint(1, 3))]
    accept = rng.choice(
        [TORCHSERVE, TORCHSERVE, TORCHSERVE.upper(), f"text/html, {TORCHSERVE};q=0.1", "*/*", "image/png"]
    )
    return _sent("accept", subject, orjson.dumps({"instances": rows}), wire.JSON, (b"Accept", accept.encode()))


IDEAS: tuple[Make, ...] = (types, types, put, texts, texts, texts, packed, accepts)
