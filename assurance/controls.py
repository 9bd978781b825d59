"""Does each control of the threat model have a test that fails without it? The control is taken out, and the test run.

    python -m assurance.controls [--only NAME ...] [--output results/controls.json]

Mutation testing (DeMillo, Lipton and Sayward, "Hints on test data selection", IEEE Computer 11(4), 1978), with mutants
that were chosen by hand: controls.toml says for each control which lines carry it, what stands there without it, and
which tests must then fail. They run in a copy of the checkout, first as it is, then with one removal at a time, the
quick ones first. A control is shown where its tests pass with it, and without it one of them fails at an assertion: a
mutant that cannot be imported, or a fixture that breaks, shows nothing. A run that was broken off goes on where it was,
unless a file of the checkout has changed since.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from report.atomic import write_json
from report.rows.controls import BROKEN, CAUGHT, FAILING, LATE, MISSED, ControlRow
from report.schema import Report, run_info, write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_name("controls.toml")
RESULTS = "results/controls.json"
# where git does not see it
UNFINISHED = CHECKOUT / "build" / "controls.unfinished.json"
SECONDS = 900.0
# What the tests import and is not ours: once, in this process, for all the runs that it forks. Above all torch, whose
# import takes longer than most of the tests.
HEAVY = ("numpy", "pytest", "requests", "torch", "yaml")
# how pytest words the failure of an assertion, of pytest.raises and of pytest.warns
ASSERTED = ("AssertionError", "assert ", "Failed: DID NOT ", "Failed: Expected ")
tqdm.monitor_interval = 0  # a process that forks has no other threads
# what a change raises that is no program any more
SENSELESS = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "SyntaxError", "TypeError")


@dataclass(frozen=True)
class Removal:
    """One control taken out: `old`, which stands in `file` once, becomes `new`; then one of `tests` must fail."""

    control: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> None:
        """Take the control out of the checkout at `root`."""
        path = root / self.file
        path.write_text(path.read_text("utf-8").replace(self.old, self.new), "utf-8")

    def stale(self, root: Path) -> str | None:
        """Why the control cannot be taken out of the checkout at `root`; None where it can."""
        path = root / self.file
        found = path.read_text("utf-8").count(self.old) if path.is_file() else 0
        if found == 1:
            return None
        return (
            f"{self.control}: expected {self.old!r} once in {self.file}, found it {found} times; write there what "
            "carries the control now"
        )


@dataclass(frozen=True)
class Session:
    """One run of pytest: by test, whether it passed and else its first complaint. None: it did not end in time."""

    complaints: Mapping[str, str | None] | None
    seconds: float

    def of(self, tests: Iterable[str]) -> list[str | None]:
        """The complaints of all cases of these tests; None for a case that passed, a text for a test that never ran."""
        assert self.complaints is not None
        found: list[str | None] = []
        for test in tests:
            cases = [text for case, text in self.complaints.items() if case == test or case.startswith(f"{test}[")]
            found += cases or [f"error: {test} did not run"]
        return found


def read(path: Path = TABLE) -> tuple[Removal, ...]:
    """The removals of controls.toml, in its order."""
    tables: dict[str, list[dict[str, Any]]] = tomllib.loads(path.read_text("utf-8"))
    return tuple(
        Removal(control, **{**entry, "tests": tuple(entry["tests"])})
        for control, entries in tables.items()
        for entry in entries
    )


def files(root: Path) -> list[str]:
    """What belongs to the checkout: tracked files and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted({name for name in listed if name and (root / name).is_file()})


def digest(root: Path, names: Iterable[str]) -> str:
    """SHA-256 of all that a run depends on."""
    state = hashlib.sha256(sys.version.encode())
    for name in names:
        content = (root / name).read_bytes()
        state.update(f"{name}\0{len(content)}\0".encode() + content)
    return state.hexdigest()


@contextmanager
def copied(root: Path, names: Iterable[str]) -> Iterator[Path]:
    """A copy of these files in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="controls-") as folder:
        for name in names:
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, target)
        yield Path(folder)


def session_of(root: Path, tests: Sequence[str], *, seconds: float) -> Session:
    """Run tests of the checkout at `root` in a child of this process, which has imported nothing of it."""
    report = root / ".controls.xml"
    report.unlink(missing_ok=True)
    for name in HEAVY:
        importlib.import_module(name)
    begun = time.monotonic()
    child = os.fork()
    if not child:
        _run(root, ["-p", "no:cacheprovider", f"--junitxml={report}", *tests])
    try:
        ended = _ended(child, begun + seconds)
        if not ended:
            _end(child)
    except BaseException:
        _end(child)
        raise
    return Session(_complaints(report) if ended else None, time.monotonic() - begun)


def _run(root: Path, arguments: list[str]) -> NoReturn:
    """In the child: become what `python -m pytest` would be in that folder."""
    code = 70
    try:
        os.setsid()
        # a shell has its background jobs ignore what Ctrl-C sends
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(root)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        # the caller's own PYTHONPATH would put this checkout before the copy; two versions of a file within a second
        # would share what was compiled; and no test here needs a plugin
        os.environ.pop("PYTHONPATH", None)
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        sys.dont_write_bytecode = True
        sys.path[:] = [str(root), *(path for path in sys.path if Path(path or ".").resolve() not in (CHECKOUT, root))]
        rooms = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")}
        for name in [name for name in sys.modules if name.partition(".")[0] in rooms]:
            del sys.modules[name]
        # processes that tests start with multiprocessing would import it again
        sys.modules["__main__"] = types.ModuleType("__main__")
        import pytest

        code = int(pytest.main(arguments))
    finally:
        os._exit(code)


def _ended(child: int, deadline: float) -> bool:
    """Whether a child ends by then."""
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _end(child: int) -> None:
    """As Ctrl-C does, so that fixtures stop the servers that they started; by force where that does not help."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGINT)
        if not _ended(child, time.monotonic() + 60):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _complaints(report: Path) -> dict[str, str | None]:
    """What pytest's report says of each case, by node id."""
    if not report.exists():
        return {}
    complaints: dict[str, str | None] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        name = f"{(case.get('classname') or '').replace('.', '/')}.py::{case.get('name')}"
        complaint: str | None = None
        for kind in ("error", "failure", "skipped"):
            found = case.find(kind)
            if found is not None:
                message = (found.get("message") or "").strip()
                complaint = _failure(message, found.text or "") if kind == "failure" else f"{kind}: {message}"
                break
        # a test that failed, and then its teardown, is there twice
        complaints[name] = complaints.get(name) or complaint
    return complaints


def _failure(message: str, trace: str) -> str:
    """The message of a failed test; where it ended within an `assert` of its own, and not because the change makes no
    sense, that is said first."""
    lines = [line[1:].strip() for line in trace.splitlines() if line.startswith(">")]
    asserted = next((line for line in lines if line.startswith("assert ")), None)
    sensible = asserted is not None and not message.startswith((*ASSERTED, *SENSELESS))
    return f"{asserted}: {message}" if sensible else message


def judge(complaints: Sequence[str | None]) -> tuple[str, str]:
    """The verdict on tests that ran without their control, and the first line of what decides it."""
    asserted = [complaint for complaint in complaints if complaint is not None and complaint.startswith(ASSERTED)]
    if asserted:
        return CAUGHT, asserted[0].splitlines()[0]
    others = [complaint for complaint in complaints if complaint is not None]
    if others:
        return BROKEN, (others[0].splitlines() or [""])[0]
    return MISSED, ""


def whole(root: Path, removals: Iterable[Removal], *, seconds: float) -> dict[str, Session]:
    """Every test with its control in place: one session for each file of tests, by test."""
    by_file: dict[str, list[str]] = {}
    for test in dict.fromkeys(test for removal in removals for test in removal.tests):
        by_file.setdefault(test.partition("::")[0], []).append(test)
    sessions: dict[str, Session] = {}
    for name, tests in tqdm(by_file.items(), desc="with their controls", unit="file", disable=None):
        # in the file's own order, which is that of the suite
        text = (root / name).read_text("utf-8")
        places = {test: text.find(f"def {test.partition('::')[2]}(") for test in tests}
        tests.sort(key=places.__getitem__)
        session = session_of(root, tests, seconds=seconds)
        sessions |= dict.fromkeys(tests, session)
    return sessions


def removed(root: Path, removal: Removal, before: Mapping[str, Session], *, seconds: float) -> ControlRow:
    """Take one control out of the copy at `root`, run its tests, and put it back."""
    kept = (root / removal.file).read_bytes()
    with_s = sum(session.seconds for session in {id(before[test]): before[test] for test in removal.tests}.values())

    def row(verdict: str, said: str, without_s: float = 0.0) -> ControlRow:
        return ControlRow(
            removal.control,
            removal.what,
            removal.file,
            removal.tests,
            round(with_s, 1),
            round(without_s, 1),
            verdict,
            said[:200].replace(str(root), "."),
        )

    for test in removal.tests:
        session = before[test]
        if session.complaints is None:
            return row(LATE, f"{test}: no end within {seconds:.0f} s, with its control")
        complaint = next((each for each in session.of([test]) if each is not None), None)
        if complaint is not None:
            return row(FAILING, (complaint.splitlines() or [""])[0])
    try:
        removal.apply(root)
        session = session_of(root, removal.tests, seconds=seconds)
    finally:
        (root / removal.file).write_bytes(kept)
    if session.complaints is None:
        return row(LATE, f"no end within {seconds:.0f} s, without its control", session.seconds)
    return row(*judge(session.of(removal.tests)), session.seconds)


def run(root: Path, removals: Sequence[Removal], *, unfinished: Path, seconds: float = SECONDS) -> list[ControlRow]:
    """A row for each removal, in their order. unfinished: where rows are kept from one run to the next."""
    names = [name for name in files(root) if name != RESULTS]
    state = digest(root, names)
    done = _resumed(unfinished, state)
    left = [removal for removal in removals if _key(removal) not in done]
    with copied(root, names) as copy:
        before = whole(copy, left, seconds=seconds)
        quick_first = sorted(left, key=lambda removal: max(before[test].seconds for test in removal.tests))
        for removal in tqdm(quick_first, desc="without", unit="control", disable=None):
            row = removed(copy, removal, before, seconds=seconds)
            done[_key(removal)] = row
            if row.verdict != CAUGHT:
                tqdm.write(f"{row.verdict}: {row.control}: {row.removed}: {row.said}")
            write_json(unfinished, {"digest": state, "rows": [asdict(each) for each in done.values()]})
    return [done[_key(removal)] for removal in removals]


def _key(removal: Removal | ControlRow) -> tuple[str, str]:
    return removal.control, removal.what if isinstance(removal, Removal) else removal.removed


def _resumed(unfinished: Path, state: str) -> dict[tuple[str, str], ControlRow]:
    """What an earlier run found out about the very same checkout."""
    try:
        kept = json.loads(unfinished.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    if kept["digest"] != state:
        return {}
    rows = [ControlRow(**{**row, "tests": tuple(row["tests"])}) for row in kept["rows"]]
    return {_key(row): row for row in rows if row.verdict == CAUGHT}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 where a control has no test that fails without it."""
    parser = argparse.ArgumentParser(prog="python -m assurance.controls", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="controls of controls.toml; default: all")
    parser.add_argument("--output", type=Path, default=None, metavar="FILE", help="such as results/controls.json")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"that a run of tests may take ({SECONDS:.0f})")
    options = parser.parse_args(arguments)
    removals = read()
    unknown = set(options.only) - {removal.control for removal in removals}
    if unknown:
        known = ", ".join(dict.fromkeys(removal.control for removal in removals))
        print(f"controls: --only: no control named {', '.join(sorted(unknown))}; there are {known}", file=sys.stderr)
        return 2
    chosen = [removal for removal in removals if not options.only or removal.control in options.only]
    stale = [why for removal in chosen if (why := removal.stale(CHECKOUT)) is not None]
    if stale:
        print("\n".join(f"controls.toml: {why}" for why in stale), file=sys.stderr)
        return 2
    started = datetime.now(timezone.utc)
    output = options.output
    rows = run(CHECKOUT, chosen, unfinished=UNFINISHED, seconds=options.seconds)
    caught = sum(row.verdict == CAUGHT for row in rows)
    if output is not None:
        info = run_info(seed=0, started=started, settings={"removals": len(rows), "caught": caught})
        write(output, Report(info, controls=tuple(rows)))
        print(f"results: {output}")
    if caught == len(rows):
        UNFINISHED.unlink(missing_ok=True)
    controls = len({row.control for row in rows})
    print(f"{caught} of {len(rows)} removals of {controls} controls make a test fail")
    return 0 if caught == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
