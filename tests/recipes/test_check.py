"""All faults of a recipe in one go, before anything is trained: each kind of table, and how soon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import recipes
from recipes import RecipeError, schema
from recipes.__main__ import main
from recipes.check import check
from tests.recipes.texts import HASH, VICTIM

CHECKOUT = Path(__file__).resolve().parents[2]
GOOD = (
    f"""
[dataset]
name = "digits"
{VICTIM}{HASH}"""
    + """
[networks.edm]
auxiliary = "china"
[networks.same]
fit = { epochs = 1 }
[policies.edm]
predictor = "edm"
route = { hash = "projection" }
[policies.gated]
predictor = "victim"
gate = { action = "reject", form = "robust", alpha = 0.5, false_positive_rate = 0.01 }
[attacks.knockoff]
surrogate = "flower"
budget = 10
[clone]
architecture = "lenet5"
epochs = 1
[evaluate.headline]
policies = ["edm"]
budgets = [10]
[detection.flowers]
attack = "knockoff"
[benign.others]
dataset = "digits:train"
[loadtest]
p99_ms = 100.0
[serving]
workers = 1
[studies.edm]
utility = ["edm"]
evaluate = ["headline"]
"""
)
# a change of GOOD, and its message; those in the first list need no code of a program
MISSPELT = [
    (
        'name = "digits"',
        'nmae = "digits"',
        "[dataset]: unknown key 'nmae'; did you mean 'name'?",
    ),
    (
        "optimisation = { epochs = 1 }\n[networks.hash]",
        "optimisation = { epoch = 1 }\n[networks.hash]",
        "[victim]: optimisation: unknown key 'epoch'; did you mean 'epochs'?",
    ),
    (
        "per_class = 10",
        'per_class = "ten"',
        "[networks.hash]: per_class: expected an integer, got 'ten'",
    ),
    (
        'auxiliary = "china"',
        'auxilary = "china"',
        "[networks.edm]: unknown key 'auxilary'; did you mean 'auxiliary'?",
    ),
    (
        "[networks.same]",
        "[networks.some]",
        "[networks.some]: program: no program 'some'; did you mean 'same'?",
    ),
    (
        "fit = {",
        "fti = {",
        "[networks.same]: unknown key 'fti'; did you mean 'fit'?",
    ),
    (
        'predictor = "edm"',
        'predictor = "emd"',
        "[policies.edm]: it runs 'emd', and there is no [networks.emd] to train it; did you mean 'edm'?",
    ),
    (
        'predictor = "victim"',
        'predictor = "models/mine.onnx"',
        "[policies.gated]: predictor: expected 'victim', adopt the file first (make adopt MODEL=models/mine.onnx), got",
    ),
    (
        'hash = "projection"',
        'hash = "projectoin"',
        "[policies.edm]: route: hash: expected one of class-confidence, projection, got 'projectoin'",
    ),
    (
        'form = "robust"',
        'form = "robsut"',
        "[policies.gated]: gate: form: expected one of paper, robust, got 'robsut'",
    ),
    (
        'action = "reject", ',
        "",
        "[policies.gated]: gate: missing key 'action'",
    ),
    (
        "[attacks.knockoff]",
        "[attacks.knockof]",
        "[attacks.knockof]: no attack 'knockof'; did you mean 'knockoff'?",
    ),
    (
        'surrogate = "flower"',
        'surogate = "flower"',
        "[attacks.knockoff]: unknown key 'surogate'; did you mean 'surrogate'?",
    ),
    (
        '[clone]\narchitecture = "lenet5"',
        "[clone]\narchitecture = 5",
        "[clone]: architecture: expected a string, got 5",
    ),
    (
        'policies = ["edm"]',
        'policies = ["emd"]',
        "[evaluate.headline]: policies: no policy 'emd'; did you mean 'edm'?",
    ),
    (
        "budgets = [10]",
        "budget = [10]",
        "[evaluate.headline]: unknown key 'budget'; did you mean 'budgets'?",
    ),
    (
        'attack = "knockoff"',
        'attak = "knockoff"',
        "[detection.flowers]: unknown key 'attak'; did you mean 'attack'?",
    ),
    (
        'dataset = "digits:train"',
        "dataset = 3",
        "[benign.others]: dataset: expected a string, got 3",
    ),
    (
        "p99_ms = 100.0",
        "p99 = 100.0",
        "[loadtest]: unknown key 'p99'; did you mean 'p99_ms'?",
    ),
    (
        "workers = 1",
        "worker = 1",
        "[serving]: unknown key 'worker'; did you mean 'workers'?",
    ),
    (
        'utility = ["edm"]',
        'utility = ["tag:edm"]',
        "[studies.edm]: utility: nothing has the tag 'edm'",
    ),
    (
        "[serving]",
        "[servign]",
        "unknown table [servign]; did you mean 'serving'?",
    ),
]
DEEPER = [
    (
        '[victim]\narchitecture = "lenet5"',
        '[victim]\narchitecture = "lenet6"',
        "[victim]: architecture: no architecture 'lenet6'; did you mean 'lenet5'?",
    ),
    (
        "workers = 1",
        "workers = 0",
        "[serving]: workers: expected >= 1, got 0",
    ),
    (
        "budgets = [10]",
        "budgets = [0]",
        "[evaluate.headline]: budgets: expected at least 1 image, got (0,)",
    ),
    (
        'evaluate = ["headline"]',
        'evaluate = ["headlines"]',
        "[studies.edm]: evaluate: no [evaluate.headlines]; did you mean 'headline'?",
    ),
    (
        'utility = ["edm"]',
        'utilty = ["edm"]',
        "[studies.edm]: no study 'utilty'; did you mean 'utility'?",
    ),
]


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def test_a_good_recipe_has_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, GOOD)
    assert check(str(path)) == []
    assert main(["check", str(path)]) == 0
    assert "no fault" in capsys.readouterr().out


@pytest.mark.parametrize(("old", "new", "message"), MISSPELT)
def test_misspellings_are_reported_when_the_file_is_read(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, changed(old, new))
    with pytest.raises(recipes.RecipeError) as caught:
        recipes.read(path)
    assert f"{path}: {message}" in str(caught.value)


@pytest.mark.parametrize(("old", "new", "message"), DEEPER)
def test_what_needs_a_program_s_code_is_reported_by_the_check(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, changed(old, new))
    assert any(fault.startswith(f"{path}: {message}") for fault in check(str(path)))


def test_all_faults_are_reported_in_one_go_and_before_torch_is_loaded(tmp_path: Path) -> None:
    text = GOOD
    alone = [each for each in MISSPELT if not each[1].startswith("[")]
    for old, new, _ in alone:
        text = text.replace(old, new, 1)
    path = write(tmp_path, text)
    program = (
        "import sys\nfrom recipes.__main__ import main\n"
        f"code = main(['check', {str(path)!r}])\nassert 'torch' not in sys.modules\nsys.exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    # half a second on an idle machine
    assert time.monotonic() - started < 10
    lines = done.stderr.splitlines()
    assert len(lines) >= len(alone) - 3  # two keys of one table may hide one another
    assert "Traceback" not in done.stderr


def test_a_fault_of_a_tier_is_reported_as_well(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "[tiers.paper.victim]\noptimisation = { epochs = 0 }\n")
    assert check(str(path)) == [f"{path}: [victim]: optimisation: epochs and batch_size: expected >= 1, got 0, 128"]
    assert check(f"{path}@paper")


def test_the_schema_is_what_the_dataclasses_say() -> None:
    """`python -m recipes schema` writes it again."""
    assert schema.FILE.read_text("utf-8") == schema.generate()


def test_what_a_recipe_comes_to_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "mnist"]) == 0
    shown = capsys.readouterr().out
    assert "[networks.meco_gaussian]" in shown
    assert '[policies.meco-gaussian]\npredictor = "meco_gaussian"' in shown
    assert main(["list"]) == 0
    assert "digits " in capsys.readouterr().out
    assert main(["show", "mnits"]) == 1
    assert "no recipe 'mnits': did you mean 'mnist'?" in capsys.readouterr().err


ADOPTED = """
[model]
file = "/data/mine.onnx"
classes = ["cat", "dog"]
input = { size = 28, channels = 1 }
[dataset]
name = "digits"
[policies.mine]
predictor = "victim"
"""


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ('backend = "torchscript"', "[policies.mine]: backend: expected 'onnxruntime', an adopted graph is ONNX"),
        (
            'perturb = { noise = "fresh" }',
            "[policies.mine]: perturb: expected a graph, an adopted model was not trained",
        ),
    ],
)
def test_what_an_adopted_graph_cannot_do_is_said(tmp_path: Path, added: str, fault: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ADOPTED + added)
    with pytest.raises(RecipeError) as caught:
        recipes.read(path)
    assert fault in str(caught.value)


def test_a_recipe_takes_the_preprocessing_of_its_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ADOPTED)
    read = recipes.read(path)
    assert read.tables["dataset"]["input"] == {"size": 28, "channels": 1}
    assert read.tables["dataset"]["classes"] == ["cat", "dog"]
    assert read.adopted["model.file"] == "mine.onnx"
