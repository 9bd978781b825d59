"""A real Prometheus and a real TorchServe: what is scraped can be read, and every rule and panel has its data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from altcha import Challenge, Payload, solve_challenge
from prometheus_client.parser import text_string_to_metric_families

from bench.redis_server import free_port
from handlers import wire
from tests.conftest import Smoke
from tests.deploy.promql import PROMETHEUS, alerts, promtool, rules, tool
from tests.deploy.test_grafana import expressions
from tests.e2e.conftest import CHECKOUT, Served, run
from zoo import datasets

pytestmark = pytest.mark.server

SERVED = ("edm", "same-reject", "same-pow", "limited")
# What this traffic makes no event of. Their counters are not there, and a query of them finds nothing.
UNSEEN = {
    "torchwarden:failed:ratio5m",
    "torchwarden:failed:increase5m",
    "torchwarden:opened:increase5m",
    "torchwarden:budget:increase5m",  # no policy of SERVED has one; tests/handlers/test_budgets.py counts its events
}
# of panels, what is in their expressions
EMPTY = ("Requests5XX", "failed:ratio5m", "torchwarden_budget_total")
PATIENCE = 120.0


@dataclass(frozen=True)
class Watched:
    """An instance, its health, and the Prometheus that scrapes both."""

    served: Served
    health: str
    prometheus: str

    def ask(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"{self.prometheus}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return list(self.ask("query", query=expression)["result"])


def config(folder: Path, metrics: str, health: str) -> Path:
    """The committed configuration, with this test's addresses and a second instead of its quarter of a minute."""
    given = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    given["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s")
    given["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    del given["alerting"]
    targets = [{"targets": [at], "labels": {"kind": kind}} for kind, at in (("server", metrics), ("health", health))]
    (folder / "targets.yml").write_text(yaml.safe_dump(targets))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(given))
    return path


@pytest.fixture(scope="module")
def watched(smoke: Smoke, gated: Smoke, limited: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("operations")
    instance = ("--instance", "e2e", "--run-folder", str(folder / "run"))
    models = [f"smoke-{policy}" for policy in SERVED]
    started = run("deploy.server", "start", *instance, "--store", smoke.store, "--free-ports", "--models", *models)
    running: list[subprocess.Popen[bytes]] = []
    try:
        assert started.returncode == 0, started.stderr
        served = Served(smoke, folder / "run", json.loads((folder / "run/e2e/server.json").read_text()))
        health, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(2))
        metrics = served.facts["metrics"].removeprefix("http://")
        looking = [sys.executable, "-m", "deploy.health", *instance, "--listen", health, "--every", "1"]
        running.append(subprocess.Popen(looking, cwd=CHECKOUT, stderr=subprocess.DEVNULL))
        scraping = [
            *(tool("prometheus"), f"--config.file={config(folder, metrics, health)}"),
            *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={prometheus}", "--log.level=error"),
        ]
        running.append(subprocess.Popen(scraping, stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}))
        yield Watched(served, f"http://{health}", f"http://{prometheus}")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)
        stopped = run("deploy.server", "stop", *instance)
    assert stopped.returncode == 0, stopped.stderr


def pixels(name: str, split: str, rows: slice) -> np.ndarray:
    return datasets.load(name, split).pixels[rows].numpy().astype("<f4")


def ask(served: Served, policy: str, images: np.ndarray, **headers: str) -> requests.Response:
    return served.post(policy, images.tobytes(), wire.RAW, **headers)


def pay(served: Served, images: np.ndarray) -> str:
    """Have `images` charged; returns what pays for them."""
    challenge = Challenge.from_dict(ask(served, "same-pow", images).json()["challenge"])
    solution = solve_challenge(challenge)
    assert solution is not None
    return str(Payload(challenge, solution).to_base64())


def traffic(served: Served, round_: int) -> None:
    """Customers, attackers, one who pays once and tries twice, one who asks too much, one who sends rubbish."""
    some = slice(8 * round_, 8 * round_ + 8)
    benign, strange = pixels("digits", "test", some), pixels("flower", "train", some)
    for policy in ("edm", "same-reject", "same-pow"):
        assert ask(served, policy, benign).status_code in (200, 428)
        assert ask(served, policy, strange).status_code in (200, 403, 428)
        assert served.post(policy, b"no image", "image/png").status_code == 400
    solution = pay(served, strange)
    assert ask(served, "same-pow", strange, **{wire.SOLUTION: solution}).status_code == 200
    assert ask(served, "same-pow", strange, **{wire.SOLUTION: solution}).status_code == 403
    for _ in range(5):
        ask(served, "limited", np.repeat(benign, 2, axis=0), **{"Torchwarden-Principal": "greedy"})


@pytest.fixture(scope="module")
def scraped(watched: Watched) -> Watched:
    """The same after some seconds of traffic, when the rules have been evaluated."""
    deadline = time.monotonic() + PATIENCE
    for round_ in range(40):
        traffic(watched.served, round_ % 8)
        try:
            if (
                round_ > 4
                and watched.query("torchwarden:suspects:ratio10m > 0")
                and watched.query('torchwarden:limited:increase5m{limit="principal"} > 0')
                # it wants a hundred rows that were judged, which a quick machine asks before the first scrape
                and watched.query(alerts()["TorchwardenSuspects"]["expr"])
            ):
                break
        except requests.ConnectionError:
            pass  # it has not come up yet
        assert time.monotonic() < deadline, "Prometheus has seen nothing"
        time.sleep(0.5)
    time.sleep(1.5)  # rules that read what other rules recorded
    return watched


def test_every_line_of_both_endpoints_can_be_read(scraped: Watched) -> None:
    for text, wanted in (
        (scraped.served.metrics(), {"torchwarden_rows", "torchwarden_stage_seconds", "torchwarden_limited_rows"}),
        (requests.get(f"{scraped.health}/metrics", timeout=5).text, {"torchwarden_ready", "torchwarden_probes"}),
    ):
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert wanted <= set(families)
        samples = sum(len(family.samples) for family in families.values())
        assert samples == sum(1 for line in text.splitlines() if line and not line.startswith("#"))
    assert promtool("check", "metrics", stdin=text).returncode == 0


def test_both_targets_are_scraped(scraped: Watched) -> None:
    assert {each["labels"]["job"]: each["health"] for each in scraped.ask("targets")["activeTargets"]} == {
        "torchwarden": "up",
        "torchwarden-health": "up",
    }
    (kept,) = scraped.query('count(up{kind=~".+"}) or vector(0)')
    assert kept["value"][1] == "0", "the label that distinguishes targets is no series' own"


def test_every_rule_is_evaluated_and_every_signal_has_data(scraped: Watched) -> None:
    found = [rule for group in scraped.ask("rules")["groups"] for rule in group["rules"]]
    assert len(found) == len(rules())
    assert [rule["name"] for rule in found if rule["health"] != "ok"] == []
    records = [rule["name"] for rule in found if rule["type"] == "recording"]
    empty = {name for name in records if not scraped.query(name)}
    assert empty <= UNSEEN, empty


def test_every_panel_has_data(scraped: Watched) -> None:
    empty = [each for each in expressions() if not scraped.query(each)]
    assert [each for each in empty if not any(name in each for name in EMPTY)] == []
    assert len(empty) <= len(EMPTY)


def test_healthy_traffic_wakes_nobody_and_the_attacker_is_seen(scraped: Watched) -> None:
    """Alerts wait for minutes before they fire; their conditions hold at once."""
    held = {name for name, alert in alerts().items() if scraped.query(alert["expr"])}
    assert {"TorchwardenSuspects", "TorchwardenPrincipalLimited"} <= held
    # what this traffic may come to, and what a busy machine may
    wanted = {"TorchwardenSolutionsRefused", "TorchwardenBadRequests", "TorchwardenTotalLimited"}
    slow = {"TorchwardenSlow", "TorchwardenQueueing"}
    assert held - {"TorchwardenSuspects", "TorchwardenPrincipalLimited"} <= wanted | slow


def test_what_was_counted_is_what_was_done(scraped: Watched) -> None:
    def value(expression: str) -> float:
        (sample,) = scraped.query(expression)
        return float(sample["value"][1])

    assert value('sum(torchwarden_rows_total{ModelName="smoke-same-reject", decision="reject"})') > 8
    assert value('sum(torchwarden_work_total{event="solved"})') == value(
        'sum(torchwarden_work_total{event="replayed"})'
    )
    assert value("min(torchwarden_ready)") == value("torchwarden_live") == 1
    assert value('torchwarden_members{model="smoke-edm"}') == 3
    assert value('torchwarden_calibrated_rate{model="smoke-same-pow"}') == 0.01
    assert value('torchwarden:suspects:allowed{ModelName="smoke-same-pow"}') == 0.05
    assert value('sum(torchwarden_probes_total{outcome="wrong"})') == 0
