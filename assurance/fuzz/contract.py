"""Requests that schemathesis makes of docs/api/openapi.yaml, and whether each answer is one that the file describes.

schemathesis is the maintained library that writes requests which fit an OpenAPI file, and some that miss it by a
little. It knows nothing of pictures: good files and rows are handed to it. Checked of each answer: no 5xx, a status
that is listed, its content type and its schema.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from assurance.fuzz import pictures
from assurance.fuzz.case import Subject
from assurance.fuzz.door import ANSWERED, DEADLINE, Door, Reply
from assurance.fuzz.frontend import KNOWN
from assurance.fuzz.judge import label
from assurance.fuzz.pngs import saved
from deploy import direct
from handlers import wire

API = Path(__file__).resolve().parents[2] / "docs" / "api" / "openapi.yaml"
# the types of the file by Pillow's formats
FORMS = {
    wire.PNG: "PNG",
    wire.JPEG: "JPEG",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/gif": "GIF",
    "image/x-portable-pixmap": "PPM",
}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
# a header that HTTP libraries refuse to send is none that a server can be asked about
UNSENDABLE = (requests.exceptions.InvalidHeader, UnicodeEncodeError)


@dataclass(frozen=True)
class Contract:
    """The file, held against a server. cafile: what its certificate is signed by. direct: no gateway stands before
    TorchServe, whose own known faults are counted and are no news."""

    door: Door
    cafile: str | None = None
    direct: bool = True

    def run(self, subjects: Sequence[Subject], examples: int, number: int) -> dict[str, Any]:
        """Ask `examples` requests for each subject and mode: right ones, wrong ones, right ones for models of any name.

        number: of the run, its seed. Returns the section of the results file.
        """
        answers: Counter[str] = Counter()
        findings: dict[str, str] = {}
        _teach(subjects[0])
        schema = schemathesis.openapi.from_path(API)
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
        if not operations:
            raise ValueError(f"{API}: expected operations, found none")
        for operation in operations:
            for subject in subjects:
                named = {"model": subject.model}
                for mode, parameters in (("POSITIVE", named), ("NEGATIVE", named), ("POSITIVE", None)):
                    strategy = operation.as_strategy(
                        generation_mode=schemathesis.GenerationMode[mode], path_parameters=parameters
                    )
                    self._ask(strategy, examples, number, answers, findings)
        return {
            "schemathesis": schemathesis.__version__,
            "requests": answers.total(),
            "answers": dict(sorted(answers.items())),
            "findings": sorted(findings.values()),
        }

    def _ask(
        self,
        strategy: st.SearchStrategy[Any],
        examples: int,
        number: int,
        answers: Counter[str],
        findings: dict[str, str],
    ) -> None:
        url = f"{'https' if self.door.context else 'http'}://{self.door.host}:{self.door.port}"
        session = direct.session()

        @seed(number)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def ask(case: Any) -> None:
            case.headers = {**(case.headers or {}), "Authorization": self.door.authorization.decode()}
            try:
                response = case.call(base_url=url, session=session, timeout=DEADLINE, verify=self.cafile or True)
            except UNSENDABLE:
                return
            except requests.RequestException as error:
                findings.setdefault(type(error).__name__, f"{case.media_type}: no answer: {str(error)[:200]}")
                return
            ending = label(Reply(ANSWERED, response.status_code, {}, response.content))
            if self.direct and ending in KNOWN:
                answers[f"{case.media_type} {ending}"] += 1
                return
            answers[f"{case.media_type} {response.status_code}"] += 1
            try:
                case.validate_response(response, checks=CHECKS)
            except (Failure, FailureGroup) as failure:
                for each in getattr(failure, "exceptions", [failure]):
                    findings.setdefault(f"{type(each).__name__} {response.status_code}", _said(each, response))

        with session:
            ask()


def _said(failure: BaseException, response: Any) -> str:
    first = str(getattr(failure, "title", failure)).splitlines()[0]
    return f"{type(failure).__name__}: {first}: status {response.status_code}, {response.content[:160]!a}"


def files_of(subject: Subject, form: str) -> bytes:
    """One of the subject's rows as a file."""
    return saved(pictures.gray(Random(0), subject), form)


def _teach(subject: Subject) -> None:
    """Let schemathesis write pictures and rows: good ones, and any bytes."""
    row = subject.images[:1]
    numbers = wire.encode_rows(row, wire.RAW)
    files = {content_type: files_of(subject, form) for content_type, form in FORMS.items()}
    for content_type, body in {**files, wire.RAW: numbers}.items():
        schemathesis.openapi.media_type(content_type, st.just(body) | st.binary(max_size=2 * len(body)))

        @schemathesis.serializer(content_type)
        def serialize(context: Any, value: Any) -> bytes:
            return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
