"""The service under test: how it is asked, what it serves, and all its output.

Facts are read from run/<instance>/, where the server's own tokens are as well; the self-test is an operator's tool,
for the machine that serves. Every answer is searched for the deployment's secrets as it comes, and every refusal is
kept, to be looked for in the metrics and in the audit log afterwards.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import time
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests
import yaml
from numpy.typing import NDArray

from deploy import direct
from handlers import wire
from handlers.audit import AUDIT, KINDS, beside, digest
from handlers.errors import KeyMissing, KeyUnusable, RateLimited
from handlers.key import read_key
from loadtests import target
from loadtests.target import Target, TargetError

Row = NDArray[np.float32]

SECONDS = 60.0
HEADER = "Torchwarden-Principal"
SERIES = re.compile(r"(?P<name>[a-zA-Z_:]+)\{(?P<labels>.*)\} (?P<value>\S+)")


class ServiceError(RuntimeError):
    """The service does not answer as one that can be tested; the message says what to do."""


@dataclass(frozen=True)
class Reply:
    """One answer. status: 0 where the connection was cut before there was one."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def code(self) -> str | None:
        """The code of the error that is the whole answer; None of an answer without one, and of TorchServe's own."""
        error = self.json.get("error")
        return error.get("code") if isinstance(error, dict) else None

    @property
    def faults(self) -> dict[int, str]:
        """The code of each row's error, by the row, of an answer that has rows."""
        rows = self.json.get("predictions", [])
        return {row: each["error"]["code"] for row, each in enumerate(rows) if "error" in each}

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The rows that were answered."""
        return [each for each in self.json.get("predictions", []) if "label" in each]


class Service:
    """A running instance. patience: seconds to wait, at most, where an answer says when to try again.

    archives: by served model, its file. policies: the `handler` section of it. leaks: where a secret was seen.
    """

    def __init__(self, instance: str, *, run_folder: Path, patience: float) -> None:
        self.target: Target = target.read(instance, run_folder=run_folder)
        self.folder = run_folder / instance
        self.facts: dict[str, Any] = json.loads((self.folder / "server.json").read_text("utf-8"))
        self.patience = patience
        self.archives = {served["name"]: Path(served["path"]) for served in self._expected()}
        self.policies = {name: _section(path) for name, path in self.archives.items()}
        self.audit_file = Path(os.environ.get(AUDIT) or run_folder / f"{instance}.audit.jsonl")
        self.leaks: list[str] = []
        self.refusals: dict[str, Counter[str]] = {}
        self.audited: list[dict[str, Any]] = []
        self.run = secrets.token_hex(4)
        self._secrets = self._known_secrets()
        self._session = direct.session()

    def _expected(self) -> list[dict[str, Any]]:
        try:
            served: list[dict[str, Any]] = json.loads((self.folder / "expected.json").read_text("utf-8"))
            return served
        except FileNotFoundError:
            raise TargetError(
                f"{self.folder}/expected.json: no such file; is the instance running? (make serve)"
            ) from None

    @property
    def audit_files(self) -> list[Path]:
        """Those that are there: of suspected rows, and of each kind of refused request."""
        kinds = sorted(set(KINDS.values()))
        return [path for path in (self.audit_file, *(beside(self.audit_file, kind) for kind in kinds)) if path.exists()]

    @property
    def keys(self) -> dict[str, str]:
        """TorchServe's tokens, by what they are for; read again, since they may have been rotated."""
        for _ in range(100):
            try:
                tokens = json.loads(Path(self.facts["key_file"]).read_text("utf-8"))
                return {kind: tokens[kind]["key"] for kind in ("management", "inference", "API")}
            except (ValueError, LookupError):  # TorchServe writes it in place: half of it was read
                time.sleep(0.02)
        raise ServiceError(f"{self.facts['key_file']}: expected TorchServe's three tokens; start the server again")

    @property
    def knows_key(self) -> bool:
        """Whether the deployment's key is known here, so that answers can be searched for it."""
        return any(name.startswith("the key") for name in self._secrets)

    def principal(self, purpose: str) -> str:
        """A principal that nobody else is, of this run and purpose."""
        return f"selftest-{self.run}-{purpose}"

    def ask(
        self,
        model: str,
        body: bytes,
        content_type: str,
        *,
        principal: str,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        patient: bool = True,
    ) -> Reply:
        """One prediction request to TorchServe itself, as a gateway would send it for `principal`.

        authorization: in place of the token's; "" for none. patient: whether to wait and ask again where the service
        is over a limit, which other checks reach on purpose.
        """
        sent = {"Content-Type": content_type, self.policies[model].get("principal_header", HEADER): principal}
        given = self.target.authorization["Authorization"] if authorization is None else authorization
        if given:
            sent["Authorization"] = given
        sent |= headers or {}
        url = f"{self.target.inference}{self.target.path(model)}"
        reply = self.send("POST", url, sent, body)
        for _ in range(3):
            wait = float(reply.headers.get("Retry-After", "inf"))
            if not patient or reply.code != RateLimited.code or wait > self.patience:
                break
            self._note(model, reply)
            time.sleep(wait + 0.1)
            reply = self.send("POST", url, sent, body)
        self._note(model, reply)
        return reply

    def rows(self, model: str, rows: Row, *, principal: str, patient: bool = True, **headers: str) -> Reply:
        """The answer to rows (n,C,H,W) as raw float32."""
        reply = self.ask(
            model,
            wire.encode_rows(rows, wire.RAW),
            wire.RAW,
            principal=principal,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            patient=patient,
        )
        faults = reply.faults if reply.status == 200 else {0: reply.code or ""} if len(rows) == 1 else {}
        for row, code in faults.items():
            if code in ("rejected", "proof_of_work"):
                decision = "reject" if code == "rejected" else "proof-of-work"
                self.audited.append({"principal": principal, "decision": decision, "digest": digest(rows[row])})
        return reply

    def manage(self, method: str, path: str, *, key: str | None) -> Reply:
        """One request to the management address."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.send(method, f"{self.facts['management']}/{path}", headers, b"")

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One request; what comes back is searched for secrets. Raises ServiceError where nothing comes in time."""
        try:
            with self._session.request(method, url, data=body, headers=headers, timeout=SECONDS) as answer:
                reply = Reply(answer.status_code, answer.content, dict(answer.headers))
        except requests.Timeout as error:
            raise ServiceError(f"no answer within {SECONDS:.0f} s from {url}") from error
        except requests.ConnectionError:
            # TorchServe closes the connection on a client that is still sending a body which is too large
            return Reply(0)
        self.search(f"an answer ({reply.status})", reply.body + repr(reply.headers).encode())
        return reply

    def metrics(self) -> str:
        """What the metrics endpoint returns now."""
        text = self._session.get(f"{self.facts['metrics']}/metrics", timeout=SECONDS).text
        self.search("/metrics", text.encode())
        return text

    def counted(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that carry these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        found = [match for line in self.metrics().splitlines() if (match := SERIES.fullmatch(line))]
        mine = [match for match in found if match["name"] == name and all(label in match["labels"] for label in wanted)]
        return sum(float(match["value"]) for match in mine)

    def errors(self, model: str) -> dict[str, float]:
        """By code, how many refusals of a model were counted so far."""
        lines = (SERIES.fullmatch(line) for line in self.metrics().splitlines())
        found = [
            match["labels"]
            for match in lines
            if match and match["name"] == "torchwarden_errors_total" and f'ModelName="{model}"' in match["labels"]
        ]
        codes = {code[1] for labels in found if (code := re.search(r'code="([^"]*)"', labels))}
        return {code: self.counted("torchwarden_errors_total", ModelName=model, code=code) for code in codes}

    def reached(self, name: str, least: float, *, seconds: float = 5.0, **labels: str) -> float:
        """A metric's value, once it is `least`, or after so many seconds: TorchServe reads it from a worker's lines."""
        deadline = time.monotonic() + seconds
        while True:
            value = self.counted(name, **labels)
            if value >= least or time.monotonic() > deadline:
                return value
            time.sleep(0.1)

    def search(self, where: str, text: bytes) -> None:
        """Note where a secret stands in this output."""
        for name, forms in self._secrets.items():
            if any(form in text for form in forms):
                self.leaks.append(f"{name} in {where}")

    def logs(self) -> bytes:
        """All that the instance has logged."""
        return b"".join(path.read_bytes() for path in sorted((self.folder / "logs").rglob("*")) if path.is_file())

    def _note(self, model: str, reply: Reply) -> None:
        codes = self.refusals.setdefault(model, Counter())
        codes.update(reply.faults.values())
        if reply.code is not None:
            codes[reply.code] += 1

    def _known_secrets(self) -> dict[str, tuple[bytes, ...]]:
        """What no answer may hold: the tokens, and the deployment's key in any form where this process may read it."""
        known: dict[str, tuple[bytes, ...]] = {
            f"the token for {kind}": (key.encode(),) for kind, key in self.keys.items()
        }
        for name in {section.get("key_env") for section in self.policies.values()} - {None}:
            try:
                key = read_key(str(name), os.environ)
            except (KeyMissing, KeyUnusable):
                continue
            known[f"the key ${name}"] = forms(key)
        return known


def forms(key: bytes) -> tuple[bytes, ...]:
    """A key as it may be written: its bytes, hexadecimal, base64."""
    texts = (key.hex(), key.hex().upper(), base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode())
    return (key, *(text.rstrip("=").encode() for text in texts))


def _section(archive: Path) -> dict[str, Any]:
    """The `handler` section of an archive. Raises ServiceError."""
    try:
        with zipfile.ZipFile(archive) as packed:
            section: dict[str, Any] = yaml.safe_load(packed.read("model-config.yaml"))["handler"]
            return section
    except (OSError, LookupError, zipfile.BadZipFile, yaml.YAMLError) as error:
        raise ServiceError(
            f"{archive}: not the archive that is served ({type(error).__name__}); build it again"
        ) from error
