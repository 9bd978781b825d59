"""Against TorchServe's own metrics cache and the metrics file that the server is started with."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from defenses.gate import Scores
from defenses.pipeline import EVERY, Answers
from handlers.errors import LoadError
from handlers.metrics import Metrics

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "metrics.yaml"
MEMBERS = ["edm-0", "edm-1", "edm-2"]


def cache(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves files open
        from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

        made = MetricsCacheYamlImpl(path)
    made.initialize_cache()
    return made


def test_a_batch_is_counted_by_decision_member_code_and_stage(caplog: pytest.LogCaptureFixture) -> None:
    answers = Answers(
        labels=np.zeros(4, np.int64),
        probabilities=None,
        members=np.array([2, 0, 2, 2]),
        decisions=("answer", "answer", "answer-open", "answer"),
        work=np.zeros(4),
        seconds={},
    )
    metrics = Metrics(cache(CONFIG), "digits-edm", MEMBERS)
    with caplog.at_level(logging.INFO, "ts.metrics"):
        metrics.count(answers, ["undecodable", "not_finite", "undecodable"], {"route": 0.25, "predict": 0.5})
    lines = {record.getMessage().partition("|#hostname")[0] for record in caplog.records}
    assert lines == {
        "[METRICS]torchwarden_rows_total.Count:3|#ModelName:digits-edm,decision:answer|#type:COUNTER",
        "[METRICS]torchwarden_rows_total.Count:1|#ModelName:digits-edm,decision:answer-open|#type:COUNTER",
        "[METRICS]torchwarden_member_rows_total.Count:1|#ModelName:digits-edm,member:edm-0|#type:COUNTER",
        "[METRICS]torchwarden_member_rows_total.Count:3|#ModelName:digits-edm,member:edm-2|#type:COUNTER",
        "[METRICS]torchwarden_errors_total.Count:2|#ModelName:digits-edm,code:undecodable|#type:COUNTER",
        "[METRICS]torchwarden_errors_total.Count:1|#ModelName:digits-edm,code:not_finite|#type:COUNTER",
        "[METRICS]torchwarden_stage_seconds.Seconds:0.25|#ModelName:digits-edm,stage:route|#type:HISTOGRAM",
        "[METRICS]torchwarden_stage_seconds.Seconds:0.5|#ModelName:digits-edm,stage:predict|#type:HISTOGRAM",
    }


def test_where_all_members_answered_each_of_them_did(caplog: pytest.LogCaptureFixture) -> None:
    answers = Answers(
        labels=np.zeros(3, np.int64),
        probabilities=None,
        members=np.full(3, EVERY),
        decisions=("answer",) * 3,
        work=np.zeros(3),
        seconds={},
    )
    metrics = Metrics(cache(CONFIG), "digits-averaged", MEMBERS)
    with caplog.at_level(logging.INFO, "ts.metrics"):
        metrics.count(answers, [], {})
    counted = [record.getMessage() for record in caplog.records if "member_rows" in record.getMessage()]
    assert len(counted) == 3
    for name, line in zip(MEMBERS, counted, strict=True):
        assert f".Count:3|#ModelName:digits-averaged,member:{name}|" in line


def test_scores_are_counted_by_the_band_of_their_tail_and_work_by_event(caplog: pytest.LogCaptureFixture) -> None:
    tail = np.array([1.0, 0.31, 0.3, 0.02, 0.01, 3.1e-5, 1e-6, 1e-300, np.nan])
    answers = Answers(
        labels=np.zeros(9, np.int64),
        probabilities=None,
        members=np.zeros(9, np.int64),
        decisions=(*["answer"] * 4, *["proof-of-work"] * 4, "paid"),
        work=np.zeros(9),
        seconds={},
        scores=Scores(np.zeros((9, 2)), np.zeros(9), tail),
    )
    metrics = Metrics(cache(CONFIG), "digits-same", MEMBERS)
    refused = ["solution_invalid", "solution_spent", "solution_spent", "solution_expired", "proof_of_work"]
    with caplog.at_level(logging.INFO, "ts.metrics"):
        metrics.count(answers, refused, {}, issued=3, solved=2)
        metrics.count(None, [], {})
    lines = {
        record.getMessage().partition("|#hostname")[0].replace("[METRICS]torchwarden_", "") for record in caplog.records
    }
    assert {line for line in lines if line.startswith(("scores", "work"))} == {
        "scores_total.Count:2|#ModelName:digits-same,tail:1|#type:COUNTER",
        "scores_total.Count:1|#ModelName:digits-same,tail:0.3|#type:COUNTER",
        "scores_total.Count:1|#ModelName:digits-same,tail:0.03|#type:COUNTER",
        "scores_total.Count:1|#ModelName:digits-same,tail:0.01|#type:COUNTER",
        "scores_total.Count:1|#ModelName:digits-same,tail:0.0001|#type:COUNTER",
        "scores_total.Count:2|#ModelName:digits-same,tail:1e-06|#type:COUNTER",
        "work_total.Count:3|#ModelName:digits-same,event:issued|#type:COUNTER",
        "work_total.Count:2|#ModelName:digits-same,event:solved|#type:COUNTER",
        "work_total.Count:1|#ModelName:digits-same,event:expired|#type:COUNTER",
        "work_total.Count:2|#ModelName:digits-same,event:replayed|#type:COUNTER",
        "work_total.Count:1|#ModelName:digits-same,event:invalid|#type:COUNTER",
    }


def test_rows_over_a_limit_and_lines_of_the_audit_log_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(cache(CONFIG), "digits-limited", MEMBERS)
    with caplog.at_level(logging.INFO, "ts.metrics"):
        metrics.count(None, ["rate_limited"], {}, limited={"principal": 9, "total": 3}, audited={"written": 2})
    lines = {
        record.getMessage().partition("|#hostname")[0].replace("[METRICS]torchwarden_", "") for record in caplog.records
    }
    assert lines == {
        "errors_total.Count:1|#ModelName:digits-limited,code:rate_limited|#type:COUNTER",
        "limited_rows_total.Count:9|#ModelName:digits-limited,limit:principal|#type:COUNTER",
        "limited_rows_total.Count:3|#ModelName:digits-limited,limit:total|#type:COUNTER",
        "audit_total.Count:2|#ModelName:digits-limited,event:written|#type:COUNTER",
    }


def test_a_batch_without_answers_counts_its_errors(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(cache(CONFIG), "digits-edm", MEMBERS)
    with caplog.at_level(logging.INFO, "ts.metrics"):
        metrics.count(None, ["no_rows"], {})
    assert [record.getMessage().split("|")[0] for record in caplog.records] == [
        "[METRICS]torchwarden_errors_total.Count:1"
    ]


def changed(folder: Path, name: str, **changes: Any) -> Any:
    """The cache of the metrics file with one metric changed, or dropped where nothing is given."""
    config = yaml.safe_load(CONFIG.read_text())
    for kind, metrics in config["model_metrics"].items():
        kept = [{**each, **changes} if each["name"] == name else each for each in metrics]
        config["model_metrics"][kind] = [each for each in kept if each["name"] != name or changes]
    (folder / "metrics.yaml").write_text(yaml.safe_dump(config))
    return cache(folder / "metrics.yaml")


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("torchwarden_rows_total", "decision"),
        ("torchwarden_member_rows_total", "member"),
        ("torchwarden_errors_total", "code"),
        ("torchwarden_scores_total", "tail"),
        ("torchwarden_work_total", "event"),
        ("torchwarden_limited_rows_total", "limit"),
        ("torchwarden_budget_total", "event"),
        ("torchwarden_audit_total", "event"),
        ("torchwarden_marked_rows_total", "strength"),
        ("torchwarden_stage_seconds", "stage"),
    ],
)
def test_a_metric_that_is_not_configured_is_a_load_error(tmp_path: Path, name: str, dimension: str) -> None:
    wanted = rf"\['ModelName', '{dimension}'\]"
    with pytest.raises(LoadError, match=rf"metric '{name}' is not in .*metrics_config: add it .* {wanted}"):
        Metrics(changed(tmp_path, name), "digits-edm", MEMBERS)
    other = changed(tmp_path, name, dimensions=["ModelName"])
    with pytest.raises(LoadError, match=rf"'{name}': expected dimensions {wanted} .*, got \['ModelName'\]"):
        Metrics(other, "digits-edm", MEMBERS)
