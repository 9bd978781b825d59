#!/usr/bin/env bash
# torchserve 0.12.0, maxBatchDelay 0: how long a batch waits for more requests, and how many it takes.
#
# Guess:     with a delay of 0 a worker that is free takes what waits, up to batchSize, and goes at once.
# Behaviour: a 0 in an archive's model-config.yaml is read as no setting, 100 ms. The management API takes it, and then no
#            batch holds more than two: after each further request TorchServe ends the batch whose remaining delay is <= 0.
# Seen:      0 in the file is 100 ms; 0 by the API is 0 ms. Eight requests that waited came in batches of 2, with 1 ms in one of 8.
#
# Needs Java 11 or newer on PATH. A stand-in for torch is enough: a worker takes two names from it.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps \
  torchserve==0.12.0 psutil==7.2.2 packaging==26.0 pyyaml==6.0.3 pillow==12.3.0
cd "$folder"
printf 'class Tensor:\n    pass\n' > "$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/torch.py"
PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/python" - <<'PY'
import concurrent.futures
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import ts

SIZE = 8
HANDLER = """
import time

class Counting:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        time.sleep(1 if any(row["body"] == b"slow" for row in data) else 0)
        return [str(len(data))] * len(data)
"""


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


def http(method, url, body=None):
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


inference, management, metrics, grpc_a, grpc_b = free_ports(5)
Path("store").mkdir()
model = {"modelName": "m", "handler": "handler.py", "modelVersion": "1.0", "configFile": "model-config.yaml"}
manifest = {"createdOn": "", "runtime": "python", "archiverVersion": "0.12.0", "model": model}
with zipfile.ZipFile("store/m.mar", "w") as archive:
    archive.writestr("handler.py", HANDLER)
    archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    archive.writestr("model-config.yaml", f"minWorkers: 1\nmaxWorkers: 1\nbatchSize: {SIZE}\nmaxBatchDelay: 0\n")
Path("config.properties").write_text(
    f"inference_address=http://127.0.0.1:{inference}\nmanagement_address=http://127.0.0.1:{management}\n"
    f"metrics_address=http://127.0.0.1:{metrics}\ngrpc_inference_port={grpc_a}\ngrpc_management_port={grpc_b}\n"
    "disable_token_authorization=true\nenable_model_api=true\ninstall_py_dep_per_model=false\n"
)
home = Path(ts.__file__).parent
java = subprocess.Popen(
    ["java", f"-Dmodel_server_home={home.parent}", "-cp", f"{home}/frontend/*", "org.pytorch.serve.ModelServer",
     "--python", "python", "-f", "config.properties", "-s", "store", "-ncs"],
    stdout=Path("log").open("wb"), stderr=subprocess.STDOUT,
)


def register(query):
    http("POST", f"http://127.0.0.1:{management}/models?url=m.mar&initial_workers=1&synchronous=true{query}")
    delay = json.loads(http("GET", f"http://127.0.0.1:{management}/models/m"))[0]["maxBatchDelay"]
    url = f"http://127.0.0.1:{inference}/predictions/m"
    with concurrent.futures.ThreadPoolExecutor(1 + SIZE) as clients:
        slow = clients.submit(http, "POST", url, b"slow")
        time.sleep(0.4)
        waited = [clients.submit(http, "POST", url, b"fast") for _ in range(SIZE)]
        slow.result()
        largest = max(int(each.result()) for each in waited)
    http("DELETE", f"http://127.0.0.1:{management}/models/m")
    return delay, largest


try:
    for _ in range(120):
        try:
            http("GET", f"http://127.0.0.1:{inference}/ping")
            break
        except OSError:
            assert java.poll() is None, Path("log").read_text()
            time.sleep(0.5)
    by_file, _ = register("")
    by_api, largest = register(f"&batch_size={SIZE}&max_batch_delay=0")
    of_one, with_one = register(f"&batch_size={SIZE}&max_batch_delay=1")
    print(f"0 in the file is {by_file} ms; 0 by the API is {by_api} ms, in batches of at most {largest}; "
          f"{of_one} ms by the API, in batches of at most {with_one}")
    assert (by_api, of_one, with_one) == (0, 1, SIZE)
    assert by_file == 100, "changed: a file's 0 is 0"
    assert largest == 2, "changed: a batch without delay takes what waits"
finally:
    java.terminate()
    java.wait(60)
PY
