"""The log is read for the reason a model does not load. The lines are TorchServe's, in our layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import serverlog

T = "2026-11-22T02:19:30,192"
GREETING = f"""\
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - s_name_part0=/tmp/.ts.sock, s_name_part1=9001, pid=8121
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - Listening on port: /tmp/.ts.sock.9001
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - Successfully loaded deploy/metrics.yaml.
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - [PID]8121
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - Torch worker started.
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - Python runtime: 3.11.7
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - Connection accepted: /tmp/.ts.sock.9001.
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - model_name: bad, batchSize: 1
"""
RAISED = (
    GREETING
    + f"""\
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - Failed to load model bad, exception no such graph
{T} INFO  [W-9000-fine_1.0-stdout] MODEL_LOG - loaded 5 members
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - Traceback (most recent call last):
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG -   File "handler.py", line 6, in initialize
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - RuntimeError: no such graph
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - Backend worker process died.
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - Traceback (most recent call last):
{T} INFO  [W-9001-bad_1.0-stdout] MODEL_LOG - RuntimeError: 500 - Unknown exception
"""
)
DIED = GREETING + f"{T} WARN  [W-9001-bad_1.0] BatchAggregator - Load model failed: bad, error: Worker died.\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "torchserve.log"


def test_a_handler_that_raised_is_hopeless_at_once(log: Path) -> None:
    log.write_text(RAISED)
    assert serverlog.hopeless(log) == "bad"
    assert serverlog.last_words(log, "bad") == [
        "Failed to load model bad, exception no such graph",
        "Traceback (most recent call last):",
        '  File "handler.py", line 6, in initialize',
        "RuntimeError: no such graph",
    ]


def test_a_process_that_ended_without_a_word_gets_a_second_try(log: Path) -> None:
    log.write_text(DIED)
    assert serverlog.hopeless(log) is None
    log.write_text(DIED + DIED + f"{T} WARN  [W-9001-bad_1.0] WorkerThread - Auto recovery failed again\n")
    assert serverlog.hopeless(log) == "bad"
    assert serverlog.last_words(log, "bad") == [
        "Load model failed: bad, error: Worker died.",
        "Auto recovery failed again",
    ]


def test_models_whose_names_begin_alike_are_distinguished(log: Path) -> None:
    log.write_text(RAISED.replace("bad_1.0", "bad_too_1.0"))
    assert serverlog.hopeless(log) == "bad_too"
    assert serverlog.last_words(log, "bad") == []


def test_the_tail_leaves_greetings_out_and_keeps_stack_traces(log: Path, tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text("Address already in use\n")
    log.write_text(GREETING + f"{T} ERROR [main] ModelServer - failed\njava.io.IOException: no\n\tat a.B.c\n")
    assert serverlog.tail(console, log) == [
        "Address already in use",
        f"{T} ERROR [main] ModelServer - failed",
        "java.io.IOException: no",
        "\tat a.B.c",
    ]


def test_a_log_that_is_not_there_yet_is_empty(log: Path) -> None:
    assert serverlog.hopeless(log) is None
    assert serverlog.tail(log) == []
