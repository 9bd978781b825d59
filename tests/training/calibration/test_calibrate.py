"""The program on untrained networks: what it measures, for every kind of predictor, and what it writes."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from defenses.gate import FORMS
from defenses.policy import Policy
from tests.defenses.policies import GATE, section
from tests.recipes.texts import HASH
from training import checkpoint
from training.calibration import calibrate
from training.calibration.benign import calibration
from training.calibration.calibrate import answers, measure
from training.calibration.stored import GateTable, calibrated
from training.checkpoint import Architecture, Checkpoint, CheckpointError, load
from training.same import benign
from training.victim import split
from zoo import datasets
from zoo.perturbation import Perturbation

GEOMETRY = {"channels": 1, "size": 28, "mean": [0.2], "std": [0.3]}
CLASSIFIER = Architecture("lenet5", {"classes": 10, **GEOMETRY})
AUTOENCODER = Architecture(
    "masked-autoencoder",
    {**GEOMETRY, "patch": 7, "width": 8, "depth": 1, "heads": 1, "decoder_width": 8, "decoder_heads": 1},
)
NOISE = Architecture("gaussian", {"channels": 1, "size": 28, "rms": 0.2})
CHECKPOINTS = {
    "same": [AUTOENCODER, CLASSIFIER],
    "victim": [CLASSIFIER],
    "edm": [CLASSIFIER] * 3,
    "meco": [CLASSIFIER, NOISE],
    "small": [Architecture("lenet5", {**CLASSIFIER.arguments, "classes": 4})],
}


NETWORKS = (
    f"""
[dataset]
name = "digits"
{HASH}"""
    + """
[networks.edm]
auxiliary = "china"
[networks.meco]
[networks.same]
fit = { epochs = 1 }
[networks.absent]
program = "same"
fit = { epochs = 1 }
[networks.small]
program = "meco"
"""
)
TABLES = f"""{NETWORKS}
[policies.undefended]
predictor = "victim"
[policies.same-reject]
predictor = "victim"
gate = {{ action = "reject", form = "paper", alpha = 0.25, false_positive_rate = 0.01 }}
[policies.same-pow]
predictor = "victim"
response = {{ rule = "label" }}
[policies.same-pow.gate]
action = "proof-of-work"
form = "robust"
alpha = 0.5
false_positive_rate = 0.01
work = {{ mean_benign = 9.0 }}
[policies.edm-same]
predictor = "edm"
route = {{ hash = "projection" }}
gate = {{ action = "observe", form = "robust", alpha = 0.5, false_positive_rate = 0.01 }}
[policies.averaged-same]
predictor = "edm"
average = true
gate = {{ action = "observe", form = "robust", alpha = 0.5, false_positive_rate = 0.01 }}
[policies.meco-same]
predictor = "meco"
perturb = {{ noise = "fresh" }}
gate = {{ action = "observe", form = "robust", alpha = 0.5, false_positive_rate = 0.01 }}
[policies.meco-bare]
predictor = "meco"
gate = {{ action = "observe", form = "robust", alpha = 0.5, false_positive_rate = 0.01 }}
[policies.noisy-same]
predictor = "edm"
route = {{ hash = "projection" }}
perturb = {{ graph = "meco-perturbation" }}
gate = {{ action = "observe", form = "robust", alpha = 0.5, false_positive_rate = 0.01 }}
"""
GATED = ("same-reject", "same-pow", "edm-same", "averaged-same", "meco-same", "meco-bare", "noisy-same")
OBSERVED = 'gate = {{ action = "observe", form = "robust", alpha = 0.5, false_positive_rate = 0.01{} }}'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe on the digits, 129 images of which are benign, and its checkpoints."""
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "gated.toml").write_text(TABLES, "utf-8")
    torch.manual_seed(0)
    for name, plans in CHECKPOINTS.items():
        checkpoint.save(folder / f"gated/{name}.safetensors", [plan.network() for plan in plans], plans, {})
    return folder


def of(runs: Path, name: str) -> Checkpoint:
    return load(runs / f"gated/{name}.safetensors")


def program(runs: Path, *words: str, tables: str = TABLES, to: Path | None = None) -> dict[str, dict[str, Any]]:
    """The recipe's calibrations, policy by policy, after a run of the program. to: a folder for another recipe."""
    recipe = (to or runs) / "gated.toml"
    recipe.write_text(tables, "utf-8")
    calibrate.main(calibrate.parse([str(recipe), "--runs", str(runs), *words]))
    found = {path.name.partition(".")[0]: path for path in (runs / "gated").glob("*.calibration.json")}
    return {name: json.loads(path.read_text("utf-8")) for name, path in found.items()}


@torch.inference_mode()
def expected(runs: Path, images: torch.Tensor, served: torch.Tensor, form: str) -> np.ndarray:
    """The terms (N,2) of images of which `served` was said."""
    autoencoder, auxiliary = of(runs, "same").networks
    rebuilt = autoencoder(images)
    error = (images - rebuilt).double().square().mean((1, 2, 3)).numpy()
    q = auxiliary(rebuilt).softmax(1)
    return FORMS[form].terms(error, served.double().numpy(), q.double().numpy(), 784)


@torch.inference_mode()
def responses(read: Checkpoint, images: torch.Tensor) -> list[torch.Tensor]:
    return [network(images).softmax(1) for network in read.networks]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return benign(split(datasets.load("digits", "train")))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["victim", "edm"])
def test_every_member_answers_every_image(runs: Path, images: torch.Tensor, name: str, form: str) -> None:
    read = of(runs, name)
    terms = measure(of(runs, "same"), lambda part: answers(read, None, part, torch.Generator()), images)[form]
    assert terms.shape == (129, len(read.networks), 2)
    for member, served in enumerate(responses(read, images)):
        np.testing.assert_allclose(terms[:, member], expected(runs, images, served, form), rtol=1e-4, atol=1e-5)


def test_noise_is_drawn_for_each_image_from_the_generator(runs: Path, images: torch.Tensor) -> None:
    read = of(runs, "meco")
    victim, noise = read.networks
    assert isinstance(noise, Perturbation)
    drawn = torch.randn(129, 1, 28, 28, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        served = answers(read, noise, images, torch.Generator().manual_seed(4))
        torch.testing.assert_close(served, victim(noise(images, drawn)).softmax(1)[:, None])
        same = answers(read, noise, images[:1].expand(5, -1, -1, -1), torch.Generator())
        torch.testing.assert_close(answers(read, None, images, torch.Generator()), victim(images).softmax(1)[:, None])
    assert len(same[:, 0].unique(dim=0)) == 5


@pytest.fixture(scope="module")
def made(runs: Path) -> dict[str, dict[str, Any]]:
    return program(runs)


def test_every_policy_with_a_gate_has_its_own(made: dict[str, dict[str, Any]], runs: Path) -> None:
    assert set(made) == set(GATED)
    for name, form, alpha, predictor in (
        ("same-reject", "paper", 0.25, "victim"),
        ("same-pow", "robust", 0.5, "victim"),
        ("edm-same", "robust", 0.5, "edm"),
        ("meco-same", "robust", 0.5, "meco"),
    ):
        stored = made[name]
        assert (stored["form"], stored["alpha"]) == (form, alpha)
        assert (stored["source"], stored["images"]) == ("validation split", 129)
        assert stored["gate"] == of(runs, "same").digest
        assert stored["predictor"] == of(runs, predictor).digest
        gate = {**GATE, "form": form, "alpha": alpha, "calibration": stored["calibration"]}
        Policy.parse(section(gate=gate))
        table = GateTable("observe", form, alpha, 0.01)
        ready = calibrated(name, table, runs / "gated", predictor=of(runs, predictor).digest)
        assert ready["calibration"] == stored["calibration"]
    assert not [path for path in (runs / "gated").iterdir() if path.name.startswith(".")]


def test_each_rests_on_what_its_policy_serves(
    made: dict[str, dict[str, Any]], runs: Path, images: torch.Tensor
) -> None:
    noise = of(runs, "meco").networks[1]
    assert isinstance(noise, Perturbation)
    for name, form, alpha, predictor, perturbation in (
        ("same-reject", "paper", 0.25, "victim", None),
        ("same-pow", "robust", 0.5, "victim", None),
        ("edm-same", "robust", 0.5, "edm", None),
        ("meco-same", "robust", 0.5, "meco", noise),
        ("meco-bare", "robust", 0.5, "meco", None),
        ("noisy-same", "robust", 0.5, "edm", noise),
    ):
        ask = partial(answers, of(runs, predictor), perturbation, generator=torch.Generator().manual_seed(0))
        terms = measure(of(runs, "same"), ask, images)
        assert made[name]["calibration"] == calibration(terms[form], form=form, alpha=alpha), name
    terms = expected(runs, images, torch.stack(responses(of(runs, "edm"), images)).mean(0), "robust")
    mean = calibration(terms[:, None], form="robust", alpha=0.5)
    for key in ("centres", "spreads"):
        assert made["averaged-same"]["calibration"][key] == pytest.approx(mean[key], rel=1e-4)
    assert len({json.dumps(stored["calibration"]) for stored in made.values()}) == len(GATED)


def test_policies_that_differ_in_their_action_alone_are_measured_once(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(calibrate, "measure", lambda *rest: asked.append(rest) or measure(*rest))
    program(runs, "--policies", "same-reject", "same-pow", to=tmp_path)
    assert len(asked) == 1
    program(runs, "--policies", "same-pow", "edm-same", "averaged-same", "noisy-same", to=tmp_path)
    assert len(asked) == 5


def test_a_run_says_where_it_wrote_and_which_rate_it_has_no_images_for(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(runs, "--policies", "same-pow", to=tmp_path)
    said = capsys.readouterr()
    assert said.out.strip() == str(runs / "gated/same-pow.calibration.json")
    assert "same-pow: 129 images are too few for a threshold at 0.001" in said.err
    assert "threshold at 0.01\n" not in said.err


def test_images_of_the_user_s_own_are_taken_from_any_folder(runs: Path, tmp_path: Path) -> None:
    greys = np.random.default_rng(0).integers(0, 256, (110, 28, 28), np.uint8)
    (tmp_path / "deep").mkdir()
    for number, grey in enumerate(greys):
        folder = tmp_path / "deep" if number % 2 else tmp_path
        Image.fromarray(grey).save(folder / f"{number:03}.png")
    found = program(runs, "--policies", "same-reject", "--images", str(tmp_path), to=tmp_path)["same-reject"]
    assert (found["source"], found["images"]) == ("images", 110)
    shown = torch.from_numpy(greys).float()[:, None] / 255
    (served,) = responses(of(runs, "victim"), shown)
    table = calibration(expected(runs, shown, served, "paper"), form="paper", alpha=0.25)
    score = found["calibration"]["thresholds"][0]["score"]
    assert score == pytest.approx(table["thresholds"][0]["score"], rel=1e-4)


def test_an_adopted_model_may_answer(runs: Path, tmp_path: Path, images: torch.Tensor) -> None:
    own = tmp_path / "runs"
    shutil.copytree(runs, own)
    path = own / "gated/victim.onnx"
    path.with_suffix(".safetensors").unlink()
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Slice", ["flat", "from", "to", "axis"], ["some"]),
            helper.make_node("Softmax", ["some"], ["probabilities"], axis=1),
        ],
        "user",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 28, 28])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        [
            helper.make_tensor(name, TensorProto.INT64, [1], [value])
            for name, value in (("from", 300), ("to", 310), ("axis", 1))
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.helper.set_model_props(made, {"facts": json.dumps({"classes": [str(number) for number in range(10)]})})
    onnx.save(made, path)
    tables = TABLES.partition("[policies.undefended]")[0] + '[policies.own]\npredictor = "victim"\n'
    found = program(own, tables=tables + OBSERVED.format(""), to=tmp_path)["own"]
    served = images.flatten(1)[:, 300:310].softmax(1)
    table = calibration(expected(runs, images, served, "robust"), form="robust", alpha=0.5)
    assert found["calibration"]["centres"] == pytest.approx(table["centres"], rel=1e-4)
    assert found["predictor"] == hashlib.sha256(path.read_bytes()).hexdigest()


def one_policy(predictor: str = "victim", more: str = "", gate: str = "") -> str:
    head = TABLES.partition("[policies.undefended]")[0]
    return f'{head}[policies.one]\npredictor = "{predictor}"\n{more}\n' + OBSERVED.format(gate)


@pytest.mark.parametrize(
    ("tables", "words", "message"),
    [
        (
            TABLES,
            ["--policies", "absent"],
            r"gated.toml: expected policies with a gate, absent; it has same-reject, sa",
        ),
        (TABLES, ["--policies", "undefended"], r"expected policies with a gate, undefended; it has same-reject, "),
        (TABLES.partition("[policies.same-reject]")[0], [], "expected policies with a gate, one at least; it has none"),
        (
            TABLES.replace("paper", "sum"),
            [],
            r"\[policies.same-reject\]: gate: form: expected one of paper, robust, got",
        ),
        (TABLES.replace("alpha = 0.25, ", ""), [], r"\[policies.same-reject\]: gate: missing key 'alpha'"),
        (TABLES.replace("0.25", "2.0"), [], r"alpha: expected a number from 0 to 1, got 2\.0"),
        (one_policy("absent"), [], r"no checkpoint at .*absent\.safetensors: train it first"),
        (one_policy(gate=', graph = "absent"'), [], r"no checkpoint at .*absent\.safetensors: train it first"),
        (
            one_policy(gate=', graph = "meco"'),
            [],
            r"meco\.safetensors: expected a masked autoencoder and a classifier, got lenet5, gaussian; train them",
        ),
        (
            one_policy(gate=', graph = "victim"'),
            [],
            "expected a masked autoencoder and a classifier, got lenet5; train",
        ),
        (
            one_policy("small"),
            [],
            "expected a predictor for the task of the gate, 1 x 28 x 28 pixels and 10 classes, got one for "
            "1 x 28 x 28 pixels and 4 classes; retrain the gate",
        ),
        (one_policy(more="perturb = {}"), [], r"victim\.safetensors: expected a perturbation, found none; train one"),
        (
            one_policy().replace('"digits"', '"digits"\nsize = 32'),
            [],
            r"expected images for the gate's task, 1 x 28 x 28 .* got \(129, 1, 32, 32\)",
        ),
        (TABLES, ["--images", "nowhere"], r"nowhere: expected a folder of image files, found none \(\.jpg, "),
    ],
)
def test_what_cannot_be_calibrated_is_reported_and_leaves_no_file(
    made: dict[str, dict[str, Any]], runs: Path, tmp_path: Path, tables: str, words: list[str], message: str
) -> None:
    del made  # was written before
    before = {path: path.stat().st_mtime_ns for path in (runs / "gated").iterdir()}
    with pytest.raises((ValueError, CheckpointError), match=message):
        program(runs, *words, tables=tables, to=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (runs / "gated").iterdir()} == before


def test_a_network_that_answers_nan_is_reported(runs: Path, images: torch.Tensor) -> None:
    terms = measure(of(runs, "same"), lambda part: torch.full((len(part), 1, 10), torch.nan), images)
    with pytest.raises(ValueError, match="expected finite terms of the score 'robust', got others in 129 of 129 rows"):
        calibration(terms["robust"], form="robust", alpha=0.5)


def test_a_predictor_of_other_classes_is_reported(runs: Path, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected a predictor of 10 classes, got one of 4"):
        measure(of(runs, "same"), lambda part: torch.full((len(part), 1, 4), 0.25), images)
