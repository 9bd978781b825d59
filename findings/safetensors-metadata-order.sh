#!/usr/bin/env bash
# safetensors 0.8.0: the bytes of a file with metadata.
#
# Guess:     the same tensors and the same metadata give the same file.
# Behaviour: the entries of `metadata` are written in an order that is drawn anew at each save, within one process too, so
#            files have other digests. With one entry (or none) they are the same each time.
# Seen:      24 saves, three entries: 6 digests; one entry: 1 digest.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check safetensors==0.8.0 numpy
"$folder/venv/bin/python" - <<'PY'
import hashlib
import json

import numpy as np
from safetensors.numpy import save

entries = {"format": "1", "architectures": "[]", "facts": "{}"}
tensors = {"weight": np.zeros(3, np.float32)}


def digests(metadata):
    return len({hashlib.sha256(save(tensors, metadata)).hexdigest() for _ in range(24)})


several, one = digests(entries), digests({"all": json.dumps(entries, sort_keys=True)})
print(f"24 saves, three entries: {several} digests; one entry: {one} digest")
assert one == 1
assert several > 1, "changed: entries are written in one order"
PY
