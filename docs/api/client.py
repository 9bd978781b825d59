"""A client of the inference API: sends a picture, does the work that the service may ask for, prints the answer.

    export TORCHWARDEN_LOGIN=acme:...       # at the gateway; at TorchServe itself TORCHWARDEN_TOKEN=...
    python client.py https://api.example.com/predictions/digits-same-pow image.png
    python client.py --solve answer.json        # only the value of the header Torchwarden-Solution, for answer.json

Needs Python 3.10 and `pip install altcha`. The exchange is described in proof-of-work.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from altcha import Challenge, Payload, solve_challenge

CONTENT_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".json": "application/json"}


def post(url: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """The JSON of one answer; refusals are JSON too."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as refusal:
        return dict(json.loads(refusal.read() or b'{"error": {"code": "no body"}}'))


def authorization() -> str:
    """The header that says who asks: a client's login and key, or TorchServe's token."""
    if "TORCHWARDEN_LOGIN" in os.environ:
        return "Basic " + base64.b64encode(os.environ["TORCHWARDEN_LOGIN"].encode()).decode()
    return f"Bearer {os.environ['TORCHWARDEN_TOKEN']}"


def solve(challenge: dict[str, Any]) -> str:
    """The value of the header Torchwarden-Solution; ends the program where the challenge expires first."""
    asked = Challenge.from_dict(challenge)
    print(f"the service asks for about {asked.parameters.data['hashes']} hashes", file=sys.stderr)
    solution = solve_challenge(asked, timeout=max(asked.parameters.expires_at - time.time(), 0.001))
    if solution is None:
        sys.exit("the challenge expired before it was solved; send the request again")
    return str(Payload(asked, solution).to_base64())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", nargs="?", help="of a model's predictions; left out with --solve")
    parser.add_argument("file", type=Path, help="PNG, JPEG or JSON of instances; with --solve, an answer")
    parser.add_argument("--solve", action="store_true", help="print what solves the challenge in the answer FILE")
    options = parser.parse_args()
    if options.solve:
        print(solve(json.loads(options.file.read_bytes())["challenge"]))
        return 0
    body = options.file.read_bytes()
    headers = {
        "Authorization": authorization(),
        "Content-Type": CONTENT_TYPES[options.file.suffix.lower()],
    }
    answer = post(options.url, body, headers)
    if "challenge" in answer:
        answer = post(options.url, body, {**headers, "Torchwarden-Solution": solve(answer["challenge"])})
    print(json.dumps(answer))
    return 0 if "predictions" in answer else 1


if __name__ == "__main__":
    sys.exit(main())
