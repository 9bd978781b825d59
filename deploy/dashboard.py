"""The Grafana dashboard, from one table: what is shown, in which unit, by which queries.

    python -m deploy.dashboard      writes deploy/grafana/dashboards/torchwarden.json

A panel in Grafana's JSON is some forty lines, of which four matter. Those stand here. To add a panel: a line of
ROWS, this command, and both files are committed; tests/deploy/test_grafana.py compares them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUT = Path(__file__).with_name("grafana") / "dashboards" / "torchwarden.json"
# the data source's name in deploy/grafana/provisioning/datasources/torchwarden.yml
SOURCE = {"type": "prometheus", "uid": "torchwarden-prometheus"}
WIDTH, HEIGHT = 24, 8  # of the page and of a panel, in Grafana's units
OURS = 'instance=~"$instance", ModelName=~"$model"'
THEIRS = 'instance=~"$instance", model_name=~"$model"'


@dataclass(frozen=True)
class Panel:
    """queries: PromQL and how its series are called. unit: of Grafana's names. kind: of Grafana's panels."""

    title: str
    unit: str
    description: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    stacked: bool = False


ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel(
            "Live",
            "bool_yes_no",
            "Whether Java runs and every model answers (deploy.health). No: TorchwardenNotLive.",
            (("torchwarden_live", "{{instance}}"),),
            "stat",
        ),
        Panel(
            "Ready",
            "bool_yes_no",
            "Whether all workers of a model are READY and its golden prediction is right (deploy.health).",
            (('torchwarden_ready{model=~"$model"}', "{{model}}"),),
            "stat",
        ),
        Panel(
            "Workers",
            "short",
            "Workers by the state that TorchServe gives them, and how many the archive starts with.",
            (
                ('sum by (model, state) (torchwarden_workers{model=~"$model"})', "{{model}} {{state}}"),
                ('sum by (model) (torchwarden_workers_expected{model=~"$model"})', "{{model}} expected"),
            ),
        ),
        Panel(
            "Tokens end in",
            "s",
            "Until TorchServe's tokens end; then every request gets 400. TorchwardenTokenExpires comes 14 days before.",
            (("torchwarden_token_expiry_seconds - time()", "{{instance}} {{token}}"),),
            "stat",
        ),
    ),
    "Traffic": (
        Panel(
            "Requests",
            "reqps",
            "Requests a second, without those of deploy.health.",
            (('torchwarden:visits:rate5m{ModelName=~"$model"}', "{{ModelName}}"),),
        ),
        Panel(
            "Answers by status",
            "reqps",
            "Of TorchServe as a whole, management and health included. Refusals behind the gateway are 2xx here.",
            (
                ('sum(rate(Requests2XX{instance=~"$instance"}[$__rate_interval]))', "2xx"),
                ('sum(rate(Requests4XX{instance=~"$instance"}[$__rate_interval]))', "4xx"),
                ('sum(rate(Requests5XX{instance=~"$instance"}[$__rate_interval]))', "5xx"),
            ),
            stacked=True,
        ),
    ),
    "Decisions and scores": (
        Panel(
            "Rows by decision",
            "cps",
            "What became of rows. answer-open: passed because a stage failed and the policy is open.",
            (
                (
                    f"sum by (decision) (rate(torchwarden_rows_total{{{OURS}}}[$__rate_interval]))",
                    "{{decision}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Suspects",
            "percentunit",
            "Share of rows that the gate acts upon, and the share at which TorchwardenSuspects fires.",
            (
                ('torchwarden:suspects:ratio10m{ModelName=~"$model"}', "{{ModelName}}"),
                ('torchwarden:suspects:allowed{ModelName=~"$model"}', "{{ModelName}} alert"),
            ),
        ),
        Panel(
            "Scores by tail probability",
            "cps",
            "Rows by the band of their score's tail probability: of benign rows, a share t scores in bands up to t.",
            ((f"sum by (tail) (rate(torchwarden_scores_total{{{OURS}}}[$__rate_interval]))", "{{tail}}"),),
            stacked=True,
        ),
        Panel(
            "Scores in the lowest hundredth",
            "percentunit",
            "Share of scores with a tail probability of at most 0.01, within an hour. Benign traffic has 1 %.",
            (('torchwarden:scores_low:ratio1h{ModelName=~"$model"}', "{{ModelName}}"),),
        ),
    ),
    "Members and work": (
        Panel(
            "Rows by member",
            "percentunit",
            "Share of rows that each graph answered, within 30 minutes. A secret hash spreads them.",
            (('torchwarden:member_share:ratio30m{ModelName=~"$model"}', "{{ModelName}} {{member}}"),),
            stacked=True,
        ),
        Panel(
            "Proofs of work",
            "cps",
            "Challenges issued; solutions solved, expired, replayed, invalid.",
            (('sum by (event) (torchwarden:work:rate5m{ModelName=~"$model"})', "{{event}}"),),
        ),
    ),
    "Limits and audit": (
        Panel(
            "Rows over a limit",
            "cps",
            "By the limit they met: of one principal, of all in total; unchecked passed because the store failed.",
            (
                (
                    f"sum by (limit) (rate(torchwarden_limited_rows_total{{{OURS}}}[$__rate_interval]))",
                    "{{limit}}",
                ),
            ),
        ),
        Panel(
            "Budgets of accounts",
            "cps",
            "Accounts whose budget is spent; rows by what that made of them; unchecked: the store failed.",
            ((f"sum by (event) (rate(torchwarden_budget_total{{{OURS}}}[$__rate_interval]))", "{{event}}"),),
        ),
        Panel(
            "Audit lines",
            "cps",
            "Lines of the audit log, written and failed.",
            ((f"sum by (event) (rate(torchwarden_audit_total{{{OURS}}}[$__rate_interval]))", "{{event}}"),),
        ),
    ),
    "Latency": (
        Panel(
            "Batch",
            "s",
            "Seconds that the handler took on a batch, all stages together: median and the slowest hundredth.",
            (
                ('torchwarden:handle_seconds:p99_5m{ModelName=~"$model"}', "{{ModelName}} 99 %"),
                (
                    "histogram_quantile(0.5, sum by (ModelName, le) "
                    f'(rate(torchwarden_stage_seconds_bucket{{{OURS}, stage="handle"}}[$__rate_interval])))',
                    "{{ModelName}} 50 %",
                ),
            ),
        ),
        Panel(
            "Stages",
            "s",
            "Mean seconds of each stage on a batch.",
            (
                (
                    f'sum by (stage) (rate(torchwarden_stage_seconds_sum{{{OURS}, stage!="handle"}}[$__rate_interval]))'
                    " / sum by (stage) "
                    f'(rate(torchwarden_stage_seconds_count{{{OURS}, stage!="handle"}}[$__rate_interval]))',
                    "{{stage}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Queue",
            "s",
            "Mean seconds that a request waits for a worker, batch delay included.",
            (('torchwarden:queue_seconds:mean5m{ModelName=~"$model"}', "{{ModelName}}"),),
        ),
        Panel(
            "Request in TorchServe",
            "s",
            "Mean seconds from a request's arrival at TorchServe to its answer; and the last golden prediction.",
            (
                (
                    f"sum by (model_name) (rate(ts_inference_latency_microseconds{{{THEIRS}}}[$__rate_interval])) / 1e6"
                    f" / sum by (model_name) (rate(ts_inference_requests_total{{{THEIRS}}}[$__rate_interval]))",
                    "{{model_name}}",
                ),
                ('torchwarden_probe_seconds{model=~"$model"}', "{{model}} golden"),
            ),
        ),
    ),
    "Errors": (
        Panel(
            "Errors by code",
            "cps",
            "Rows and requests that were refused, by the code in the response.",
            ((f"sum by (code) (rate(torchwarden_errors_total{{{OURS}}}[$__rate_interval]))", "{{code}}"),),
            stacked=True,
        ),
        Panel(
            "Share of 5xx",
            "percentunit",
            "5xx of all inference requests within 5 minutes; TorchwardenServerErrors fires at 1 %.",
            (('torchwarden:failed:ratio5m{instance=~"$instance"}', "{{instance}}"),),
        ),
    ),
}


def main() -> None:
    """Write the dashboard."""
    temporary = OUT.with_suffix(".tmp")
    temporary.write_text(text(), encoding="utf-8")
    temporary.replace(OUT)
    print(f"wrote {OUT}")


def text() -> str:
    """The dashboard's JSON."""
    return json.dumps(dashboard(), indent=1) + "\n"


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
            }
        )
        width = WIDTH // len(row)
        for place, panel in enumerate(row):
            position = {"x": place * width, "y": top + 1, "w": width, "h": HEIGHT}
            panels.append(_panel(panel, len(panels) + 1, position))
        top += 1 + HEIGHT
    return {
        "uid": "torchwarden",
        "title": "TorchWarden",
        "description": "What the service answers, refuses and costs. What to do: docs/operations.md.",
        "tags": ["torchwarden"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                _variable("instance", 'label_values(up{job="torchwarden"}, instance)'),
                _variable("model", 'label_values(torchwarden_stage_seconds_count{instance=~"$instance"}, ModelName)'),
            ]
        },
        "panels": panels,
    }


def _panel(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none"}
        defaults["custom"] = {"fillOpacity": 20 if panel.stacked else 0, "stacking": stacking}
        options["tooltip"] = {"mode": "multi", "sort": "desc"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


if __name__ == "__main__":
    main()
