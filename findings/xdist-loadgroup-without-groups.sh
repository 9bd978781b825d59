#!/usr/bin/env bash
# pytest-xdist 3.8.0 with pytest 9.2.0: `--dist loadgroup` and @pytest.mark.xdist_group.
#
# Guess:     tests of one group run in one worker, as with earlier releases of pytest.
# Behaviour: xdist writes the group into the test's private `_nodeid`, which this pytest no longer reads, so the scheduler
#            sees no group and hands tests out one by one. Nothing is said; a session fixture that a group should share is
#            made once in every worker.
# Seen:      12 tests of one group ran in 2 workers.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check pytest==9.2.0 pytest-xdist==3.8.0
cat > "$folder/test_group.py" <<'PY'
import os
import time
from pathlib import Path

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(12))
def test_where(number):
    time.sleep(0.1)
    (Path(__file__).parent / f"ran-{number}").write_text(os.environ["PYTEST_XDIST_WORKER"])
PY
cd "$folder"
"$folder/venv/bin/python" -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup test_group.py
workers=$(cat ran-* | sed 's/gw/\ngw/g' | grep gw | sort -u | wc -l)
echo "12 tests of one group ran in $workers workers"
[ "$workers" = 2 ] || { echo "changed: the group was kept together"; exit 1; }
