"""How findings are judged, reported and searched for secrets; trials on a real service are in tests/e2e."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from onnx import TensorProto, helper

from assurance.selftest import answers, limits
from assurance.selftest.__main__ import CHECKS, FRONT, UNSEEN
from assurance.selftest.checks import Subject, absent, exit_code, guarded, judged, shown, table, untried
from assurance.selftest.gateway import Gateway
from assurance.selftest.service import Reply, Service, ServiceError, forms
from handlers import wire
from handlers.wire import WireError
from report.rows.selftest import ABSENT, STOPPED, THROUGH, UNTRIED, WARNED, Finding
from tests.conftest import RECIPE

CHECKOUT = Path(__file__).resolve().parents[3]


def finding(ok: bool = True, *, model: str = "digits-edm", got: str = "400") -> Finding:
    return judged("bounded-input", model, "half a file", "400 undecodable", got, ok=ok)


def test_one_that_was_let_through_fails_the_whole() -> None:
    assert finding().verdict == STOPPED
    assert finding(ok=False).verdict == THROUGH
    assert exit_code([finding(), finding()]) == 0
    assert exit_code([finding(), finding(ok=False)]) == 1


def test_what_does_not_apply_is_no_success() -> None:
    nothing = [absent("gate", "digits-edm", "no gate"), untried("limits", "digits-edm", "too many rows")]
    assert [each.verdict for each in nothing] == [ABSENT, UNTRIED]
    assert exit_code(nothing) == 1
    assert exit_code([*nothing, finding()]) == 0


def test_a_check_that_breaks_off_has_shown_nothing() -> None:
    def breaks(subject: Subject) -> Iterator[Finding]:
        yield finding()
        raise WireError("no answer that can be read")

    subject = Subject("digits-edm", None, {}, *[np.zeros((1, 1, 2, 2), np.float32)] * 3)  # type: ignore[arg-type]
    first, last = guarded(breaks, "gate")(subject)
    assert first.verdict == STOPPED
    assert (last.control, last.model, last.sent, last.verdict) == ("gate", "digits-edm", "breaks", THROUGH)
    assert "the check broke off: WireError: no answer that can be read" in last.got


def signed(label: int) -> bytes:
    """An ONNX graph that gives every image this one of three labels: images (n,1,1,1) times 0, plus its row."""
    row = np.eye(3, dtype=np.float32)[label]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "nothing"], ["none"]),
            helper.make_node("Add", ["none", "own"], ["probabilities"]),
        ],
        "member",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 1, 1, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3])],
        [
            helper.make_tensor("nothing", TensorProto.FLOAT, [1, 3], np.zeros(3, np.float32)),
            helper.make_tensor("own", TensorProto.FLOAT, [3], row),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("own", "response", "verdict", "got"),
    [
        ((0, 1), {}, WARNED, r"100%, members' own classes 0 \(100%\), 1 \(100%\): .*serve labels alone"),
        ((0, 1), {"rule": "label"}, WARNED, "it answers labels alone"),
        ((2, 2), {}, STOPPED, "0%"),
    ],
)
def test_members_that_labels_name_are_warned_of(
    own: Sequence[int], response: Mapping[str, Any], verdict: str, got: str, tmp_path: Path
) -> None:
    images = np.full((8, 1, 1, 1), 0.5, np.float32)
    with zipfile.ZipFile(tmp_path / "edm.mar", "w") as packed:
        for member, only in enumerate(own):
            packed.writestr(f"graphs/edm-{member}.onnx", signed(only))

    class Served:
        archives: ClassVar = {"edm": tmp_path / "edm.mar"}
        policies: ClassVar = {
            "edm": {"backend": "onnxruntime", "members": ["edm-0", "edm-1"], "route": {"hash": "projection"}}
        }

    subject = Subject("edm", Served(), {"response": response}, *[images] * 3)  # type: ignore[arg-type]
    (finding,) = answers.unnamed_members(subject)
    assert finding.verdict == verdict
    assert re.match(got, finding.got) or got in finding.got
    assert not finding.failed
    assert (f"warning: diverse-members on edm: {finding.got}" in table([finding])) == (verdict == WARNED)


def test_a_bug_of_a_check_is_not_hidden() -> None:
    def wrong(subject: Subject) -> Iterator[Finding]:
        yield finding()
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        list(guarded(wrong, "gate")(None))  # type: ignore[arg-type]


def test_the_table_shows_what_is_alike_once_and_what_failed_last() -> None:
    found = [
        finding(model="digits-edm"),
        finding(ok=False, model="digits-label", got="200"),
        finding(model="digits-same"),
        absent("gate", "digits-edm", "the policy has no gate"),
        absent("gate", "digits-label", "the policy has no gate"),
        untried("limits", "digits-edm", "it would take 10000000 rows"),
    ]
    lines = table(found).splitlines()
    assert lines[0].split() == ["control", "model", "sent", "expected", "got", "verdict"]
    assert lines[1].split() == [
        "bounded-input",
        "2",
        "models",
        "half",
        "a",
        "file",
        "400",
        "undecodable",
        "400",
        STOPPED,
    ]
    assert "digits-label" in lines[2]
    assert lines[2].endswith("let through")
    assert lines[3:] == [
        "does not apply: gate on 2 models: the policy has no gate",
        "not tried: limits on digits-edm: it would take 10000000 rows",
    ]


def test_a_long_cell_is_cut() -> None:
    (line,) = table([finding(got="x" * 500)]).splitlines()[1:]
    assert "x..." in line
    assert len(line) < 220


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(0), "connection cut"),
        (Reply(413), "413"),
        (Reply(400, b'{"error": {"code": "undecodable", "message": "m", "row": null}}'), "400 undecodable"),
        (Reply(500, b"<html>\noops"), "500 <html> oops"),
    ],
)
def test_an_answer_in_a_few_words(reply: Reply, words: str) -> None:
    assert shown(reply) == words


def test_answers_and_faults_of_a_reply() -> None:
    body = b'{"predictions": [{"label": 3}, {"error": {"code": "not_finite", "message": "m", "row": 1}}]}'
    reply = Reply(200, body)
    assert reply.faults == {1: "not_finite"}
    assert reply.answers == [{"label": 3}]
    assert reply.code is None
    assert Reply(200, b"[1]").json == {}
    assert Reply(200, b"no json").json == {}


def test_a_key_is_searched_for_in_every_form() -> None:
    key = bytes(range(200, 232))
    written = forms(key)
    for form in (key, key.hex().encode(), key.hex().upper().encode(), b"yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4+Tl5uc"):
        assert form in written


def test_a_solution_s_alterations_alter_it() -> None:
    solution = "eyJjaGFsbGVuZ2UiOiB7InBhcmFtZXRlcnMiOiB7ImtleVByZWZpeCI6ICJhYiIsICJleHBpcmVzQXQiOiAxMDB9fX0="
    changed = {answers._altered(solution, change) for change in (answers._cheaper, answers._later, answers._earlier)}
    assert len(changed | {solution}) == 4


def test_every_check_has_a_control_and_none_is_both_tried_and_unseen() -> None:
    controls = {control for _, control in CHECKS}
    assert not controls & set(UNSEEN)
    assert not set(FRONT) & set(UNSEEN)
    assert limits.CONTROL in controls


def test_what_a_user_file_must_hold(tmp_path: Path) -> None:
    file = tmp_path / "user"
    with pytest.raises(ServiceError, match=r"user: No such file.*deploy\.gateway add"):
        Gateway.read("https://127.0.0.1:1", None, file)
    file.write_text("nothing of the kind")
    with pytest.raises(ServiceError, match=r"expected LOGIN:KEY, .* got another text") as caught:
        Gateway.read("https://127.0.0.1:1", None, file)
    assert "nothing of the kind" not in str(caught.value)
    file.write_text("acme:secret:with-colon\n")
    read = Gateway.read("https://127.0.0.1:8443/", None, file)
    assert (read.url, read.address, read.user, read.key) == (
        "https://127.0.0.1:8443",
        ("127.0.0.1", 8443),
        "acme",
        "secret:with-colon",
    )
    assert "secret" not in repr(read)


def selftest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "assurance.selftest", *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_without_a_service_the_command_says_what_to_start(tmp_path: Path) -> None:
    done = selftest(RECIPE, "--policies", "edm", "--run-folder", tmp_path, "--output", tmp_path / "out.json")
    assert done.returncode == 2
    assert "server.json: no such file; is the instance running? (make serve)" in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_a_gateway_without_a_key_is_refused() -> None:
    done = selftest(RECIPE, "--policies", "edm", "--url", "https://127.0.0.1:1")
    assert done.returncode == 2
    assert "--url, --user: expected both or neither" in done.stderr


def test_a_service_of_another_archive_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "key_file.json").write_text('{"inference": {"key": "AAAAAAAA"}}')
    (folder / "config.properties").write_text("max_request_size=1000\n")
    (folder / "server.json").write_text(
        f'{{"inference": "http://127.0.0.1:1", "models": ["smoke-edm"], "key_file": "{folder / "key_file.json"}"}}'
    )
    (folder / "expected.json").write_text(f'[{{"name": "smoke-edm", "path": "{tmp_path / "gone.mar"}"}}]')
    with pytest.raises(ServiceError, match=r"gone\.mar: not the archive that is served \(FileNotFoundError\)"):
        Service("one", run_folder=tmp_path, patience=1.0)


def test_wire_s_solution_header_is_the_one_that_is_sent() -> None:
    """It is spelled with underscores where a solution is a keyword."""
    assert wire.SOLUTION.replace("-", "_") == "Torchwarden_Solution"
