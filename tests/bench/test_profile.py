"""Samples to their owners, and a live process really looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench import profile
from bench.profile import ProfileError
from report.rows.profile import ProfileRow

START = "<module> (/opt/site-packages/ts/model_service_worker.py:252);run_server (/opt/site-packages/ts/worker.py:9)"
HANDLE = f"{START};predict (/opt/site-packages/ts/service.py:100);TorchWarden.handle (/tmp/models/0a/handler.py)"
FOLDED = f"""\
{START};recv_into (/opt/site-packages/ts/protocol/otf.py:3) 10
{HANDLE};decode (/tmp/models/0a/handlers/wire.py) 3
{HANDLE} 1
{HANDLE};decode (/tmp/models/0a/handlers/wire.py);_amin (/opt/site-packages/numpy/_core/_methods.py) 2
{HANDLE};ask (/tmp/models/0a/defenses/pipeline.py);run (/opt/site-packages/onnxruntime/capi/x.py) 80
{START};create_response (/opt/site-packages/ts/protocol/otf.py:9) 4
"""


def made() -> ProfileRow:
    stacks = profile.parse(FOLDED)
    return ProfileRow("r", "undefended", 64, sum(stacks.values()), 100.0, stacks)


def test_a_frames_file_has_the_name_that_it_has_everywhere() -> None:
    assert profile.named("decode (/tmp/models/0a/handlers/wire.py:88)") == "decode (handlers/wire.py)"
    assert profile.named("run (/a/lib/python3.11/site-packages/ts/x.py)") == "run (ts/x.py)"
    assert profile.named("<module> (/a/lib/python3.11/threading.py:1)") == "<module> (threading.py)"
    assert profile.named("f (script.py)") == "f (script.py)"


def test_samples_go_to_graphs_to_us_to_the_server_and_to_waiting() -> None:
    assert made().shares() == pytest.approx({"graphs": 0.8, "ours": 0.06, "server": 0.04, "waiting": 0.1})


def test_our_innermost_function_is_charged_with_what_it_calls() -> None:
    (name, spent), (least, own) = made().own()
    assert (name, least) == ("decode (handlers/wire.py)", "TorchWarden.handle (handler.py)")
    assert (spent, own) == (pytest.approx(1000 * 0.05 / 100), pytest.approx(1000 * 0.01 / 100))


def test_rare_stacks_are_shortened_and_no_sample_is_lost() -> None:
    stacks = {"a;b;c": 1, "a;b;d": 1, "a;e": 9_998}
    kept = profile.frequent(stacks)
    assert kept == {"a": 2, "a;e": 9_998}
    assert sum(profile.frequent(made().stacks).values()) == 100


def test_a_live_process_is_seen_where_it_spends_its_time(tmp_path: Path) -> None:
    script = tmp_path / "busy.py"
    script.write_text("def spin():\n    while True:\n        sum(range(1000))\n\nspin()\n")
    with subprocess.Popen([sys.executable, str(script)]) as process:
        try:
            stacks = profile.sampled(psutil.Process(process.pid), 1)
        finally:
            process.kill()
        gone = psutil.Process(process.pid)
        process.wait()
    inside = sum(count for stack, count in stacks.items() if "spin (busy.py)" in stack)
    assert inside > 0.9 * sum(stacks.values()) > 0
    with pytest.raises(ProfileError, match="py-spy ended with"):
        profile.sampled(gone, 1)
