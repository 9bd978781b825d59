"""HTTP itself: headers too large, too many, twice or at odds, bodies in strange frames, other methods and paths.

Where `seen` is set the request is one that the server must understand; else it may refuse it or close the connection.
"""

from __future__ import annotations

import gzip
import zlib
from random import Random
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from assurance.fuzz.case import AUTHORIZATION, HOST, Case, Header, Make, Seen, Subject, head, path, usual
from handlers import wire

KIND = "messages"
CHUNKED = (b"Transfer-Encoding", b"chunked")
BOMB = gzip.compress(bytes(20_000_000), mtime=0)


def _body(rng: Random, subject: Subject) -> bytes:
    """One honest row."""
    row: NDArray[np.float32] = rng.choice(subject.images)
    return row.tobytes()


def _seen(body: bytes, *headers: tuple[str, str]) -> Seen:
    return Seen(wire.RAW, body, headers)


def _length(body: bytes) -> Header:
    return b"Content-Length", str(len(body)).encode()


def _free(
    idea: str,
    subject: Subject,
    headers: list[Header],
    body: bytes,
    *,
    target: bytes | None = None,
    method: bytes = b"POST",
    version: bytes = b"HTTP/1.1",
    complete: bool = True,
    half: bool = False,
) -> Case:
    """A request of which nothing is promised but a clean end."""
    line = head(headers, path(subject) if target is None else target, method, version)
    return Case(KIND, idea, subject.model, line, body, refusable=True, complete=complete, half=half)


def _around(rng: Random, subject: Subject, idea: str, *added: Header) -> Case:
    """An honest request with headers in addition, at any places."""
    body = _body(rng, subject)
    headers = usual(wire.RAW, len(body))
    for header in added:
        headers.insert(rng.randint(1, len(headers)), header)
    seen = _seen(body, *((name.decode("latin-1").lower(), value.decode("latin-1").strip()) for name, value in added))
    return Case(KIND, idea, subject.model, head(headers, path(subject)), body, seen=seen, refusable=True, also=_ALSO)


# what our handler may say besides of a header with junk in it
_ALSO = ("solution_invalid", "bad_principal")


def large_headers(rng: Random, subject: Subject) -> Case:
    """One header of kilobytes."""
    return _around(
        rng, subject, "large-header", (b"X-Large", b"a" * rng.choice([1_000, 7_000, 8_100, 9_000, 70_000, 1_000_000]))
    )


def many_headers(rng: Random, subject: Subject) -> Case:
    """A hundred headers, or ten thousand."""
    count = rng.choice([50, 200, 1_000, 10_000])
    return _around(rng, subject, "many-headers", *((b"X-%d" % index, b"a") for index in range(count)))


def own_headers(rng: Random, subject: Subject) -> Case:
    """The headers that mean something to TorchServe, to us or to a gateway, with junk or with what they mean."""
    junk = [
        b"",
        b"True",
        b"true",
        b"1",
        b"A" * 4000,
        b"\xff\xfe",
        b'{"a":1}',
        b"../../etc/passwd",
        b"[METRICS]x.Counts:1|#",
        b"%0d%0a",
        rng.randbytes(8).hex().encode(),
    ]
    names = (
        *(
            b"describe",
            b"explain",
            b"Torchwarden-Solution",
            b"torchwarden-solution",
            b"Torchwarden-Principal",
            b"url_path",
        ),
        *(
            b"X-Request-Id",
            b"X-Forwarded-For",
            b"model_name",
            b"Accept",
            b"Range",
            b"If-None-Match",
            b"Cookie",
            b"Upgrade",
        ),
        *(b"Content-Encoding", b"Forwarded", b"ts_request_sequence_id"),
    )
    count = rng.choice([1, 1, 3])
    return _around(rng, subject, "own-headers", *((name, rng.choice(junk)) for name in rng.sample(names, count)))


def strange_headers(rng: Random, subject: Subject) -> Case:
    """Header lines that are none: no colon, no name, line feeds, zero bytes, folded lines."""
    line = rng.choice(
        [
            b"Foo",
            b": a",
            b" a: b",
            b"a b: c",
            b"X: a\r\n b",
            b"X: a\0b",
            b"X: \x01\x7f",
            b"X: a\nY: b",
            b"X: a\rY: b",
            b"\xff: a",
            b"X" * 300 + b":",
            b"X:" + b" " * 3000,
        ]
    )
    body = _body(rng, subject)
    whole = head(usual(wire.RAW, len(body)), path(subject))
    first, rest = whole.split(b"\r\n", 1)
    return Case(KIND, "strange-header", subject.model, first + b"\r\n" + line + b"\r\n" + rest, body, refusable=True)


def twice(rng: Random, subject: Subject) -> Case:
    """A header twice, with the same value or another: which one counts?"""
    body = _body(rng, subject)
    headers = usual(wire.RAW, len(body))
    added = rng.choice(
        [
            _length(body),
            (b"Content-Length", b"5"),
            (b"Content-Length", b"0"),
            (b"Content-Type", b"application/json"),
            (b"content-type", b"image/png"),
            (b"Authorization", b"Bearer wrong"),
            (b"authorization", AUTHORIZATION),
            (b"Host", b"elsewhere"),
            (b"Expect", b"100-continue"),
        ]
    )
    headers.insert(rng.randint(1, len(headers)), added)
    return _free(f"twice-{added[0].decode().lower()}", subject, headers, body, complete=added[1] != b"0")


def lengths(rng: Random, subject: Subject) -> Case:
    """Lengths that are none."""
    body = _body(rng, subject)
    size = len(body)
    length = rng.choice(
        [
            b"-1",
            b"+%d" % size,
            b"0x%x" % size,
            b"%d, %d" % (size, size),
            b"%d;" % size,
            b" %d " % size,
            b"abc",
            b"",
            b"9" * 30,
            b"1e3",
            b"%d" % 2**63,
            b"\xb2",
            b"00%d" % size,
        ]
    )
    return _free("length", subject, [*usual(wire.RAW, None), (b"Content-Length", length)], body, complete=False)


def shorter_or_longer(rng: Random, subject: Subject) -> Case:
    """A body that is not as long as it says."""
    body = _body(rng, subject)
    headers = usual(wire.RAW, len(body))
    changed = rng.choice([body[: rng.randrange(len(body))], body + rng.randbytes(rng.randint(1, 200)), b""])
    return _free("other-length", subject, headers, changed, complete=len(changed) >= len(body), half=rng.random() < 0.3)


def no_length(rng: Random, subject: Subject) -> Case:
    """A body that nothing announces: what follows is read as another request."""
    return _free("no-length", subject, usual(wire.RAW, None), _body(rng, subject), complete=False)


def smuggled(rng: Random, subject: Subject) -> Case:
    """A length and chunks at odds: front end and server may take different ends for the end."""
    inner = head(
        [(b"Host", b"elsewhere"), (b"Content-Length", b"0")],
        rng.choice([b"/ping", b"/models", path(subject)]),
        rng.choice([b"GET", b"POST"]),
    )
    row = _body(rng, subject)
    outer = rng.choice([b"0\r\n\r\n", _chunk(row) + b"0\r\n\r\n", row])
    body = outer + inner
    transfer = rng.choice(
        [
            b"chunked",
            b"Chunked",
            b" chunked",
            b"chunked ",
            b"\tchunked",
            b"xchunked",
            b"identity, chunked",
            b"chunked, identity",
            b"gzip",
            b"chunked\x0b",
            b'"chunked"',
            b"chunked;q=1",
        ]
    )
    name = rng.choice([b"Transfer-Encoding", b"transfer-encoding", b"Transfer-Encoding ", b"Transfer_Encoding"])
    length = rng.choice([len(outer), len(outer), len(body), 0])
    headers = [*usual(wire.RAW, length), (name, transfer)]
    if rng.random() < 0.3:
        headers.append((b"Transfer-Encoding", rng.choice([b"identity", b"chunked"])))
    return _free("smuggled", subject, headers, body, complete=False)


def _chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


def chunked(rng: Random, subject: Subject) -> Case:
    """A good body in chunks of odd sizes, with extensions and trailers."""
    body = _body(rng, subject)
    out, place = b"", 0
    extension = rng.choice([b"", b"", b";a=b", b';a="b;c"'])
    while place < len(body):
        size = rng.choice([1, 2, 7, 100, 1_000, len(body)])
        out += _chunk(body[place : place + size], extension)
        place += size
    out += b"0\r\n" + rng.choice([b"", b"", b"X-Trailer: a\r\n"]) + b"\r\n"
    headers = [*usual(wire.RAW, None), CHUNKED]
    return Case(KIND, "chunked", subject.model, head(headers, path(subject)), out, seen=_seen(body), refusable=True)


def broken_chunks(rng: Random, subject: Subject) -> Case:
    """Chunks whose sizes or ends are wrong."""
    body = _body(rng, subject)
    out = rng.choice(
        [
            b"zz\r\nabc\r\n0\r\n\r\n",
            b"-5\r\nabc\r\n0\r\n\r\n",
            b"ffffffffffffffff\r\nabc",
            b"7fffffff\r\nabc\r\n",
            b"80000000\r\nabc\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\nabc\n0\n\n",
            b"3" * 9_000,
            b"\r\n\r\n",
            b"0\r\n",
            _chunk(body)[:-2],
            _chunk(body) + b"0;" + b"a" * 20_000 + b"\r\n\r\n",
            _chunk(body) + b"0\r\n" + b"X: a\r\n" * 5_000 + b"\r\n",
            b"3 \r\nabc\r\n0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
        ]
    )
    return _free("broken-chunks", subject, [*usual(wire.RAW, None), CHUNKED], out, complete=False)


def slow(rng: Random, subject: Subject) -> Case:
    """A good request in a few pieces with pauses between them, anywhere."""
    body = _body(rng, subject)
    line = head(usual(wire.RAW, len(body)), path(subject))
    size = len(line) + len(body)
    marks = sorted(rng.sample(range(1, size), rng.randint(1, 4)))
    pieces = tuple(right - left for left, right in zip([0, *marks], marks, strict=False))
    return Case(
        KIND, "slow", subject.model, line, body, seen=_seen(body), pieces=pieces, pause=rng.choice([0.01, 0.05, 0.2])
    )


def unfinished(rng: Random, subject: Subject) -> Case:
    """A request that stops in the middle; the sender waits, or closes its side."""
    body = _body(rng, subject)
    whole = head(usual(wire.RAW, len(body)), path(subject)) + body
    sent = whole[: rng.randrange(len(whole))]
    return Case(KIND, "unfinished", subject.model, sent, refusable=True, complete=False, half=rng.random() < 0.5)


def half_closed(rng: Random, subject: Subject) -> Case:
    """A whole request whose sender then closes its side, as some clients do."""
    body = _body(rng, subject)
    return _free("half-closed", subject, usual(wire.RAW, len(body)), body, complete=False, half=True)


def expectations(rng: Random, subject: Subject) -> Case:
    """Expect: 100-continue with the body behind it at once or after a pause, and other expectations."""
    body = _body(rng, subject)
    expectation = rng.choice([b"100-continue", b"100-Continue", b"100-continue", b"200-maybe", b""])
    line = head([*usual(wire.RAW, len(body)), (b"Expect", expectation)], path(subject))
    known = expectation.lower() == b"100-continue"
    return Case(
        KIND,
        "expect",
        subject.model,
        line,
        body,
        seen=_seen(body) if known else None,
        refusable=True,
        complete=known,
        pieces=(len(line),),
        pause=rng.choice([0.0, 0.05]),
    )


def methods(rng: Random, subject: Subject) -> Case:
    """Other methods and versions, known and unknown."""
    body = rng.choice([_body(rng, subject), b""])
    method = rng.choice(
        [
            b"GET",
            b"PUT",
            b"DELETE",
            b"PATCH",
            b"HEAD",
            b"OPTIONS",
            b"TRACE",
            b"PROPFIND",
            b"FOO",
            b"post",
            b"A" * 5_000,
            b"P\xffST",
            b"\x16\x03\x01",
        ]
    )
    version = rng.choice(
        [b"HTTP/1.1"] * 4 + [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/x", b"", b"FOO/1.1"]
    )
    return _free("method", subject, usual(wire.RAW, len(body)), body, method=method, version=version, complete=False)


def targets(rng: Random, subject: Subject) -> Case:
    """Other paths: encodings, dots, absolute URIs, versions, queries, what TorchServe has besides."""
    own = path(subject)
    model = subject.model.encode()
    target = rng.choice(
        [
            b"http://elsewhere" + own,
            b"*",
            b"/",
            b"//" + own,
            b"",
            own + b"/",
            own + b"/9.9",
            own + b"/1.0/a/b",
            own + b"%00",
            own + b"%zz",
            own + b"%",
            own + b"%2e%2e%2fmodels",
            own + b"/../" + model,
            b"/predictions/" + quote(bytes([model[0]]) + b"\xc0\xaf").encode(),
            b"/predictions/%s" % b"".join(b"%%%02x" % byte for byte in model),
            b"/predictions/" + b"a" * rng.choice([100, 3_000, 5_000]),
            b"/predictions/\xff\xfe",
            b"/predictions/nobody",
            b"/predictions",
            own + b"?body=x&data=y&describe=True",
            own + b"?" + b"&".join(b"k%d=v" % index for index in range(400)),
            own + b"?%zz=%",
            own + b"#a",
            b"/explanations/" + model,
            b"/v1/models/" + model + b":predict",
            b"/v2/models/" + model + b"/infer",
            b"/invocations",
            b"/ping",
            b"/models",
            b"/models/" + model + b"?min_worker=0",
            b"/workflows?url=http://127.0.0.1:9/x.war",
            b"/wfpredict/a",
            b"/api-description",
            b"/metrics",
            b"/token?type=inference",
            b"/v2",
        ]
    )
    method = rng.choice([b"POST", b"POST", b"GET", b"PUT", b"DELETE", b"OPTIONS"])
    body = rng.choice([_body(rng, subject), b""])
    return _free("target", subject, usual(wire.RAW, len(body)), body, target=target, method=method)


def content_types(rng: Random, subject: Subject) -> Case:
    """Content types that are none that we name, with parameters, or with two of them: the first bytes decide."""
    body = _body(rng, subject)
    content_type = rng.choice(
        [
            *(
                b"",
                b"text/plain",
                b"text/html; charset=utf-16",
                b"*/*",
                b"application/octet-stream, application/json",
                b"\xff\xfe",
            ),
            *(
                b"application/x-pickle",
                b"application/vnd.ms-excel",
                b"a" * 4_000,
                b"image/gif",
                b"image/svg+xml",
                b"application",
                b";",
            ),
            *(
                b'application/octet-stream; a="',
                b"application/octet-stream;charset=x;charset=y",
                b"APPLICATION/OCTET-STREAM",
                b"application/octet-stream\t",
            ),
            *(b"application/json", b"image/png", b"image/jpeg; q=0.5", b"application/json; boundary=x"),
        ]
    )
    headers = [(b"Host", HOST), (b"Authorization", AUTHORIZATION), (b"Content-Type", content_type), _length(body)]
    seen = Seen(content_type.strip().decode("latin-1"), body)
    return Case(KIND, "content-type", subject.model, head(headers, path(subject)), body, seen=seen, refusable=True)


def forms(rng: Random, subject: Subject) -> Case:
    """Multipart bodies of rows, and urlencoded ones, whole and broken: no pictures stand in them."""
    row = _body(rng, subject)
    name = rng.choice([b"body", b"data", b"content-type", b"describe", b"\xff", b"a" * 2_000, b""])
    part = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\nContent-Type: %s\r\n\r\n%s\r\n'
    whole = part % (name, rng.choice([b"application/octet-stream", b"text/plain; charset=nonsense", b""]), row)
    multipart = rng.choice(
        [
            whole + b"--x--\r\n",
            whole * 3 + b"--x--\r\n",
            whole,
            whole[: rng.randrange(len(whole))],
            b"--x--\r\n",
            b"",
            rng.randbytes(100),
            whole.replace(b"\r\n", b"\n") + b"--x--",
        ]
    )
    encoded = rng.choice(
        [
            b"body=x",
            b"a=%zz",
            b"a=%",
            b"a=%ff%fe",
            b"&&&==",
            b"body",
            row[:50],
            b"&".join(b"k%d=v" % index for index in range(3_000)),
            quote(row[:400]).encode(),
        ]
    )
    if rng.random() < 0.5:
        kind, body = (
            rng.choice(
                [
                    b"multipart/form-data; boundary=x",
                    b"multipart/form-data",
                    b"multipart/form-data; boundary=",
                    b"multipart/mixed; boundary=x",
                ]
            ),
            multipart,
        )
    else:
        kind, body = b"application/x-www-form-urlencoded" + rng.choice([b"", b"; charset=utf-16"]), encoded
    headers = [(b"Host", HOST), (b"Authorization", AUTHORIZATION), (b"Content-Type", kind), _length(body)]
    return _free("form", subject, headers, body)


def encoded(rng: Random, subject: Subject) -> Case:
    """A body that a Content-Encoding says is packed, and that is, or is not, or is a bomb: refused, never unpacked."""
    row = _body(rng, subject)
    body = rng.choice([row, gzip.compress(row, mtime=0), zlib.compress(row), BOMB])
    coding = rng.choice([b"gzip", b"deflate", b"br", b"identity", b"gzip, gzip", b"x", b"Identity", b""])
    headers = [*usual(wire.RAW, len(body)), (b"Content-Encoding", coding)]
    seen = _seen(body, ("content-encoding", coding.decode()))
    return Case(KIND, "encoded", subject.model, head(headers, path(subject)), body, seen=seen, refusable=True)


def tokens(rng: Random, subject: Subject) -> Case:
    """No token, a wrong one, one in another form, a long one."""
    body = _body(rng, subject)
    token = rng.choice(
        [
            None,
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer wrong",
            b"bearer x",
            b"Basic YTpi",
            b"Basic !",
            b"Bearer \xff",
            b"Bearer " + b"a" * 5_000,
            b"Digest a=b",
        ]
    )
    headers = [(b"Host", HOST), (b"Content-Type", wire.RAW.encode()), _length(body)]
    if token is not None:
        headers.insert(1, (b"Authorization", token))
    return _free("token", subject, headers, body)


def no_http(rng: Random, subject: Subject) -> Case:
    """Bytes that are no HTTP at all: TLS, HTTP/2, noise, blank lines."""
    sent = rng.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            rng.randbytes(1_000),
            b"\r\n\r\n",
            b"\r\n" * 5_000,
            b"\0" * 10_000,
            b"GET",
            b"GET /" + b"a" * 20_000,
            b"EHLO a\r\n",
        ]
    )
    return Case(KIND, "no-http", subject.model, sent, refusable=True, complete=False, half=rng.random() < 0.5)


def two_at_once(rng: Random, subject: Subject) -> Case:
    """Two requests in a row without waiting: the first answer must be the first one's."""
    body, other = _body(rng, subject), rng.choice([_body(rng, subject), b"", b"abc"])
    first = head(usual(wire.RAW, len(body)), path(subject))
    target = rng.choice([path(subject), path(subject), b"/predictions/nobody", b"/ping", b"/models"])
    second = head(usual(wire.RAW, len(other)), target) + other
    return Case(KIND, "two-at-once", subject.model, first, body + second, seen=_seen(body))


def blank_lines(rng: Random, subject: Subject) -> Case:
    """Blank lines before a request, which servers should look past."""
    body = _body(rng, subject)
    line = b"\r\n" * rng.randint(1, 5) + head(usual(wire.RAW, len(body)), path(subject))
    return Case(KIND, "blank-lines", subject.model, line, body, refusable=True)


def huge(rng: Random, subject: Subject) -> Case:
    """A body of the greatest length, or over it."""
    size = subject.most_bytes + rng.choice([-4, 1, 1_000_000])
    body = bytes(size)
    case = head(usual(wire.RAW, size), path(subject))
    return Case(KIND, "huge", subject.model, case, body, seen=_seen(body), refusable=True)


def honest(rng: Random, subject: Subject) -> Case:
    """Nothing wrong with it."""
    body = np.concatenate([subject.images[:1]] * rng.randint(1, 3)).tobytes()
    return Case(KIND, "honest", subject.model, head(usual(wire.RAW, len(body)), path(subject)), body, seen=_seen(body))


IDEAS: tuple[Make, ...] = (
    large_headers,
    many_headers,
    own_headers,
    own_headers,
    strange_headers,
    twice,
    lengths,
    shorter_or_longer,
    no_length,
    smuggled,
    chunked,
    broken_chunks,
    slow,
    unfinished,
    half_closed,
    expectations,
    methods,
    targets,
    targets,
    content_types,
    forms,
    encoded,
    tokens,
    no_http,
    two_at_once,
    blank_lines,
    honest,
)
# costs as much as a hundred others
RARE: tuple[Make, ...] = (huge,)
