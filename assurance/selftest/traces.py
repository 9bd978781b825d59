"""What the service leaves for its operator, and what it must leave nowhere: metrics, the audit log, secrets."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from assurance.selftest.checks import SERVER, Subject, absent, judged, untried
from assurance.selftest.service import Service
from handlers import audit
from handlers.errors import RateLimited
from report.rows.selftest import Finding

FIELDS = {"time", "request", "row", "rows", "principal", "policy", "decision", "score", "tail", "digest", "count"}
LAG_S = 5.0


def counted(service: Service, model: str, before: Mapping[str, float]) -> Iterator[Finding]:
    """Every refusal that a client got stands in the metrics."""
    refusals = {code: count for code, count in service.refusals.get(model, Counter()).items() if count}
    if not refusals:
        yield untried("counted", model, "nothing was refused")
        return
    missing = {}
    for code, count in refusals.items():
        least = before.get(code, 0.0) + count
        found = service.reached("torchwarden_errors_total", least, seconds=LAG_S, ModelName=model, code=code)
        if found < least:
            missing[code] = f"{code} {found - before.get(code, 0.0):.0f} of {count}"
    yield judged(
        "counted",
        model,
        f"{sum(refusals.values())} refusals of {len(refusals)} kinds, all in all",
        "each counted by its code",
        f"missing: {', '.join(missing.values())}" if missing else "each counted",
        ok=not missing,
    )


def audited(service: Service, subjects: list[Subject], offset: int) -> Iterator[Finding]:
    """Every row that was refused or charged, and every request over a limit, has a line; none holds more than it must.

    offset: where the file ended when the self-test began.
    """
    if not service.audit_file.exists():
        yield judged(
            "audit-log", SERVER, "a look at the audit log", f"a file {service.audit_file.name}", "none", ok=False
        )
        return
    limited = {subject.name for subject in subjects if subject.stage("limits")}
    reached = sum(service.refusals.get(model, Counter())[RateLimited.code] for model in limited)
    if not service.audited and not reached:
        yield absent("audit-log", SERVER, "no policy under test refuses rows, charges for them or limits them")
        return
    wanted = Counter((each["principal"], each["decision"], each["digest"]) for each in service.audited)
    deadline = time.monotonic() + LAG_S
    while True:
        lines = _lines(service, offset)
        found = Counter((each["principal"], each["decision"], each["digest"]) for each in lines)
        missing = wanted - found
        alike = [each for each in (*lines, *audit.counted(service.audit_file)) if service.run in str(each["principal"])]
        over = sum(int(str(each["count"])) for each in alike if each["decision"] == RateLimited.code)
        if (not missing and over >= reached) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    yield judged(
        "audit-log",
        SERVER,
        f"{wanted.total()} rows refused or charged",
        "a line for each: principal, decision, digest",
        f"{wanted.total() - missing.total()} lines",
        ok=not missing,
    )
    yield judged(
        "audit-log",
        SERVER,
        f"{reached} requests over a limit",
        "each has its line, or is counted",
        f"{over} lines and counts",
        ok=over >= reached,
    )
    fields = {name for each in lines for name in each}
    yield judged(
        "audit-log",
        SERVER,
        "a look at its lines",
        "no field but those that are promised",
        ", ".join(sorted(fields - FIELDS)) or "none",
        ok=fields == FIELDS,
    )


def secrets(service: Service, models: list[str]) -> Iterator[Finding]:
    """Answers, metrics, descriptions, logs and the audit log, searched for the key and the tokens."""
    for model in models:
        reply = service.manage("GET", f"models/{model}?customized=true", key=service.keys["management"])
        service.search(f"the description of {model}", reply.body)
    service.search("the logs", service.logs())
    for path in service.audit_files:
        service.search(path.name, path.read_bytes())
    for path in (
        service.folder / "server.json",
        service.folder / "expected.json",
        service.folder / "config.properties",
    ):
        service.search(path.name, path.read_bytes())
    seen = sorted(set(service.leaks))
    yield judged(
        "silent-secrets",
        SERVER,
        "a search of all answers, metrics, logs and files",
        "no token" + (" and no key" if service.knows_key else ""),
        "; ".join(seen[:3]) or "none",
        ok=not seen,
    )
    if not service.knows_key:
        yield untried("silent-secrets", SERVER, "the deployment's key is not known here; set TORCHWARDEN_KEY_FILE")


def _lines(service: Service, offset: int) -> list[dict[str, Any]]:
    """The audit log's lines of this run. A file that was rotated meanwhile is read from its beginning."""
    size = service.audit_file.stat().st_size
    with service.audit_file.open("rb") as file:
        file.seek(offset if size >= offset else 0)
        text = file.read()
    text += b"".join(path.read_bytes() for path in service.audit_files if path != service.audit_file)
    lines = [json.loads(line) for line in text.splitlines() if line]
    return [line for line in lines if service.run in line.get("principal", "")]
