"""Evidence from end to end: it holds, a changed byte anywhere fails, and so do evidence and files put together anew."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from attest import measured, verdict, verify
from attest.evidence import __main__ as signing
from attest.evidence import dsse, keys, proofs, statement
from attest.evidence.errors import EvidenceError
from tests.attest import synthetic
from tests.pages import blocks

LINES = 40


@dataclasses.dataclass(frozen=True)
class Signed:
    """A signed run. text: of its evidence."""

    folder: Path
    key: Path
    text: bytes
    public: Ed25519PublicKey

    def check(self, text: bytes | None = None, *, folder: Path | None = None, **options: Any) -> list[str]:
        """Verify as the program does; the lines that it prints."""
        found = statement.verified(self.text if text is None else text, self.public)
        return list(verify.checks(found, folder or self.folder, **options))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    folder = tmp_path_factory.mktemp("signed")
    key = folder.parent / "attest.pem"
    if not key.exists():
        keys.make(key)
    run = folder / "attest-shop"
    synthetic.run(run, lines=LINES + 160)
    (folder / "shop.mar").write_bytes(b"archive")
    path = signing.sign(run, key, [folder / "shop.mar"])
    return Signed(run, key, path.read_bytes(), keys.public(keys.public_path(key)))


def again(signed: Signed, statement_: dict[str, Any]) -> bytes:
    """A Statement as its own key signs it: what only the signer could change."""
    return statement.sign(json.dumps(statement_).encode(), keys.private(signed.key)).encode()


def content(signed: Signed) -> dict[str, Any]:
    envelope = json.loads(signed.text)
    found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return found


def test_it_holds_and_says_what_it_checked(signed: Signed) -> None:
    lines = signed.check(subjects=[signed.folder.parent / "shop.mar"])
    assert "ok: measured.json" in lines
    assert "ok: report.html" in lines
    assert "not checked: shop.mar is not here" in lines
    assert any(line.endswith("shop.mar is a subject") for line in lines)
    assert any(line.startswith("ok: ledger.jsonl, 200 lines under the root") for line in lines)
    assert "ok: the figures give the verdict" in lines


def test_the_ledger_stays_with_the_owner(signed: Signed, tmp_path: Path) -> None:
    assert "not checked: ledger.jsonl is not here (it stays with the owner)" in signed.check(folder=tmp_path)
    assert b"image_sha256" not in base64.b64decode(json.loads(signed.text)["payload"])


def test_any_changed_byte_of_the_envelope_fails(signed: Signed) -> None:
    """Every byte of it in turn, and in the payload, which is long, every seventh: all of them take too long."""
    payload = json.loads(signed.text)["payload"].encode()
    start = signed.text.index(payload)
    places = [*range(start), *range(start, start + len(payload), 7), *range(start + len(payload), len(signed.text))]
    assert len(places) > 500
    for place in places:
        for bit in (0x01, 0x20):
            changed = bytearray(signed.text)
            changed[place] ^= bit
            with pytest.raises(EvidenceError):
                statement.verified(bytes(changed), signed.public)


@given(st.data())
def test_any_change_of_the_envelope_fails(signed: Signed, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(signed.text)))
    end = data.draw(st.integers(start, min(len(signed.text), start + 5)))
    inserted = data.draw(st.binary(max_size=5))
    changed = signed.text[:start] + inserted + signed.text[end:]
    if changed != signed.text:
        with pytest.raises(EvidenceError):
            statement.verified(changed, signed.public)


@pytest.mark.parametrize("name", ["measured.json", "report.html", "ledger.jsonl"])
def test_any_changed_byte_of_a_file_fails(signed: Signed, name: str, tmp_path: Path) -> None:
    original = (signed.folder / name).read_bytes()
    step = max(1, len(original) // 100)
    for place in range(0, len(original), step):
        changed = bytearray(original)
        changed[place] ^= 0x01
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(EvidenceError):
            signed.check(folder=tmp_path)
    for other in (original[:-1], original + b"\n", b""):
        (tmp_path / name).write_bytes(other)
        with pytest.raises(EvidenceError):
            signed.check(folder=tmp_path)
    (tmp_path / name).write_bytes(original)
    assert signed.check(folder=tmp_path)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all single values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*path, key)) if isinstance(inner, (dict, list)) else ((*path, key),)


def test_any_changed_field_under_the_old_signature_fails(signed: Signed) -> None:
    envelope, whole = json.loads(signed.text), content(signed)
    places = list(leaves(whole))
    assert len(places) > 150
    for place in places:
        changed = json.loads(json.dumps(whole))
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = "changed" if inner[place[-1]] != "changed" else "else"
        payload = base64.b64encode(json.dumps(changed).encode()).decode()
        with pytest.raises(EvidenceError, match="something was changed"):
            statement.verified((json.dumps({**envelope, "payload": payload}, indent=1) + "\n").encode(), signed.public)


def test_what_the_signature_does_not_cover_is_fixed_all_the_same(signed: Signed) -> None:
    envelope = json.loads(signed.text)
    signature = envelope["signatures"][0]
    others = [
        {**envelope, "signatures": [{**signature, "keyid": "0" * 64}]},
        {**envelope, "signatures": [{"sig": signature["sig"]}]},
        {**envelope, "signatures": [signature, signature]},
        {**envelope, "signatures": [{**signature, "note": "x"}]},
        {**envelope, "note": "x"},
        dict(reversed(envelope.items())),
    ]
    for each in others:
        dsse.verify(each, signed.public, payload_type=statement.PAYLOAD_TYPE)
        with pytest.raises(EvidenceError, match="what it does not cover was changed"):
            statement.verified((json.dumps(each, indent=1) + "\n").encode(), signed.public)
    with pytest.raises(EvidenceError, match="what it does not cover was changed"):
        statement.verified(json.dumps(envelope).encode(), signed.public)


def test_a_payload_says_one_thing_in_one_form(signed: Signed) -> None:
    """Signed by the signer's own key: nobody else could; but other tools would read another verdict in it."""
    key, text = keys.private(signed.key), json.dumps(content(signed))
    word = '"word": "copied"'
    assert text.count(word) == 1
    for other, said in {
        text.replace(word, f'"word": "not copied", {word}'): "the key 'word' stands twice in one object",
        text.replace('"_type": ', '"_type": "x", "_type": '): "the key '_type' stands twice in one object",
        text.replace('"spent": 12.0', '"spent": NaN'): "NaN is no number of JSON",
        text.replace('"spent": 12.0', '"spent": 1.2e1'): "its payload has another form",
        text.replace('"spent": 12.0', '"spent":12.0'): "its payload has another form",
        text + "\n": "its payload has another form",
        "\ufeff" + text: "its payload has another form",
        text.replace("shop", "\\u0073hop", 1): "its payload has another form",
    }.items():
        assert other != text
        with pytest.raises(EvidenceError, match=said):
            statement.verified(statement.sign(other.encode(), key).encode(), signed.public)
    assert statement.verified(statement.sign(text.encode(), key).encode(), signed.public)


def test_base64_has_one_form(signed: Signed) -> None:
    """What a decoder would overlook: white space, what stands after the end, spare bits, the other alphabet."""
    envelope = json.loads(signed.text)
    signature = envelope["signatures"][0]
    sig, payload = signature["sig"], envelope["payload"]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    assert sig.endswith("==")
    spare = sig[:-3] + letters[letters.index(sig[-3]) + 1] + "=="
    assert base64.b64decode(spare) == base64.b64decode(sig)
    changed = [f" {sig}", f"{sig}\n", f"{sig}A", f"{sig}{sig}", sig.rstrip("="), f"{sig}=", spare]
    others = [{**envelope, "signatures": [{**signature, "sig": each}]} for each in changed]
    others += [
        {**envelope, "payload": each} for each in (f" {payload}", f"{payload}\n", f"{payload}====", f"{payload}AAAA")
    ]
    others += [{**envelope, "signatures": each} for each in ([], {}, [None], [{}], [[signature]], "x", [signature] * 2)]
    zero = {**signature, "sig": base64.b64encode(bytes(64)).decode()}
    others += [{**envelope, "signatures": each} for each in ([zero, signature], [signature, zero], [zero])]
    for each in others:
        with pytest.raises(EvidenceError):
            statement.verified((json.dumps(each, indent=1) + "\n").encode(), signed.public)
    assert statement.verified((json.dumps(envelope, indent=1) + "\n").encode(), signed.public)


def test_an_envelope_with_a_key_twice_fails(signed: Signed) -> None:
    text = signed.text.decode().replace('"payloadType"', '"payloadType": "text/plain",\n "payloadType"')
    with pytest.raises(EvidenceError, match="the key 'payloadType' stands twice"):
        statement.verified(text.encode(), signed.public)


def test_any_changed_byte_of_the_ledger_fails(signed: Signed, tmp_path: Path) -> None:
    """A byte of every fortieth line, and every byte of one."""
    text = (signed.folder / measured.LEDGER).read_bytes()
    found = statement.verified(signed.text, signed.public)
    line = text.index(b"\n") + 1
    for place in [*range(line), *range(line, len(text), len(text) // 40)]:
        changed = bytearray(text)
        changed[place] ^= 1
        (tmp_path / measured.LEDGER).write_bytes(changed)
        with pytest.raises(EvidenceError):
            list(verify.checks(found, tmp_path / "none", ledger=tmp_path / measured.LEDGER))


def test_any_changed_byte_of_the_public_key_fails(signed: Signed, tmp_path: Path) -> None:
    """Each bit of it; and what a reader of PEM would overlook."""
    text, path = keys.public_path(signed.key).read_bytes(), tmp_path / "other.pub.pem"
    others = [
        text[:place] + bytes([text[place] ^ 1 << bit]) + text[place + 1 :]
        for place in range(len(text))
        for bit in range(8)
    ]
    others += [b"x\n" + text, text + b"x", text + b"\n", text.replace(b"\n", b"\r\n"), text + text, text[:-1]]
    for other in others:
        path.write_bytes(other)
        with pytest.raises(EvidenceError):
            statement.verified(signed.text, keys.public(path))
    path.write_bytes(text)
    assert statement.verified(signed.text, keys.public(path))


def test_a_measured_json_that_says_two_things_fails_though_signed(signed: Signed, tmp_path: Path) -> None:
    text = (
        (signed.folder / measured.FILE)
        .read_text()
        .replace('"word": "copied"', '"word": "not copied", "word": "copied"')
    )
    (tmp_path / measured.FILE).write_text(text)
    whole = content(signed)
    for subject in whole["subject"]:
        if subject["name"] == measured.FILE:
            subject["digest"]["sha256"] = statement.digest(tmp_path / measured.FILE)
    with pytest.raises(EvidenceError, match="the key 'word' stands twice"):
        signed.check(again(signed, whole), folder=tmp_path)


@pytest.mark.parametrize(
    "change", [{"index": 7.0}, {"index": True}, {"index": "7"}, {"lines": 200.0}, {"format": True}]
)
def test_a_proof_has_whole_numbers(signed: Signed, tmp_path: Path, change: dict[str, Any]) -> None:
    proof = proofs.prove(proofs.lines(signed.folder / measured.LEDGER), 1 if change == {"index": True} else 7)
    found = statement.verified(signed.text, signed.public)
    (tmp_path / "proof.json").write_text(json.dumps(proof))
    assert list(verify.query(found, tmp_path / "proof.json", image=None, answer=None))
    (tmp_path / "proof.json").write_text(json.dumps({**proof, **change}))
    with pytest.raises(EvidenceError, match=r"^proof: "):
        list(verify.query(found, tmp_path / "proof.json", image=None, answer=None))


def test_another_key_fails(signed: Signed, tmp_path: Path) -> None:
    other = keys.public(keys.make(tmp_path / "other.pem"))
    with pytest.raises(EvidenceError, match="another key signed it"):
        statement.verified(signed.text, other)


def test_a_payload_of_another_type_is_no_evidence(signed: Signed) -> None:
    key = keys.private(signed.key)
    other = dsse.sign(b"{}", "application/json", key, keyid=keys.fingerprint(signed.public))
    with pytest.raises(EvidenceError, match="payloadType: expected 'application/vnd"):
        statement.verified((json.dumps(other, indent=1) + "\n").encode(), signed.public)


FAULTS: dict[str, Any] = {
    "another statement": ({"_type": "https://in-toto.io/Statement/v0.1"}, "_type"),
    "another predicate": ({"predicateType": "https://slsa.dev/provenance/v1"}, "predicateType"),
    "no subject": ({"subject": []}, "subject"),
    "another target": (
        {
            "subject": [
                {"name": name, "digest": {"sha256": "0" * 64}} for name in ("target", "measured.json", "report.html")
            ]
        },
        "target's digest",
    ),
    "a name twice": (
        {"subject": [{"name": "target", "digest": {"sha256": "0" * 64}}] * 2},
        "a name stands there twice",
    ),
    "no measured.json": (
        {"subject": [{"name": name, "digest": {"sha256": "0" * 64}} for name in ("target", "report.html")]},
        r"expected measured\.json among the names, got target, report\.html",
    ),
    "another digest beside it": (
        {"subject": [{"name": "target", "digest": {"sha256": "0" * 64, "sha512": "0" * 128}}]},
        "subject/0/digest",
    ),
    "a weak digest": ({"subject": [{"name": "target", "digest": {"md5": "0" * 32}}]}, "subject/0/digest"),
    "a field more": ({"more": 1}, "more"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_statement_of_another_shape_is_refused_though_signed(signed: Signed, name: str) -> None:
    change, message = FAULTS[name]
    with pytest.raises(EvidenceError, match=message):
        statement.verified(again(signed, {**content(signed), **change}), signed.public)


def test_a_verdict_that_its_figures_do_not_give_is_refused_though_signed(signed: Signed) -> None:
    whole = content(signed)
    whole["predicate"]["measured"]["verdict"]["word"] = "not copied"
    with pytest.raises(EvidenceError, match="its figures do not give the verdict 'not copied'"):
        signed.check(again(signed, whole), folder=signed.folder.parent)


def test_other_thresholds_are_named_and_not_judged_by(signed: Signed) -> None:
    whole = content(signed)
    whole["predicate"]["thresholds"]["copied"] = 0.99
    lines = signed.check(again(signed, whole), folder=signed.folder.parent)
    assert any(line.startswith("not checked: the verdict, which was judged by other thresholds") for line in lines)
    assert "ok: the figures give the verdict" not in lines


def test_a_signer_who_says_two_things_is_found(signed: Signed, tmp_path: Path) -> None:
    """The evidence holds other figures than the measured.json that it names."""
    other = synthetic.run(tmp_path, lines=LINES + 160, spent=1.0)
    whole = content(signed)
    for subject in whole["subject"]:
        if subject["name"] == measured.FILE:
            subject["digest"]["sha256"] = statement.digest(tmp_path / measured.FILE)
    assert other != statement.parsed(whole).predicate.measured
    with pytest.raises(EvidenceError, match="its signer says two things"):
        signed.check(again(signed, whole), folder=tmp_path)


def test_the_files_of_another_run_fail(signed: Signed, tmp_path: Path) -> None:
    """Its evidence next to a run that looked better, or a ledger of another length."""
    better = tmp_path / "better"
    synthetic.run(better, lines=LINES + 160, curves=(synthetic.curve("knockoff", 0.12),))
    signing.sign(better, signed.key, [])
    with pytest.raises(EvidenceError, match=r"measured\.json: changed since it was signed, or of another attest"):
        signed.check(folder=better)
    for lines in (1, LINES, LINES + 161):
        synthetic.ledger(tmp_path, lines)
        with pytest.raises(EvidenceError, match=f"not the ledger of this evidence: {lines} lines"):
            signed.check(folder=tmp_path / "none", ledger=tmp_path / measured.LEDGER)


def test_a_file_that_it_is_not_about_fails(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "shop.mar").write_bytes(b"another archive")
    with pytest.raises(EvidenceError, match="the evidence is not about this file"):
        signed.check(subjects=[tmp_path / "shop.mar"])
    with pytest.raises(EvidenceError, match="No such file"):
        signed.check(ledger=tmp_path / "none.jsonl")


def test_a_subject_s_name_leads_nowhere_else(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    whole = content(signed)
    whole["subject"].append({"name": "../secret", "digest": {"sha256": statement.digest(tmp_path / "secret")}})
    (tmp_path / "run").mkdir()
    assert "not checked: ../secret is not here" in signed.check(again(signed, whole), folder=tmp_path / "run")


def test_an_old_attest_is_refused_where_age_is_asked_for(signed: Signed) -> None:
    found = statement.verified(signed.text, signed.public)
    started = datetime.fromisoformat(found.predicate.measured.run.started)
    assert verify.fresh(found, 30, now=started + timedelta(days=29)) == "ok: began 29.0 days ago"
    with pytest.raises(EvidenceError, match=r"is 31.0 days ago, expected at most 30: attest again"):
        verify.fresh(found, 30, now=started + timedelta(days=31))
    with pytest.raises(EvidenceError, match="expected at most 30"):
        verify.fresh(found, 30, now=started - timedelta(days=1))


@pytest.mark.parametrize("started", ["yesterday", "2026-11-30T13:00:00"])
def test_a_time_without_its_zone_has_no_age(signed: Signed, started: str) -> None:
    whole = content(signed)
    whole["predicate"]["measured"]["run"]["started"] = started
    found = statement.parsed(whole)
    with pytest.raises(EvidenceError, match="expected a time with its zone"):
        verify.fresh(found, 30, now=datetime.now(timezone.utc))


def test_what_does_not_agree_is_not_signed(signed: Signed, tmp_path: Path) -> None:
    def sign(folder: Path) -> None:
        signing.sign(folder, signed.key, [])

    synthetic.run(tmp_path / "ledger", lines=LINES)
    with (tmp_path / "ledger" / measured.LEDGER).open("a") as file:
        file.write(json.dumps({"index": LINES}) + "\n")
    with pytest.raises(EvidenceError, match=r"41 lines with SHA-256 .* is of 40 lines"):
        sign(tmp_path / "ledger")
    good = synthetic.run(tmp_path / "verdict", lines=LINES + 160)
    better = dataclasses.replace(good.verdict, word="not copied")
    measured.write(dataclasses.replace(good, verdict=better), tmp_path / "verdict")
    with pytest.raises(EvidenceError, match="its verdict is 'not copied', its figures give 'copied'"):
        sign(tmp_path / "verdict")
    assert not (tmp_path / "verdict" / statement.FILE).exists()
    measured.write(good, tmp_path / "verdict")
    shutil.copy(tmp_path / "verdict" / measured.FILE, tmp_path / measured.FILE)
    with pytest.raises(EvidenceError, match=r"expected each name once, got measured\.json twice"):
        signing.sign(tmp_path / "verdict", signed.key, [tmp_path / measured.FILE])


def test_the_schema_is_the_dataclasses(signed: Signed) -> None:
    text = statement.SCHEMA.read_text("utf-8")
    assert text == statement.schema(), "changed: python -m attest.evidence schema writes it again"
    assert statement.parsed(content(signed)).predicate.thresholds == verdict.BY


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def test_the_programs_from_a_key_to_a_disputed_query(tmp_path: Path) -> None:
    folder, key = tmp_path / "attest-shop", tmp_path / "attest.pem"
    synthetic.run(folder, lines=LINES + 160)
    assert run("attest.evidence.keys", key).returncode == 0
    done = run("attest.evidence", "sign", folder, "--key", key)
    assert done.returncode == 0, done.stderr
    evidence, public = folder / statement.FILE, keys.public_path(key)
    checked = run("attest.verify", evidence, "--key", public)
    assert checked.returncode == 0, checked.stderr
    assert "verdict: Copied: knockoff" in checked.stdout
    assert "confidence: high" in checked.stdout

    answer, image, proof = tmp_path / "answer", tmp_path / "image", tmp_path / "proof.json"
    proved = run("attest.prove", folder / measured.LEDGER, 7, "--answer", answer)
    assert proved.returncode == 0, proved.stderr
    proof.write_text(proved.stdout)
    image.write_text("image 7")
    alone = tmp_path / "auditor" / statement.FILE
    alone.parent.mkdir()
    shutil.copy(evidence, alone)
    shown = run("attest.verify", alone, "--key", public, "--proof", proof, "--image", image, "--answer", answer)
    assert shown.returncode == 0, shown.stderr
    assert "ok: query 7 is in the ledger" in shown.stdout
    assert "answer is its answer" in shown.stdout
    image.write_text("image 8")
    wrong = run("attest.verify", alone, "--key", public, "--proof", proof, "--image", image)
    assert wrong.returncode == 1
    assert "not the image of query 7" in wrong.stderr
    proof.write_text(proved.stdout.replace("200", "403"))
    assert "FAILED: proof: " in run("attest.verify", alone, "--key", public, "--proof", proof).stderr

    (folder / measured.ANSWERS).write_bytes(b"x" * 999)
    assert "no longer the one it was" in run("attest.prove", folder / measured.LEDGER, 7, "--answer", answer).stderr
    (folder / measured.FILE).write_text("{}")
    failed = run("attest.verify", evidence, "--key", public)
    assert failed.returncode == 1
    assert "FAILED" in failed.stderr
    assert "verdict" not in failed.stdout


def test_an_auditor_needs_none_of_our_code(signed: Signed, tmp_path: Path) -> None:
    """The page's own lines: OpenSSL, jq and coreutils over the files of a run."""
    (block,) = (body for _, body in blocks("docs/attest-evidence.md") if "openssl pkeyutl" in body)
    for name in (statement.FILE, measured.FILE, statement.REPORT):
        shutil.copy(signed.folder / name, tmp_path)
    shutil.copy(signed.folder.parent / "shop.mar", tmp_path)
    shutil.copy(keys.public_path(signed.key), tmp_path / "attest.pub.pem")

    def audit() -> subprocess.CompletedProcess[str]:
        call = ["bash", "-euo", "pipefail", "-c", block]
        return subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = audit()
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert {f"{name}: OK" for name in ("measured.json", "report.html", "shop.mar")} < set(done.stdout.splitlines())
    (tmp_path / measured.FILE).write_bytes((tmp_path / measured.FILE).read_bytes() + b" ")
    assert "measured.json: FAILED" in audit().stdout
    envelope = json.loads(signed.text)
    whole = json.loads(base64.b64decode(envelope["payload"])) | {"_type": "x"}
    changed = {**envelope, "payload": base64.b64encode(json.dumps(whole).encode()).decode()}
    (tmp_path / statement.FILE).write_text(json.dumps(changed))
    assert "Signature Verification Failure" in audit().stdout


def test_an_auditor_needs_no_torch() -> None:
    code = "import sys, attest.verify, attest.prove, attest.diff; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


DEEP = "[" * 100_000


def test_what_is_nested_without_end_is_refused(signed: Signed, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="evidence: not JSON"):
        statement.verified(DEEP.encode(), signed.public)
    text = statement.sign(DEEP.encode(), keys.private(signed.key))
    with pytest.raises(EvidenceError, match="its payload: not JSON"):
        statement.verified(text.encode(), signed.public)
    (tmp_path / "proof.json").write_text(DEEP)
    found = statement.verified(signed.text, signed.public)
    with pytest.raises(EvidenceError, match=r"proof\.json: not JSON"):
        list(verify.query(found, tmp_path / "proof.json", image=None, answer=None))


def test_a_signer_s_words_do_not_steer_the_terminal(signed: Signed, tmp_path: Path) -> None:
    whole = content(signed)
    whole["predicate"]["measured"]["target"]["name"] = "\x1b[2Jshop"
    (tmp_path / statement.FILE).write_bytes(again(signed, whole))
    done = run("attest.verify", tmp_path / statement.FILE, "--key", keys.public_path(signed.key))
    assert done.returncode == 0, done.stderr
    assert "target: ?[2Jshop" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_proof_of_another_attest_fails(signed: Signed, tmp_path: Path) -> None:
    """The same query of another campaign: an equal line alone proves nothing."""
    synthetic.ledger(tmp_path, LINES + 160)
    ledger = proofs.lines(tmp_path / measured.LEDGER)
    other = [line.replace(b"13:00", b"14:00") for line in ledger]
    (tmp_path / "proof.json").write_text(json.dumps(proofs.prove(other, 7)))
    found = statement.verified(signed.text, signed.public)
    with pytest.raises(EvidenceError, match="line 7 is not in the ledger of this evidence"):
        list(verify.query(found, tmp_path / "proof.json", image=None, answer=None))
