"""Forms of several parts: whole ones, and what TorchServe, which takes them apart, must not choke on."""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray

from assurance.fuzz import formats, pictures
from assurance.fuzz.case import AUTHORIZATION, HOST, Case, Make, Seen, Subject, head, path, usual
from handlers import wire

KIND = "multipart"
BOUNDARY = b"----fuzz7MA4YWxk"
TYPE = b"multipart/form-data; boundary=" + BOUNDARY
END = b"--" + BOUNDARY + b"--\r\n"


def part(name: bytes, data: bytes, headers: bytes = b"", disposition: bytes = b"form-data") -> bytes:
    """One part, a file. headers: more of them, a line each."""
    named = b'Content-Disposition: %s; name="%s"; filename="a.png"\r\n' % (disposition, name)
    return b"--" + BOUNDARY + b"\r\n" + named + headers + b"\r\n" + data + b"\r\n"


def _whole(idea: str, subject: Subject, files: dict[str, bytes], method: bytes = b"POST") -> Case:
    """A good form of files, which the handler is given by their names."""
    body = b"".join(part(name.encode(), file) for name, file in files.items()) + END
    content_type = TYPE.decode()
    stated = (("content-length", str(len(body))),)
    return Case(
        KIND,
        idea,
        subject.model,
        head(usual(content_type, len(body)), path(subject), method),
        body,
        seen=Seen(content_type, body, stated, tuple(files.items())),
        refusable=len(body) > subject.most_bytes or method != b"POST",
    )


def _hostile(idea: str, subject: Subject, body: bytes, content_type: bytes = TYPE) -> Case:
    """A form of which nothing is promised but a clean end."""
    headers = [(b"Host", HOST), (b"Authorization", AUTHORIZATION), (b"Content-Type", content_type)]
    headers.append((b"Content-Length", b"%d" % len(body)))
    return Case(KIND, idea, subject.model, head(headers, path(subject)), body, refusable=True)


def _files(rng: Random, subject: Subject) -> list[bytes]:
    return [formats.any_file(rng, subject) for _ in range(rng.randint(1, 3))]


def intact(rng: Random, subject: Subject) -> Case:
    """One or several pictures, damaged ones among them, posted or put."""
    files = [*_files(rng, subject), *rng.choice([[], [b"none"], [pictures.either(rng, subject)[:40]]])]
    method = rng.choice([b"POST", b"POST", b"PUT"])
    return _whole("intact", subject, {f"file{number}": file for number, file in enumerate(files)}, method)


def many(rng: Random, subject: Subject) -> Case:
    """As many parts as rows may be, one more, three hundred, five thousand."""
    most = subject.accepts.max_rows
    count = rng.choice([most, most + 1, 300, 5_000])
    file = rng.choice([pictures.png(rng, subject), b"x"]) if count <= 300 else b"x"
    return _whole("many", subject, {f"p{number}": file for number in range(count)})


def one_name(rng: Random, subject: Subject) -> Case:
    """Several parts of one name, of which TorchServe keeps the last."""
    count = rng.choice([2, 3, 300])
    name = rng.choice([b"data", b"body", b"content-type", b"describe"])
    return _hostile("one-name", subject, part(name, pictures.png(rng, subject)) * count + END)


def boundaries(rng: Random, subject: Subject) -> Case:
    """No boundary, an empty one, another one, a long one, two, quotes, a charset that is none."""
    whole = part(b"data", pictures.png(rng, subject)) + END
    long = b"a" * rng.choice([70, 71, 5_000])
    kind = rng.choice(
        [
            b"multipart/form-data",
            b"multipart/form-data; boundary=",
            b"multipart/form-data; boundary=other",
            b'multipart/form-data; boundary="%s' % BOUNDARY,
            b'multipart/form-data; boundary="%s"' % BOUNDARY,
            TYPE + b"; boundary=b",
            TYPE + b"; charset=nonsense",
            b"multipart/mixed; boundary=" + BOUNDARY,
            b"Multipart/Form-Data; Boundary=" + BOUNDARY,
            b"multipart/form-data; boundary=" + long,
        ]
    )
    return _hostile("boundary", subject, whole.replace(BOUNDARY, long) if kind.endswith(long) else whole, kind)


def nested(rng: Random, subject: Subject) -> Case:
    """A form within a form: of its own boundary, of the same, of none, deeper, open."""
    inner = rng.choice([b"inner", BOUNDARY, b"", None])
    kind = b"Content-Type: multipart/mixed" + (b"" if inner is None else b"; boundary=" + inner) + b"\r\n"
    named = rng.choice([b'Content-Disposition: form-data; name="a"\r\n', b""])
    edge = b"--" + (inner or b"")
    attached = edge + b'\r\nContent-Disposition: attachment; filename="b"\r\n\r\n'
    depth = rng.choice([1, 1, 2, 200])
    closed = rng.choice([edge + b"--\r\n" + END, b""])
    body = b"--" + BOUNDARY + b"\r\n" + (named + kind + b"\r\n" + attached) * depth
    return _hostile("nested", subject, body + pictures.png(rng, subject) + b"\r\n" + closed)


def part_headers(rng: Random, subject: Subject) -> Case:
    """Headers of a part without end, doubled, of other encodings, with lengths and charsets that are none."""
    headers = rng.choice(
        [
            b"X-A: b\r\n" * rng.choice([1, 100, 5_000]),
            b"X-A: " + b"a" * rng.choice([1_000, 100_000]) + b"\r\n",
            b"Content-Type: text/plain; charset=nonsense\r\n",
            b"Content-Type: text/plain; charset=\r\n",
            b"Content-Type: \r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"Content-Transfer-Encoding: nonsense\r\n",
            b"Content-Length: -5\r\n",
            b"Content-Length: " + b"9" * 30 + b"\r\n",
            b"Content-Encoding: gzip\r\n",
            b'Content-Disposition: form-data; name="b"\r\n',
            b"nonsense\r\n",
            b": x\r\n",
            b"X: \xff\0\r\n",
        ]
    )
    return _hostile("part-header", subject, part(b"data", pictures.png(rng, subject), headers) + END)


def names(rng: Random, subject: Subject) -> Case:
    """No name, an empty one, none of a form, one of another charset, a name of kilobytes."""
    disposition = rng.choice(
        [
            b"",
            b"form-data",
            b"form-data; name",
            b"form-data; name=",
            b'form-data; name=""',
            b'form-data; name="a',
            b"form-data; name=a; name=b",
            b"form-data; name=a; filename*=utf-8''%e2%82%ac",
            b"form-data; name=a; filename*=nonsense''%zz",
            b"form-data; name=a; filename*=x",
            b"attachment; name=a",
            b";;;=",
            b'form-data; name="\xff\xfe"',
            b'form-data; name="a\0b"',
            b'form-data; name="' + b"a" * 20_000 + b'"',
        ]
    )
    line = rng.choice([b"Content-Disposition: " + disposition + b"\r\n"] * 3 + [b""])
    body = b"--" + BOUNDARY + b"\r\n" + line + b"\r\n" + pictures.png(rng, subject) + b"\r\n" + END
    return _hostile("name", subject, body)


def damaged(rng: Random, subject: Subject) -> Case:
    """A good form that is cut, without its end, without parts, with other line ends, with bytes changed."""
    whole = part(b"a", pictures.png(rng, subject)) + part(b"b", pictures.png(rng, subject)) + END
    at = rng.randrange(200)
    flipped = bytearray(whole)
    for _ in range(rng.choice([1, 4, 16])):
        flipped[rng.randrange(200)] = rng.randrange(256)
    changed = rng.choice(
        [
            whole[: rng.randrange(len(whole))],
            whole[: -len(END)],
            END,
            b"",
            (b"--" + BOUNDARY + b"\r\n\r\n\r\n") * 20 + END,
            whole.replace(b"\r\n", b"\n"),
            b"before\r\n" + whole,
            whole + whole,
            whole[:at] + whole[at + rng.randint(1, 40) :],
            bytes(flipped),
            rng.randbytes(200),
        ]
    )
    return _hostile("damaged", subject, changed)


def honest(images: NDArray[np.float32], subject: Subject) -> Case:
    """A PNG of the first row."""
    return _whole("honest", subject, {"data": wire.encode_rows(images[:1], wire.PNG)})


IDEAS: tuple[Make, ...] = (intact, intact, intact, many, one_name, boundaries, nested, part_headers, names, damaged)
