"""The report of an attest, not signed: reports/attest-NAME/report.html from its measured.json.

    python -m attest.report reports/attest-NAME
    python -m attest.report reports/attest-NAME --pdf       prints the report that is there, by a headless Chromium

`python -m attest.evidence sign` writes the report as well, with the marks of what it signs. --pdf prints report.html as
it stands and changes nothing else.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attest import measured
from attest.report import page
from report import atomic

REPORT = "report.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 120


def main() -> None:
    """Run the command line; a missing file or browser is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m attest.report", description="the report of an attest")
    parser.add_argument("run", type=Path, help="folder of a measured.json, such as reports/attest-NAME")
    parser.add_argument("--pdf", action="store_true", help="print the report that is there to report.pdf")
    options = parser.parse_args()
    path = options.run / REPORT
    if options.pdf:
        print(f"report: {printed(path)}")
        return
    if (options.run / "evidence.dsse.json").exists():
        sys.exit(f"attest.report: {path} is signed, and would no longer be what was: sign again with attest.evidence")
    try:
        atomic.write_text(path, page.render(measured.read(options.run)))
    except measured.MeasuredError as error:
        sys.exit(f"attest.report: {error}")
    print(f"report: {path}")


def printed(path: Path) -> Path:
    """Print a page to a PDF next to it; its path. Exits where there is no browser, or it prints nothing."""
    if not path.exists():
        sys.exit(f"attest.report: {path}: no such file; write it first (python -m attest.report {path.parent})")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"attest.report: none of {', '.join(BROWSERS)} is installed; print {path} from any browser")
    target = path.with_suffix(".pdf")
    with atomic.replacing(target) as unfinished, tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
        command += [f"--user-data-dir={profile}", f"--print-to-pdf={unfinished.resolve()}", path.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if done.returncode != 0 or not unfinished.exists():
            sys.exit(f"attest.report: {browser} printed nothing: {done.stderr[-500:]}")
    return target


if __name__ == "__main__":
    main()
