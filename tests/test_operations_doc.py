"""The runbook (three pages) covers every alert, and what it asks an operator to run, open and query exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.watch import Timing
from handlers import audit, store
from handlers.errors import RequestError
from tests.deploy.promql import ROOT, RUNBOOK, alerts, known, named, promtool, sections
from tests.pages import MAKE

PAGES = {path.name: path.read_text(encoding="utf-8") for path in RUNBOOK}
TEXT = "\n".join(PAGES.values())
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
QUERIES = [line for block in re.findall(r"```promql\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
# `...` in prose, and commands
CODE = re.findall(r"`([^`\n]+)`", PROSE)
COMMANDS = [line.partition("  #")[0].strip() for line in SHELL.splitlines()]
# what a shell or Debian has, and the tools of the programs that the page names
TOOLS = {
    "cat",
    "cp",
    "curl",
    "date",
    "df",
    "dmesg",
    "du",
    "export",
    "grep",
    "head",
    "jq",
    "ls",
    "openssl",
    "prometheus",
} | {*("promtool", "redis-cli", "sha256sum", "sort", "tail", "timedatectl", "uniq", "wc", "make", "python")}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_has_a_section_that_says_what_to_do(name: str) -> None:
    assert name in sections(), f"docs/alerts.md or docs/incidents.md: expected a section `### {name}`"
    parts = re.findall(r"^\*\*(.+?)\.\*\*", sections()[name][1], re.MULTILINE)
    assert parts == ["Means", "Look", "Do", "Do not"]


def test_there_is_no_section_of_an_alert_that_is_not() -> None:
    assert set(sections()) == set(alerts())


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_read_in_one_go(page: str) -> None:
    assert len(PAGES[page].splitlines()) <= 400


def modules() -> list[tuple[str, str | None]]:
    """Each `python -m MODULE` of the page, with the word behind it where that is a command of the module's."""
    found = re.findall(r"python -m ([\w.]+)(?: ([a-z]+)\b)?", SHELL + "\n" + "\n".join(CODE))
    return sorted({(module, word or None) for module, word in found}, key=str)


@pytest.mark.parametrize(("module", "word"), modules())
def test_a_module_runs_and_knows_its_command(module: str, word: str | None) -> None:
    path = ROOT / module.replace(".", "/")
    files = sorted(path.glob("*.py")) if (path / "__main__.py").is_file() else [path.with_suffix(".py")]
    assert files[0].is_file(), f"python -m {module}: no such module"
    if word is not None and any("add_subparsers" in file.read_text() for file in files):
        command = [sys.executable, "-m", module, word, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr


def test_make_targets_exist() -> None:
    makefile = MAKE
    asked = {
        word
        for words in re.findall(r"\bmake((?: +[A-Za-z-]+(?:=\S+)?)+)", "\n".join(COMMANDS + CODE))
        for word in words.split()
        if "=" not in word
    }
    assert asked
    for target in asked:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def test_commands_are_known() -> None:
    bare = [re.sub(r'"(\\"|[^"])*"', "", line) for line in COMMANDS if line]
    assert {part.split()[0] for line in bare for part in line.split(" | ")} <= TOOLS


def test_what_it_looks_for_in_the_log_is_what_the_handler_says() -> None:
    code = "".join(path.read_text() for path in (ROOT / "handlers").glob("*.py"))
    asked = {word for line in COMMANDS for word in re.findall(r'^grep "([^"]+)" run/default/logs', line)}
    assert asked == {"store:", "rows failed", "could not be decoded", "audit:"}
    assert all(word in code for word in asked)


def test_fields_of_logs_are_those_that_are_written() -> None:
    """jq finds nothing, and says nothing, where a field has another name."""
    sources = {
        "run/default.audit.": "".join(path.read_text() for path in (ROOT / "handlers").glob("*.py")),
        "run/default.gateway/logs/access.log": (ROOT / "deploy/nginx/nginx.conf.in").read_text(),
    }
    for line in COMMANDS:
        for log, source in sources.items():
            if "jq " in line and log in line:
                fields = re.findall(r"(?<![\w/])\.([a-z]+)\b", line.partition("jq ")[2].replace(log, ""))
                assert fields, line
                assert all(f'"{field}":' in source for field in fields), line


def test_figures_are_those_of_the_code() -> None:
    timing = Timing()
    assert (timing.every, timing.fresh, timing.silent, timing.starting) == (5, 20, 60, 300)
    assert "looks every five seconds" in TEXT
    assert "older than 20 seconds" in TEXT
    assert "within a minute, or the server started less than five minutes ago" in TEXT
    assert (audit.LARGEST, audit.KEPT) == (64 * 2**20, 5)
    assert "at 64 MB it becomes `.1`, and five older ones are kept" in " ".join(TEXT.split())
    assert audit.SMALL == 8 * 2**20
    assert "are rotated by themselves, at 8 MB" in " ".join(TEXT.split())
    assert (audit.LARGEST + 2 * audit.SMALL) * (audit.KEPT + 1) == 480 * 2**20
    assert "the audit log 480 MB" in " ".join(TEXT.split())
    assert store.GRACE_S == 60
    assert "stay spent for a minute past their end" in " ".join(TEXT.split())


def anchors(text: str) -> set[str]:
    """What links to a page's headings end in, as GitHub makes it."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGES[page])
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = ROOT / "docs" / (path or page)
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_files_that_it_names_are_there() -> None:
    words = CODE + [word for line in COMMANDS for word in line.split()]
    files = {word for word in words if re.match(r"(deploy|docs|handlers|defenses)/[\w./-]*$", word)}
    assert files
    assert [each for each in files if not (ROOT / each).exists()] == []


def test_settings_that_it_names_are_in_config_properties() -> None:
    settings = (ROOT / "config.properties").read_text()
    for key in re.findall(r"`([a-z]+(?:_[a-z]+)+)` (?:of|in) `config\.properties`", PROSE):
        assert re.search(rf"^{key}=", settings, re.MULTILINE), key


def test_every_metric_exists() -> None:
    metrics = set(re.findall(r"\b(?:torchwarden_[a-z_]+|ts_[a-z_]+|Requests\dXX|WorkerLoadTime)\b", TEXT))
    assert len(metrics) > 10
    assert {name for name in metrics if name.endswith("_")} <= {"torchwarden_"}, "a prefix for grep"
    assert metrics - {"torchwarden_"} <= known() | {"torchwarden_stage_seconds"}


def test_prometheus_reads_every_query(tmp_path: Path) -> None:
    assert len(QUERIES) > 10
    for query in QUERIES:
        assert named(query) <= known(), query
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_codes_of_refusals_exist() -> None:
    def all_of(kind: type[RequestError]) -> set[str]:
        return {str(kind.__dict__.get("code"))}.union(*map(all_of, kind.__subclasses__()))

    known_codes = all_of(RequestError)
    for code in ("rate_limited", "store_failed", "wrong_shape", "undecodable", "not_finite", "bad_principal"):
        assert f"{code}" in TEXT
        assert code in known_codes
    for code in re.findall(r"\bsolution_[a-z]+\b", TEXT):
        assert code in known_codes
