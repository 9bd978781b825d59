#!/usr/bin/env bash
# tritonclient 2.69.0 (HTTP): what `infer` does to the dictionary of headers that it is given.
#
# Guess:     `headers` is read; one dictionary with a key in it serves all calls.
# Behaviour: a call with binary tensors writes Inference-Header-Content-Length into the caller's dictionary, and nothing
#            takes it out. The next call with the same dictionary sends it along, also where all its tensors stand in the
#            JSON text: the server cuts that text off at the length of the earlier one.
# Seen:      the second request, 273 bytes of JSON, says that its JSON has 142.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    tritonclient==2.69.0 numpy python-rapidjson geventhttpclient aiohttp
"$folder/venv/bin/python" - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import tritonclient.http as triton

asked = []


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked.append((self.headers.get("Inference-Header-Content-Length"), body))
        answer = json.dumps({"model_name": "m", "model_version": "1", "outputs": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
headers = {"authorization": "Bearer key"}
with triton.InferenceServerClient(f"127.0.0.1:{server.server_port}") as client:
    for binary in (True, False):
        images = triton.InferInput("images", [1, 40], "FP32")
        images.set_data_from_numpy(np.zeros((1, 40), np.float32), binary_data=binary)
        client.infer("m", [images], headers=headers)
server.shutdown()
(first, _), (second, body) = asked
json.loads(body)
print(f"the second request, {len(body)} bytes of JSON, says that its JSON has {second}")
assert second == first, "changed: a length stays with its own call"
assert int(second) != len(body)
assert "Inference-Header-Content-Length" in headers
PY
