"""The self-test passes a service whose controls are all there, and fails one that lacks any of them."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from assurance.controls import read
from assurance.selftest.__main__ import UNSEEN
from report.rows.selftest import ABSENT, STOPPED, THROUGH, UNTRIED, WARNED
from tests.conftest import RECIPE, Smoke
from tests.e2e.conftest import run

pytestmark = pytest.mark.drill

POLICIES = ("edm", "label", "same-reject", "same-pow", "marked", "limited")


@dataclass(frozen=True)
class Examined:
    """A service's self-test: the command as it ended, and its findings."""

    done: subprocess.CompletedProcess[str]
    findings: list[dict[str, Any]]
    secrets: tuple[str, ...]

    def of(self, verdict: str) -> set[tuple[str, str]]:
        """Controls and models of the findings with this verdict."""
        return {(each["control"], each["model"]) for each in self.findings if each["verdict"] == verdict}


def examined(store: Path, folder: Path, *more: str | Path, gateway: bool = False) -> Examined:
    """Serve a store, test it, stop it."""
    instance = ("--instance", "selftest", "--run-folder", folder / "run")
    secrets = ("--secrets", folder / "secrets")
    models = [f"smoke-{policy}" for policy in POLICIES]
    where: list[str | Path] = []
    started = run("deploy.server", "start", *instance, "--store", store, "--free-ports", "--models", *models)
    try:
        assert started.returncode == 0, started.stderr
        if gateway:
            opened = run("deploy.gateway", "start", *instance, *secrets, "--free-ports")
            assert opened.returncode == 0, opened.stderr
            where = ["--gateway"]
        command = ("assurance.selftest", RECIPE, *instance, "--policies", *POLICIES, "--output", folder / "out.json")
        done = run(*command, *where, *more)
        keys = json.loads((folder / "run/selftest/key_file.json").read_text())
    finally:
        if gateway:
            left = run("deploy.gateway", "list", *instance, *secrets)
            run("deploy.gateway", "stop", *instance)
        stopped = run("deploy.server", "stop", *instance)
    assert stopped.returncode == 0, stopped.stderr
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert not gateway or left.stdout == "", "the key that was made for the test is left"
    findings = json.loads((folder / "out.json").read_text())["selftest"]
    return Examined(done, findings, tuple(entry["key"] for entry in keys.values()))


@pytest.fixture(scope="module")
def product(smoke: Smoke, gated: Smoke, limited: Smoke) -> Smoke:
    """The smoke product with an archive of every policy under test."""
    return smoke


@pytest.fixture(scope="module")
def whole(product: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Examined:
    return examined(product.store, tmp_path_factory.mktemp("whole"), gateway=True)


def test_a_service_with_all_its_controls_passes(whole: Examined) -> None:
    assert whole.of(THROUGH) == set(), whole.done.stdout
    assert whole.done.returncode == 0
    assert "let through" not in whole.done.stdout


def test_it_says_how_far_labels_name_the_members_of_edm(whole: Examined) -> None:
    (finding,) = [each for each in whole.findings if "to each member" in each["sent"]]
    assert finding["model"] == "smoke-edm"
    assert finding["verdict"] in (STOPPED, WARNED)
    share = int(finding["got"].split("%")[0])
    assert (share > 50) == (finding["verdict"] == WARNED)
    assert ("warning: diverse-members on smoke-edm" in whole.done.stdout) == (share > 50)


def test_every_control_of_the_threat_model_is_tried_or_has_a_reason(whole: Examined) -> None:
    controls = {each["control"] for each in whole.findings}
    assert controls | set(UNSEEN) == {removal.control for removal in read()}
    tried = {control for control, _ in whole.of(STOPPED)}
    assert not tried & set(UNSEEN)
    for control, model in (
        ("diverse-members", "smoke-edm"),
        ("fewer-answers", "smoke-label"),
        ("gate", "smoke-same-reject"),
        ("proof-of-work", "smoke-same-pow"),
        ("coarse-prices", "smoke-same-pow"),
        ("full-price", "smoke-same-pow"),
        ("marks", "smoke-marked"),
        ("limits", "smoke-limited"),
        ("limits-before-work", "smoke-limited"),
        ("gateway-shares", "(gateway)"),
    ):
        assert (control, model) in whole.of(STOPPED)


def test_what_does_not_apply_is_reported_with_a_reason_and_not_counted(whole: Examined) -> None:
    absent = [each for each in whole.findings if each["verdict"] in (ABSENT, UNTRIED)]
    assert ("limits", "smoke-edm") in whole.of(ABSENT)
    assert all(each["got"] for each in absent)
    stopped = sum(each["verdict"] == STOPPED for each in whole.findings)
    assert f"{stopped} of {stopped} tries were stopped, by " in whole.done.stdout


def test_the_report_holds_no_secret(whole: Examined, product: Smoke) -> None:
    output = whole.done.stdout + whole.done.stderr + json.dumps(whole.findings)
    for secret in (*whole.secrets, product.key_file.read_text().strip()):
        assert secret not in output


Change = Callable[[str], str]


def without(old: str, new: str) -> Change:
    """Take a control out of a file's text."""

    def change(text: str) -> str:
        assert text.count(old) == 1, f"{old!r} is not there once"
        return text.replace(old, new)

    return change


def setting(key: str, value: Any) -> Change:
    """Give the policy another value."""

    def change(text: str) -> str:
        config = yaml.safe_load(text)
        assert config["handler"][key] != value
        config["handler"][key] = value
        return yaml.safe_dump(config)

    return change


# by policy: what is changed in its archive, and the controls that must then be missed
BROKEN: dict[str, tuple[dict[str, Change], set[str]]] = {
    "limited": ({"model-config.yaml": setting("limits", None)}, {"limits", "limits-before-work"}),
    "label": ({"model-config.yaml": setting("response", {"rule": "soft"})}, {"fewer-answers"}),
    "same-reject": (
        {
            "handlers/batch.py": without("if decision == REJECT:", "if decision is None:"),
            "handler.py": without("for suspect in reply.suspects:", "for suspect in ():"),
        },
        {"gate"},
    ),
    "same-pow": (
        {
            "defenses/work.py": without("None if next(spent) else", "None if [next(spent)] else"),
            "handler.py": without("for suspect in reply.suspects:", "for suspect in ():"),
        },
        {"proof-of-work"},
    ),
    "marked": ({"defenses/mark.py": without('b"account/" + account.encode()', 'b"account/"')}, {"marks"}),
    "edm": (
        {
            "defenses/routing.py": without(
                "return self.table.take(self.hash(outputs))",
                "return np.zeros_like(self.table.take(self.hash(outputs)))",
            ),
            "handlers/rows.py": without("if rows > expects.max_rows:", "if rows < 0:"),
            "handler.py": without('== "True" and not message.body and not message.parts:', '== "True":'),
            "handlers/metrics.py": without(
                "self._add(self._errors, Counter(codes))", "self._add(self._errors, Counter())"
            ),
        },
        {"diverse-members", "bounded-input", "inert-headers", "counted"},
    ),
}


def rewritten(archive: Path, target: Path, changes: dict[str, Change]) -> None:
    """A copy of an archive with some members changed."""
    with zipfile.ZipFile(archive) as whole_, zipfile.ZipFile(target, "w") as broken:
        for member in whole_.namelist():
            content = whole_.read(member)
            if member in changes:
                content = changes[member](content.decode()).encode()
            broken.writestr(member, content)


@pytest.fixture(scope="module")
def broken(product: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Examined:
    folder = tmp_path_factory.mktemp("broken")
    store = folder / "store"
    store.mkdir()
    for policy, (changes, _) in BROKEN.items():
        rewritten(product.archive(policy), store / f"smoke-{policy}.mar", changes)
    return examined(store, folder)


def test_a_service_without_controls_fails_and_each_is_named(broken: Examined) -> None:
    assert broken.done.returncode == 1
    missed = broken.of(THROUGH)
    for policy, (_, controls) in BROKEN.items():
        assert {control for control, model in missed if model == f"smoke-{policy}"} == controls, broken.done.stdout
    assert {control for control, model in missed if model == "(server)"} == {"audit-log"}
    assert "let through" in broken.done.stdout


def test_what_is_left_of_a_broken_service_still_passes(broken: Examined) -> None:
    assert ("row-independence", "smoke-edm") in broken.of(STOPPED)
    assert ("closed-server", "(server)") in broken.of(STOPPED)
    assert ("gate", "smoke-same-pow") in broken.of(STOPPED)
