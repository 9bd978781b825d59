#!/usr/bin/env bash
# kserve 0.21.0, InferenceRESTClient: what `infer` does to the dictionary of headers that it is given.
#
# Guess:     `headers` is read; one dictionary with a key in it serves all calls.
# Behaviour: a call with binary tensors writes Inference-Header-Content-Length and content-type into the caller's
#            dictionary, and nothing takes them out. The next call with the same dictionary sends both along, also where
#            all its tensors stand in the JSON text: the server cuts that text off at the length of the earlier one.
# Seen:      the second request, 293 bytes of JSON, says that its JSON has 162.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# it brings 66 packages, with which pip takes minutes
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" kserve==0.21.0
"$folder/venv/bin/python" - <<'PY'
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

asked = []


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked.append((self.headers.get("Inference-Header-Content-Length"), body))
        answer = json.dumps({"model_name": "m", "outputs": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass


async def ask(url, headers):
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        for binary in (True, False):
            images = InferInput("images", [1, 40], "FP32")
            images.set_data_from_numpy(np.zeros((1, 40), np.float32), binary_data=binary)
            await client.infer(url, InferRequest("m", [images]), model_name="m", headers=headers)


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
headers = {"authorization": "Bearer key"}
asyncio.run(ask(f"http://127.0.0.1:{server.server_port}", headers))
server.shutdown()
(first, _), (second, body) = asked
json.loads(body)
print(f"the second request, {len(body)} bytes of JSON, says that its JSON has {second}")
assert second == first, "changed: a length stays with its own call"
assert int(second) != len(body)
assert set(headers) == {"authorization", "inference-header-content-length", "content-type"}, headers
PY
