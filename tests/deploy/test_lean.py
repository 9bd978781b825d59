"""Workers without torch: what TorchServe asks of torch, the stand-in's answers, and the way a worker is started."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy import launch
from deploy.lean import worker

TS = Path(str(metadata.distribution("torchserve").locate_file("ts")))
# What the protocol module takes from torch, in the one version that TorchServe is pinned to.
TAKEN = {"Tensor", "save"}


def python(code: str, *, blocked: bool = False) -> Any:
    """What `code` prints as JSON in a fresh interpreter, where `import torch` fails if it is to be blocked."""
    block = "import sys; sys.modules['torch'] = None\n" if blocked else ""
    done = subprocess.run(
        [sys.executable, "-c", block + code],
        cwd=Path(launch.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def taken(path: Path) -> set[str]:
    """The attributes of torch that a file names; `*` where it imports from torch or renames it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {"*"} if (node.module or "").split(".")[0] == "torch" else set()
        elif isinstance(node, ast.Import):
            torch_ = [alias for alias in node.names if alias.name.split(".")[0] == "torch"]
            found |= {"*"} if any(alias.asname or "." in alias.name for alias in torch_) else set()
    return found


@pytest.fixture(scope="module")
def loaded() -> list[Path]:
    """The files of TorchServe that a worker imports."""
    names = python(
        "import json, sys\nimport ts.model_service_worker\n"
        "print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'ts' and m.__file__]))"
    )
    return [Path(name) for name in names]


def test_one_module_of_a_worker_asks_for_torch_and_for_these_names(loaded: list[Path]) -> None:
    asking = {path.relative_to(TS).as_posix(): taken(path) for path in loaded if taken(path)}
    assert len(loaded) > 15
    assert asking == {"protocol/otf_message_handler.py": TAKEN}
    assert worker.ASKS == "ts.protocol.otf_message_handler"


def test_the_scan_can_fail(tmp_path: Path) -> None:
    for line, names in (("torch.cuda.is_available()", {"cuda"}), ("from torch import nn", {"*"}), ("x = 1", set())):
        (tmp_path / "module.py").write_text(line)
        assert taken(tmp_path / "module.py") == names
    # it finds torch where TorchServe does use it
    assert "cuda" in taken(TS / "handler_utils" / "timer.py")


ENCODE = """
import json
from ts.context import Context
from ts.protocol import otf_message_handler as protocol

context = Context("m", ".", {}, 1, None, "0", True, None, {})
def encoded(value):
    context.request_processor = [__import__("ts.context").context.RequestProcessor({})]
    return protocol.create_predict_response([value], {0: "id"}, "ok", 200, context).hex()
answers = [encoded(value) for value in (b"bytes", bytearray(b"more"), "text", {"a": [1]}, None, {1, 2})]
"""
DEFER = "from deploy.lean import worker\nworker.defer()\n"


def test_answers_are_encoded_as_with_torch() -> None:
    tell = ENCODE + "print(json.dumps(answers))"
    with_torch = python(tell)
    assert len(set(with_torch)) == len(with_torch)
    assert python(DEFER + tell) == with_torch
    assert (
        python(
            "import sys\n"
            + DEFER.replace("worker.defer()", "")
            + f"""
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'torch':
            raise ModuleNotFoundError("No module named 'torch'", name=name)
sys.meta_path.insert(0, Absent())
worker.defer()
{tell}"""
        )
        == with_torch
    )


def test_a_tensor_is_saved_by_the_real_torch() -> None:
    tell = ENCODE + "import torch\nprint(json.dumps(encoded(torch.arange(3))))"
    assert python(DEFER + tell) == python(tell)


def test_nothing_is_left_but_the_protocol_modules_own_name() -> None:
    state = python(
        DEFER + "import json, sys, ts.model_service_worker\n"
        "from ts.protocol import otf_message_handler as protocol\n"
        "print(json.dumps(['torch' in sys.modules, type(protocol.torch).__name__]))"
    )
    assert state == [False, "Deferred"]


def test_where_there_is_no_torch_its_import_fails_as_ever() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
            patch.delitem(sys.modules, name)
        patch.setitem(sys.modules, "torch", None)
        with pytest.raises(ModuleNotFoundError, match="torch"):
            worker.Deferred("torch").save  # noqa: B018 the access is the test


def test_there_are_no_tensors_while_nobody_imported_torch() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "torch")
        stand_in = worker.Deferred("torch").Tensor
    assert stand_in is worker.NoTensor
    assert not isinstance(torch.zeros(1), stand_in)
    with pytest.raises(TypeError, match="no tensors; import torch"):
        stand_in()
    assert worker.Deferred("torch").Tensor is torch.Tensor


def test_the_worker_is_the_same_interpreter_with_the_arguments_as_given(tmp_path: Path) -> None:
    script = tmp_path / "worker with space.py"
    script.write_text("import json, sys\nprint(json.dumps([sys.executable, sys.argv, sys.path, __name__]))")
    folders = {"temp": tmp_path, "state": tmp_path, "audit": tmp_path / "audit.jsonl", "budgets": tmp_path / "accounts"}
    started = subprocess.run(
        [launch.WORKER_PYTHON, script, "--sock-name", "a b", "--x=1"],
        env=launch.environment({}, environ={"PATH": os.environ["PATH"]}, **folders),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    executable, arguments, path, name = json.loads(started.stdout)
    assert executable == sys.executable
    assert arguments == [str(script), "--sock-name", "a b", "--x=1"]
    assert name == "__main__"
    checkout = Path(launch.__file__).parents[1]
    assert not [
        entry for entry in map(Path, path) if entry == checkout or checkout / "deploy" in (entry, *entry.parents)
    ]


def test_java_starts_workers_by_it(tmp_path: Path) -> None:
    command = launch.command(Path("/java"), tmp_path / "c", vmargs="", temp=tmp_path, log="file")
    assert command[command.index("--python") + 1] == str(launch.WORKER_PYTHON)
    assert os.access(launch.WORKER_PYTHON, os.X_OK)


def test_the_entry_imports_nothing_of_ours() -> None:
    """It runs before the archive is on the path, and must not bring the checkout's modules with it."""
    source = ast.parse(Path(worker.__file__).read_text("utf-8"))
    names = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(source)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert {str(name).split(".")[0] for name in names} <= set(sys.stdlib_module_names)
