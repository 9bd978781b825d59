#!/usr/bin/env bash
# Locust 2.46.0: where it looks for modules while it loads a locustfile.
#
# Guess:     the current directory is searched, as with `python -m`; what stands next to the locustfile is reached by its
#            package's name only.
# Behaviour: the locustfile's own folder goes to the front of sys.path, before the standard library, and stays there. A
#            sibling called statistics.py, queue.py or secrets.py replaces the standard module for everything that is
#            imported from then on, third-party packages included; the error names neither Locust nor the sibling.
# Seen:      `import statistics` in the locustfile of load/ gives load/statistics.py.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check locust==2.46.0
mkdir "$folder/load"
touch "$folder/load/__init__.py"
echo "SUMMARY = True" > "$folder/load/statistics.py"
cat > "$folder/load/locustfile.py" <<'PY'
from locust import User, task

import statistics

print("statistics is", statistics.__file__, flush=True)


class Idle(User):
    @task
    def nothing(self):
        pass
PY
cd "$folder"
said=$("$folder/venv/bin/locust" --locustfile load/locustfile.py --headless --users 1 --run-time 1s --only-summary 2>&1 | grep "statistics is")
echo "${said/$folder/.}"
[ "$said" = "statistics is $folder/load/statistics.py" ] || { echo "changed: the standard module was imported"; exit 1; }
