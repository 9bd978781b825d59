"""The rules are what Prometheus takes, name what there is, and every alert fires when it must and not otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from defenses import gate
from deploy import health, ports, settings
from handlers.errors import RequestError
from handlers.metrics import REFUSALS, TAILS
from tests.deploy.promql import PROMETHEUS, ROOT, alerts, known, named, promtool, rules, sections

TESTS = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", PROMETHEUS / "alerts.yml"),
        ("check", "config", PROMETHEUS / "prometheus.yml"),
        ("test", "rules", PROMETHEUS / "alerts.test.yml"),
    ],
)
def test_prometheus_own_tool_is_content(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tool_is_not_content_with_everything(tmp_path: Path) -> None:
    """An alert that cannot fire fails its test."""
    for name in ("alerts.yml", "alerts.test.yml"):
        (tmp_path / name).write_text((PROMETHEUS / name).read_text().replace("ratio5m > 0.01", "ratio5m > 0.5"))
    done = promtool("test", "rules", tmp_path / "alerts.test.yml")
    assert done.returncode != 0
    assert "TorchwardenServerErrors" in done.stdout + done.stderr


@pytest.mark.parametrize("name", alerts())
def test_an_alert_is_tested_to_fire_and_to_stay_silent(name: str) -> None:
    fires = silent = False
    for test in TESTS:
        for asked in test["promql_expr_test"]:
            pattern = re.search(r'alertname=~?"([^"]*)"', asked["expr"])
            about = re.fullmatch(pattern[1], name) is not None if pattern else True
            listed = [sample["labels"] for sample in asked.get("exp_samples", [])]
            fires = fires or any(f'alertname="{name}"' in labels and '"firing"' in labels for labels in listed)
            # a query that only asks for firing alerts is passed by a pending one too: that one is silent as well
            silent = silent or (about and not any(f'alertname="{name}"' in labels for labels in listed))
    assert fires, f"alerts.test.yml: nothing expects {name} to fire"
    assert silent, f"alerts.test.yml: nothing expects {name} to stay silent"


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_what_and_where_to_read(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    words = alert["annotations"]
    assert set(words) == {"summary", "description", "runbook_url"}
    assert not words["summary"].endswith(".")
    assert "$value" in words["description"]
    assert words["runbook_url"] == f"docs/{sections()[name][0]}#{name.lower()}"


def test_every_metric_in_the_rules_exists() -> None:
    for rule in rules():
        names = named(rule["expr"])
        assert names, rule
        assert names <= known(), rule


def test_names_are_found_in_an_expression() -> None:
    text = 'sum by (a) (rate(b_total{c="d e", f=~"g"}[5m])) / on (h) group_left (i) k:l:m5 and up offset 5m == 1e6'
    assert named(text) == {"b_total", "k:l:m5", "up"}
    assert named("absent(x) or clamp_min(y - on (z) w, 0)") == {"x", "y", "w"}


def expression(record: str) -> str:
    (found,) = [rule["expr"] for rule in rules() if rule.get("record") == record]
    return str(found)


def choices(text: str, label: str) -> set[str]:
    """What a regular expression of a matcher on `label` lists."""
    (found,) = re.findall(rf'{label}=~"([^"]*)"', text)
    return set(found.split("|"))


def test_the_lowest_scores_are_all_bands_up_to_a_hundredth() -> None:
    assert choices(expression("torchwarden:scores_low:ratio1h"), "tail") == {
        f"{each:g}" for each in TAILS if each <= 0.01
    }


def test_suspects_are_what_the_gate_acts_upon() -> None:
    assert choices(expression("torchwarden:suspects:ratio10m"), "decision") == set(gate.ACTIONS)
    assert f'decision!="{gate.PAID}"' in expression("torchwarden:judged:increase10m")
    assert f'decision="{gate.ANSWER_OPEN}"' in expression("torchwarden:opened:increase5m")


def test_solutions_that_are_refused_are_all_watched() -> None:
    watched = choices(alerts()["TorchwardenSolutionsRefused"]["expr"].partition("/")[0], "event")
    assert watched | {"expired"} == set(REFUSALS.values())


def errors(kind: type[RequestError] = RequestError) -> Iterator[type[RequestError]]:
    for each in kind.__subclasses__():
        yield each
        yield from errors(each)


def test_every_error_that_a_client_can_correct_is_a_bad_request() -> None:
    listed = {each.code for each in errors() if each.__dict__.get("code") and each.status in (400, 413, 415)}
    assert choices(alerts()["TorchwardenBadRequests"]["expr"], "code") == listed


def test_codes_with_an_alert_of_their_own_exist() -> None:
    codes = {each.code for each in errors() if each.__dict__.get("code")}
    watched = {found[1] for alert in alerts().values() if (found := re.search(r'code="(\w+)"', alert["expr"]))}
    assert watched == {"store_failed", "stage_failed", "internal"}
    assert watched <= codes


def test_targets_are_where_the_settings_say() -> None:
    given = settings.read(ROOT / "config.properties")
    (metrics,) = [each for each in ports.read(given) if each.name == "metrics"]
    targets = yaml.safe_load((PROMETHEUS / "targets.yml").read_text())
    assert {each["labels"]["kind"]: each["targets"] for each in targets} == {
        "server": [f"{metrics.host}:{metrics.port}"],
        "health": [health.listen_at()],
    }
