#!/usr/bin/env bash
# kserve 0.21.0, RESTConfig(retries=3): what the HTTP client does where nobody listens yet.
#
# Guess:     as documented, a connection that fails is tried three times more, as httpx's transport does it: at once, then
#            after 0.5 and 1 s. A server that restarts within a second is not noticed.
# Behaviour: RESTConfig makes such a transport and keeps it nowhere, so the client connects by httpx's default, which tries
#            once. A transport of one's own, RESTConfig(transport=...), does retry; it needs `verify` of its own then.
# Seen:      the client gives up after 0.1 s, with a transport of httpx's with three retries after 1.5 s.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# it brings 66 packages, with which pip takes minutes
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" kserve==0.21.0
"$folder/venv/bin/python" - <<'PY'
import asyncio
import socket
import time

import httpx
from kserve import InferenceRESTClient
from kserve.inference_client import RESTConfig

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{free.getsockname()[1]}"


async def patience(config):
    async with InferenceRESTClient(config) as client:
        begun = time.monotonic()
        try:
            await client.is_server_live(url)
        except httpx.ConnectError:
            return time.monotonic() - begun


stated = asyncio.run(patience(RESTConfig(protocol="v2", retries=3)))
given = asyncio.run(patience(RESTConfig(protocol="v2", transport=httpx.AsyncHTTPTransport(retries=3))))
print(f"the client gives up after {stated:.1f} s, with a transport of httpx's with three retries after {given:.1f} s")
assert given > 1.4
assert stated < 1.0, "changed: retries are made"
PY
