"""The dashboard follows its table, queries metrics that exist, and uses one data source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import dashboard
from tests.deploy.promql import ROOT, known, named, promtool

GRAFANA = ROOT / "deploy" / "grafana"
UNITS = {"bool_yes_no", "cps", "percentunit", "reqps", "s", "short"}  # of Grafana's own names, those in use
BOARD: dict[str, Any] = json.loads(dashboard.OUT.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Every query, with Grafana's variables filled in as it would."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield filled(target["expr"])


def filled(expression: str) -> str:
    for variable, value in (("$__rate_interval", "1m"), ("$instance", ".*"), ("$model", ".*")):
        expression = expression.replace(variable, value)
    return expression


def test_the_committed_dashboard_is_the_tables() -> None:
    assert dashboard.OUT.read_text() == dashboard.text(), "run `python -m deploy.dashboard` and commit what it writes"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)
    assert all(target["legendFormat"] for target in panel["targets"])


def test_ids_are_unique_and_panels_do_not_overlap() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= dashboard.WIDTH
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells


def test_every_part_of_the_service_is_shown() -> None:
    seen = set().union(*map(named, expressions()))
    for part in ("rows", "scores", "limited_rows", "errors", "audit"):
        assert f"torchwarden_{part}_total" in seen
    assert {"torchwarden_ready", "torchwarden:visits:rate5m", "torchwarden:member_share:ratio30m"} <= seen
    assert {"torchwarden:work:rate5m", "torchwarden:handle_seconds:p99_5m", "torchwarden:queue_seconds:mean5m"} <= seen


def test_every_metric_exists_and_prometheus_reads_every_query(tmp_path: Path) -> None:
    every = list(expressions())
    for expression in every:
        assert "$" not in expression
        assert named(expression)
        assert named(expression) <= known(), expression
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(every)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(every)} rules found" in done.stdout


def test_all_speak_of_the_provisioned_data_source() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/torchwarden.yml").read_text())["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    queries = [target for panel in PANELS for target in panel["targets"]]
    for each in (*PANELS, *queries, *BOARD["templating"]["list"]):
        assert each["datasource"] == wanted


def test_variables_are_those_that_queries_use() -> None:
    names = {variable["name"] for variable in BOARD["templating"]["list"]}
    used = json.dumps([target["expr"] for panel in PANELS for target in panel["targets"]])
    assert names == {"instance", "model"}
    assert all(f"${name}" in used for name in names)
    for variable in BOARD["templating"]["list"]:
        asked = variable["query"]["query"].removeprefix("label_values(").partition(", ")[0]
        assert named(asked.replace("$instance", "")) <= known()


def test_the_provider_knows_where_the_dashboards_are() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/torchwarden.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")
    assert [path.name for path in (GRAFANA / "dashboards").iterdir()] == ["torchwarden.json"]
