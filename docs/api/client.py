"""A client of the inference API: sends a picture, does the work that the service may ask for, prints the answer.

    export TORCHWARDEN_LOGIN=acme:...       # at the gateway; at TorchServe itself TORCHWARDEN_TOKEN=...
    python client.py https://api.example.com/predictions/digits-same-pow image.png
    python client.py --v2 https://api.example.com/predictions/digits-same-pow image.png     # Open Inference Protocol
    python client.py --cacert gateway.crt https://localhost:8443/predictions/digits-edm image.png
    python client.py --type application/octet-stream https://... rows.float32
    python client.py --solve answer.json        # only the value of the header Torchwarden-Solution, for answer.json

The file is sent as it is: what the service makes of its size is the policy's matter. Its type is known by its first
bytes, or named by --type. Needs Python 3.10, and `pip install altcha` for services that ask for work. The exchange is
described in proof-of-work.md.

Exit codes: 0 answered; 1 refused, and the answer that is printed says why; 2 nothing was asked or no answer came, and
one line on standard error says why.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

SECONDS = 60
CHALLENGE = "Torchwarden-Challenge"
JSON = "application/json"
# by first bytes
TYPES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"RIFF": "image/webp",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"P5": "image/x-portable-graymap",
    b"P6": "image/x-portable-pixmap",
    b"{": JSON,
}


class FailedError(Exception):
    """Why there is no answer, in a line."""


class Answer(NamedTuple):
    """What came back: headers by name, and JSON. Refusals are JSON too."""

    status: int
    headers: Any
    content: dict[str, Any]

    @property
    def challenge(self) -> dict[str, Any] | None:
        """What the service asks for before it answers, or beside what it has answered."""
        if CHALLENGE in self.headers:  # of the Open Inference Protocol, whose errors are texts
            return dict(json.loads(base64.b64decode(self.headers[CHALLENGE])))
        return self.content.get("challenge")


def post(url: str, body: bytes, headers: dict[str, str], cacert: Path | None = None) -> Answer:
    """The answer to one request. Raises FailedError."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise FailedError(f"expected a URL http://... or https://..., got {url!r}")
    try:
        trust = ssl.create_default_context(cafile=cacert)
    except OSError as error:
        raise FailedError(f"--cacert: expected a file of certificates, got {cacert}: {error.strerror}") from error
    try:
        request = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(request, timeout=SECONDS, context=trust) as answer:
            return _read(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as refusal:
        return _read(refusal.code, refusal.headers, refusal.read())
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise FailedError(
                f"the certificate of {url} is not trusted ({error.reason.verify_message}); name it with --cacert FILE"
            ) from error
        raise FailedError(f"no answer from {url}: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise FailedError(f"no answer from {url}: {type(error).__name__}") from error
    except ValueError as error:  # of a header, which may be the key: it is not shown
        raise FailedError("expected a login or token, a --type and a URL that HTTP can carry") from error


def _read(status: int, headers: Any, body: bytes) -> Answer:
    try:
        return Answer(status, headers, dict(json.loads(body)))
    except (ValueError, TypeError) as error:
        kind = headers.get("Content-Type") if body else "no body"
        raise FailedError(f"expected JSON, got status {status} and {kind}; is this the service's address?") from error


def authorization() -> str:
    """The header that says who asks: a client's login and key, or TorchServe's token. Raises FailedError."""
    login, token = (os.environ.get(f"TORCHWARDEN_{name}", "").strip() for name in ("LOGIN", "TOKEN"))
    if login:
        return "Basic " + base64.b64encode(login.encode()).decode()
    if not token:
        raise FailedError(
            "expected TORCHWARDEN_LOGIN=LOGIN:KEY (the gateway's) or TORCHWARDEN_TOKEN in the environment"
        )
    return f"Bearer {token}"


def read(file: Path) -> bytes:
    """What a file holds. Raises FailedError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise FailedError(f"{file}: {error.strerror}") from error


def type_of(file: Path, body: bytes) -> str:
    """The content type of a file, by its first bytes. Raises FailedError."""
    for start, content_type in TYPES.items():
        if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start) if start == b"{" else body.startswith(start):
            return content_type
    raise FailedError(f"{file}: expected a picture or a JSON text, got neither; name what it is with --type")


def inference(url: str, body: bytes) -> tuple[str, bytes]:
    """The same question in the Open Inference Protocol: its URL and its body, a picture in base64."""
    address, slash, model = url.rstrip("/").rpartition("/predictions/")
    if slash:
        url = f"{address}/v2/models/{model}/infer"
    data = [base64.b64encode(body).decode()]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data}
    return url, json.dumps({"inputs": [tensor]}).encode()


def solve(challenge: dict[str, Any]) -> str:
    """The value of the header Torchwarden-Solution. Raises FailedError, also where the challenge expires first."""
    try:
        from altcha import Challenge, Payload, solve_challenge
    except ImportError as error:
        raise FailedError("the service asks for work: pip install altcha") from error
    try:
        asked = Challenge.from_dict(challenge)
        hashes, expires = asked.parameters.data["hashes"], asked.parameters.expires_at
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FailedError("expected a challenge as the service sends it, got another") from error
    print(f"the service asks for about {hashes} hashes", file=sys.stderr)
    solution = solve_challenge(asked, timeout=max(expires - time.time(), 0.001))
    if solution is None:
        raise FailedError("the challenge expired before it was solved; send the request again")
    return str(Payload(asked, solution).to_base64())


def solved(file: Path) -> str:
    """What solves the challenge in an answer that is kept in a file. Raises FailedError."""
    try:
        challenge = json.loads(read(file))["challenge"]
    except (ValueError, TypeError, KeyError) as error:
        raise FailedError(f"{file}: expected an answer of the service with a challenge") from error
    return solve(challenge)


def ask(options: argparse.Namespace) -> Answer:
    """Send the file, and again with what the service asks for. Raises FailedError."""
    if options.url is None:
        raise FailedError("expected the URL of a model's predictions and a file")
    url, body = options.url, read(options.file)
    content_type = options.type or type_of(options.file, body)
    if options.v2 and content_type != JSON:
        url, body = inference(url, body)
        content_type = JSON
    headers = {"Authorization": authorization(), "Content-Type": content_type}
    answer = post(url, body, headers, options.cacert)
    if answer.challenge is not None:
        paid = {**headers, "Torchwarden-Solution": solve(answer.challenge)}
        answer = post(url, body, paid, options.cacert)
    return answer


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="client.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", nargs="?", help="of a model's predictions; left out with --solve")
    parser.add_argument("file", type=Path, help="a picture, or JSON; with --solve, an answer")
    parser.add_argument("--type", metavar="TYPE", help="of the file, such as application/octet-stream for float32 rows")
    parser.add_argument("--cacert", type=Path, metavar="FILE", help="certificate that the service's is signed by")
    parser.add_argument("--v2", action="store_true", help="ask in the Open Inference Protocol")
    parser.add_argument("--solve", action="store_true", help="print what solves the challenge in the answer FILE")
    return parser.parse_args()


def main() -> int:
    options = parse()
    try:
        if options.solve:
            print(solved(options.file))
            return 0
        answer = ask(options)
    except FailedError as error:
        print(f"client: {error}", file=sys.stderr)
        return 2
    print(json.dumps(answer.content))
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
