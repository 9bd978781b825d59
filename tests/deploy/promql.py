"""What tests of rules, dashboard and runbook share: Prometheus' own tools, and which metrics an expression names."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deploy import health

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOK = tuple(ROOT / "docs" / name for name in ("operations.md", "alerts.md", "incidents.md"))
INSTALL = "the tests need Debian's prometheus: apt-get install prometheus"
WORDS = {"by", "on", "without", "ignoring", "group_left", "group_right", "and", "or", "unless", "offset", "bool"}
SUFFIXES = ("_bucket", "_sum", "_count")


def tool(name: str) -> str:
    """The path of prometheus or promtool."""
    found = shutil.which(name)
    assert found, INSTALL
    return found


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [tool("promtool"), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)


@cache
def rules() -> list[dict[str, Any]]:
    """Every rule of alerts.yml."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerting rules by their names."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@cache
def sections() -> dict[str, tuple[str, str]]:
    """By alert, the runbook's page and section of its name."""
    return {
        name: (page.name, text)
        for page in RUNBOOK
        for name, text in re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    }


@cache
def known() -> set[str]:
    """Every series there is: TorchServe's and ours, those of deploy.health, recorded ones, other programs'."""
    found = (
        {"up", "ALERTS", "nginx_up"} | set(health.METRICS) | {rule["record"] for rule in rules() if "record" in rule}
    )
    for kinds in yaml.safe_load((ROOT / "deploy/metrics.yaml").read_text()).values():
        for kind, metrics in kinds.items():
            for metric in metrics:
                found |= {metric["name"]} | (
                    {metric["name"] + end for end in SUFFIXES} if kind == "histogram" else set()
                )
    return found


def named(expression: str) -> set[str]:
    """The metrics that an expression names: what is left without texts, matchers, ranges, labels and functions."""
    left = re.sub(r'"[^"]*"', "", expression)
    left = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", left)
    left = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", "", left)
    names = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])", left)
    return {name for name in names if name not in WORDS}
