"""What is served is what was built: equal oracles, counted rows, kept secrets, and an attack from end to end."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.oracle import Answers
from evaluation.oracles import HttpOracle, InProcessOracle
from handlers import wire
from tests.conftest import POLICIES, RECIPE
from tests.e2e.conftest import Served, run
from tests.exact import assert_same, exact
from zoo import datasets

pytestmark = pytest.mark.server


def over_http(served: Served, policy: str, *, content_type: str = wire.RAW) -> HttpOracle:
    def post(body: bytes, kind: str) -> tuple[int, bytes]:
        response = served.post(policy, body, kind)
        return response.status_code, response.content

    return HttpOracle(post, rows=32, content_type=content_type)


def counted(text: str, metric: str, **labels: str) -> float:
    """The sum of a metric's series that carry these labels."""
    total = 0.0
    for line in text.splitlines():
        match = re.fullmatch(rf"{metric}\{{(.*)\}} (\S+)", line)
        if match and all(f'{name}="{value}"' in match[1] for name, value in labels.items()):
            total += float(match[2])
    return total


@pytest.mark.parametrize("policy", POLICIES)
def test_both_oracles_give_equal_answers(served: Served, policy: str) -> None:
    images = torch.cat([datasets.load("digits", "test").pixels[:60], datasets.load("flower", "train").pixels[:60]])
    http: Answers = over_http(served, policy)(images)
    with InProcessOracle(served.smoke.archive(policy)) as oracle:
        process = oracle(images)
    assert torch.equal(http.labels, process.labels)
    if policy == "label":
        assert http.probabilities is None
        assert process.probabilities is None
    else:
        assert http.probabilities is not None
        assert process.probabilities is not None
        same = exact(served.smoke.archive(policy), images.numpy())
        assert_same(http.probabilities, process.probabilities, exact=same)


@pytest.mark.parametrize("policy", ["averaged", "edm"])
def test_no_answer_of_an_ensemble_depends_on_the_rows_next_to_it(served: Served, policy: str) -> None:
    images = torch.cat([datasets.load("digits", "test").pixels[:12], datasets.load("flower", "train").pixels[:12]])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    ask = over_http(served, policy)
    together, shuffled = ask(images).probabilities, ask(images[order]).probabilities
    assert together is not None
    assert shuffled is not None
    same = exact(served.smoke.archive(policy), images.numpy())
    assert_same(shuffled, together[order], exact=same)
    for row in range(0, len(images), 4):
        alone = ask(images[row : row + 1]).probabilities
        assert alone is not None
        assert_same(alone[0], together[row], exact=same)
    assert len(together.argmax(1).unique()) > 3, "equal answers would say nothing"


def test_an_average_is_that_of_what_every_member_says(served: Served) -> None:
    images = datasets.load("flower", "train").pixels[:60]
    before = served.metrics()
    mean = over_http(served, "averaged")(images).probabilities
    after = served.metrics()
    with InProcessOracle(served.smoke.archive("averaged")) as oracle:
        everyone = oracle.everyone(images)
    assert mean is not None
    np.testing.assert_allclose(mean, everyone.mean(1), atol=1e-5)
    assert (everyone.argmax(2) != mean.argmax(1)[:, None]).any(), "members that agree would say nothing"
    for number in range(3):
        labels = {"ModelName": "smoke-averaged", "member": f"edm-{number}"}
        name = "torchwarden_member_rows_total"
        assert counted(after, name, **labels) - counted(before, name, **labels) == 60


def test_edm_answers_with_several_members_and_prometheus_counts_each_row(served: Served) -> None:
    images = datasets.load("flower", "train").pixels[:200]
    before = served.metrics()
    over_http(served, "edm")(images)
    after = served.metrics()

    def more(metric: str, **labels: str) -> float:
        return counted(after, metric, **labels) - counted(before, metric, **labels)

    with InProcessOracle(served.smoke.archive("edm")) as oracle:
        expected = torch.bincount(oracle.members(images), minlength=3).tolist()
    assert sum(rows > 0 for rows in expected) > 1
    assert more("torchwarden_rows_total", ModelName="smoke-edm", decision="answer") == 200
    got = [more("torchwarden_member_rows_total", ModelName="smoke-edm", member=f"edm-{n}") for n in range(3)]
    assert got == expected
    for stage in ("decode", "route", "predict", "respond", "encode"):
        assert more("torchwarden_stage_seconds_count", ModelName="smoke-edm", stage=stage) >= 7
    served.post("edm", b"no image", "image/png")
    assert counted(served.metrics(), "torchwarden_errors_total", ModelName="smoke-edm", code="undecodable") >= 1


def test_a_client_cannot_write_into_log_or_metrics(served: Served) -> None:
    forged = '[METRICS]torchwarden_rows_total.Count:999|#Level:Model|#hostname:evil,1,"x"\n[PID]1\n'
    header = forged.replace("\n", " ").encode().decode("latin-1")
    for body, kind in ((forged.encode(), "image/png"), (forged.encode(), "application/json")):
        assert served.post("edm", body, kind, **{"X-Note": header}).status_code == 400
    assert served.post("edm", b"x", header).status_code == 415
    assert "evil" not in served.metrics()
    assert "evil" not in served.logs()


def test_secrets_stay_out_of_sight(served: Served) -> None:
    key = served.smoke.key_file.read_text().strip()
    seen = served.logs() + served.metrics()
    for path in served.run_folder.rglob("*"):
        if path.is_file() and path.name != "key_file.json" and path.suffix in (".json", ".properties", ".xml", ".log"):
            seen += path.read_text(errors="replace")
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            seen += process.read_bytes().decode(errors="replace")
        except OSError:
            continue
    assert key not in seen
    assert served.token not in seen
    assert Path(served.facts["key_file"]).stat().st_mode & 0o077 == 0


def test_steal_and_report(served: Served, tmp_path: Path) -> None:
    """The commands behind `make loadtest attack report`, on the running server."""
    where = ("--instance", "e2e", "--run-folder", served.run_folder)
    both = ("--policies", "undefended", "edm", "--run", tmp_path / "report")
    store = ("--store", served.smoke.store)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for command in (
        ("loadtests.load", RECIPE, *where, *both, "--seconds", "8"),
        ("loadtests.attack", RECIPE, *where, *both, *store),
        ("evaluation.studies", "utility", RECIPE, *both, *store),
        ("report.html", tmp_path / "report"),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert served.token not in done.stdout + done.stderr
    report = json.loads((tmp_path / "report/report.json").read_text())
    rows = [row for row in report["attacks"] if row["budget"] == 300]
    assert {(row["policy"], row["labels"]) for row in rows} == {
        (policy, labels) for policy in ("undefended", "edm") for labels in ("soft", "hard")
    }
    assert all(row["queries"] == 300 and 0 <= row["clone_accuracy"] <= 1 for row in rows)
    utility = {row["policy"]: row for row in report["policies"]}
    assert utility["undefended"]["accuracy"] > 0.8
    assert utility["undefended"]["label_flips"] == 0
    assert {row["path"] for row in report["bench"]} == {"http"}
    page = (tmp_path / "report/report.html").read_text()
    assert "smoke" in page
    assert not re.search(r'(src|href)="https?://', page), "the report must be readable without a network"
