"""Archives: what is inside, the same bytes twice, and code that serves where our training code is not."""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import stat
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import recipes
from attacks.oracle import REFUSED
from defenses.routing import HASHES
from evaluation.oracles import InProcessOracle
from export import archive, graphs
from export.archive import PolicyTable, Serving
from export.graphs import ExportError
from export.predictor import Predictor
from recipes.policies import STAND_INS
from tests.conftest import GATED, NOISY, POLICIES, RECIPE, Smoke
from tests.reached import Reached
from training import victim
from training.calibration.stored import CalibrationError, GateTable
from training.checkpoint import CheckpointError, load
from zoo import datasets

CHECKOUT = Path(archive.__file__).parent.parent


def built(smoke: Smoke, policy: str, store: Path) -> Path:
    recipe = recipes.read(RECIPE)
    return archive.archive(
        recipe,
        policy,
        recipe.family("policies", PolicyTable)[policy],
        recipe.section("serving", Serving),
        runs=smoke.runs,
        build=smoke.build,
        store=store,
        data=None,
    )


def section(smoke: Smoke, table: PolicyTable, name: str = "synthetic") -> dict[str, Any]:
    """The policy that the archive of this table holds."""
    recipe = recipes.read(RECIPE)
    predictor = Predictor.of(load(smoke.runs / f"smoke/{table.predictor}.safetensors"))
    geometry = recipe.section("dataset", datasets.Data).geometry(predictor.shape)
    serving = recipe.section("serving", Serving)
    return archive.handler_section(recipe.name, name, table, serving, predictor, geometry, smoke.runs)


def unpacked(smoke: Smoke, policy: str, folder: Path) -> Path:
    with zipfile.ZipFile(smoke.archive(policy)) as packed:
        packed.extractall(folder)
    return folder


@pytest.mark.parametrize("policy", POLICIES)
def test_an_archive_holds_code_graphs_policy_and_a_golden_answer(smoke: Smoke, policy: str) -> None:
    with zipfile.ZipFile(smoke.archive(policy)) as packed:
        names = set(packed.namelist())
        config = yaml.safe_load(packed.read("model-config.yaml"))
        golden = json.loads(packed.read("golden.json"))
        manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))
    for room in ("handlers", "defenses", "pictures"):
        assert {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / room).rglob("*.py")} <= names
    ending = archive.ENDINGS[config["handler"]["backend"]]
    wanted = set(config["handler"]["members"]) | ({"hash"} if policy == "edm" else set())
    assert {name for name in names if name.startswith("graphs/")} == {f"graphs/{name}{ending}" for name in wanted}
    assert manifest["model"]["modelName"] == f"smoke-{policy}"
    assert len(base64.b64decode(golden["image"])) == 28 * 28 * 4
    accepted = np.array(golden["accepted"])
    assert accepted.shape == (1 if config["handler"]["average"] else len(config["handler"]["members"]), 10)
    assert len(set(accepted.argmax(1))) == 1, "members disagree on the golden image"


def test_only_a_policy_with_a_secret_asks_for_a_key(smoke: Smoke) -> None:
    for policy, expected in (("undefended", None), ("edm", "TORCHWARDEN_KEY")):
        with zipfile.ZipFile(smoke.archive(policy)) as packed:
            assert yaml.safe_load(packed.read("model-config.yaml"))["handler"]["key_env"] == expected


def test_the_key_is_not_inside(smoke: Smoke) -> None:
    key = smoke.key_file.read_text().strip()
    with zipfile.ZipFile(smoke.archive("edm")) as packed:
        for name in packed.namelist():
            assert key.encode() not in packed.read(name), name
            assert bytes.fromhex(key) not in packed.read(name), name


def test_the_same_inputs_give_the_same_bytes(smoke: Smoke, tmp_path: Path) -> None:
    again = built(smoke, "edm", tmp_path)
    assert again.read_bytes() == smoke.archive("edm").read_bytes()


def test_two_trainings_with_one_seed_give_the_same_archive(tmp_path: Path) -> None:
    recipe = recipes.read(RECIPE)
    archives = []
    for folder in (tmp_path / "one", tmp_path / "another" / "further down"):
        runs, build = folder / "runs", folder / "build"
        victim.main(argparse.Namespace(recipe=str(RECIPE), runs=runs, data=None, seed=0, network=""))
        list(graphs.export(load(runs / "smoke/victim.safetensors"), build / "smoke"))
        table, serving = recipe.family("policies", PolicyTable)["undefended"], recipe.section("serving", Serving)
        folders = {"runs": runs, "build": build, "store": folder / "model_store"}
        archives.append(archive.archive(recipe, "undefended", table, serving, **folders, data=None))
    assert archives[0].read_bytes() == archives[1].read_bytes()


def test_an_archive_is_for_its_owner_alone(smoke: Smoke) -> None:
    assert stat.S_IMODE(smoke.archive("edm").stat().st_mode) == 0o600


@pytest.mark.parametrize("policy", POLICIES)
def test_unpacked_code_serves_in_a_fresh_interpreter(smoke: Smoke, policy: str, tmp_path: Path) -> None:
    archive.prove(unpacked(smoke, policy, tmp_path))


def test_the_proof_fails_on_code_that_needs_the_checkout(smoke: Smoke, tmp_path: Path) -> None:
    folder = unpacked(smoke, "undefended", tmp_path)
    wire = folder / "handlers/wire.py"
    wire.write_text(wire.read_text().replace("import orjson", "import orjson\nimport zoo.models", 1))
    with pytest.raises(ExportError, match=r"does not serve by itself:(.|\n)*zoo"):
        archive.prove(folder)


def test_the_proof_fails_on_a_second_class_in_the_handler(smoke: Smoke, tmp_path: Path) -> None:
    folder = unpacked(smoke, "undefended", tmp_path)
    with (folder / "handler.py").open("a") as file:
        file.write("\n\nclass Another:\n    pass\n")
    with pytest.raises(ExportError, match="exactly one class"):
        archive.prove(folder)


def test_the_proof_fails_on_a_wrong_golden_answer(smoke: Smoke, tmp_path: Path) -> None:
    folder = unpacked(smoke, "undefended", tmp_path)
    golden = json.loads((folder / "golden.json").read_text())
    golden["accepted"] = np.roll(golden["accepted"], 1, axis=1).tolist()
    (folder / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(ExportError, match="golden image"):
        archive.prove(folder)


def test_a_missing_graph_says_how_to_make_it(smoke: Smoke, tmp_path: Path) -> None:
    build = tmp_path / "build"
    shutil.copytree(smoke.build, build)
    (build / "smoke/hash.onnx").unlink()
    broken = Smoke(tmp_path, smoke.key_file)
    shutil.copytree(smoke.runs, broken.runs)
    with pytest.raises(ExportError, match=r"no graph at .*hash\.onnx: export it first"):
        built(broken, "edm", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_an_unknown_policy_is_named(smoke: Smoke) -> None:
    with pytest.raises(SystemExit, match=r"no \[policies\.nope\]; it has undefended, edm, label"):
        archive.main([str(RECIPE), "--policies", "nope", "--runs", str(smoke.runs)])


def test_an_archive_s_hash_computes_what_its_route_reads_and_no_more(smoke: Smoke, tmp_path: Path) -> None:
    packed = archive.on_onnxruntime(unpacked(smoke, "edm", tmp_path) / "graphs/hash.onnx")
    whole = archive.on_onnxruntime(smoke.build / "smoke/hash.onnx")
    rows = np.random.default_rng(0).random((7, 1, 28, 28), dtype=np.float32)
    assert list(packed(rows)) == ["projections"]
    np.testing.assert_array_equal(packed(rows)["projections"], whole(rows)["projections"])


@pytest.mark.parametrize("name", HASHES)
def test_what_a_hash_reads_is_what_is_packed_for_it(name: str) -> None:
    fields = STAND_INS[name] if name == "projection" else {**STAND_INS[name], "bins": 2}
    assert list(HASHES[name](**fields).reads) == [archive.HASH_READS[name]]


def test_serving_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="threads: expected >= 1, got 0"):
        Serving(threads=0)
    with pytest.raises(ValueError, match="max_batch_delay_ms: expected >= 0, got -1"):
        Serving(max_batch_delay_ms=-1)
    assert yaml.safe_load(archive.model_config({}, Serving()))["maxBatchDelay"] == 0


@pytest.mark.parametrize(("policy", "graph"), [("mad", "surrogate.ts.pt"), ("grad", "surrogate.onnx")])
def test_an_archive_holds_the_graph_that_its_rule_reads(baselines: Smoke, policy: str, graph: str) -> None:
    with zipfile.ZipFile(baselines.archive(policy)) as packed:
        assert f"graphs/{graph}" in packed.namelist()
        config = yaml.safe_load(packed.read("model-config.yaml"))
    assert config["handler"]["response"]["graph"] == "surrogate"


def test_where_a_rule_moves_labels_the_golden_answer_is_the_rule_s(baselines: Smoke, tmp_path: Path) -> None:
    folder = unpacked(baselines, "grad", tmp_path)
    golden = json.loads((folder / "golden.json").read_text())
    image = np.frombuffer(base64.b64decode(golden["image"]), "<f4").reshape(1, 1, 28, 28)
    plain = archive.on_onnxruntime(folder / "graphs/victim.onnx")(image)["probabilities"][0]
    (accepted,) = golden["accepted"]
    assert np.argmax(accepted) != plain.argmax()
    assert np.abs(accepted - plain).sum() == pytest.approx(1.5, abs=0.01)
    archive.prove(folder)


def test_the_golden_answer_of_all_members_is_their_mean(smoke: Smoke, tmp_path: Path) -> None:
    folder = unpacked(smoke, "averaged", tmp_path)
    golden = json.loads((folder / "golden.json").read_text())
    image = np.frombuffer(base64.b64decode(golden["image"]), "<f4").reshape(1, 1, 28, 28)
    each = [archive.on_onnxruntime(folder / f"graphs/edm-{n}.onnx")(image)["probabilities"][0] for n in range(3)]
    np.testing.assert_allclose(golden["accepted"], [np.mean(each, axis=0)], atol=1e-6)


def test_where_a_rule_moves_labels_all_members_are_proved_together(
    smoke: Smoke, baselines: Smoke, tmp_path: Path
) -> None:
    folder = unpacked(baselines, "grad", tmp_path)
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    config["handler"] |= {"members": ["edm-0", "edm-1", "edm-2"], "average": True}
    for number in range(3):
        shutil.copyfile(smoke.build / f"smoke/edm-{number}.onnx", folder / f"graphs/edm-{number}.onnx")
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))
    archive.prove(folder)
    (accepted,) = json.loads((folder / "golden.json").read_text())["accepted"]
    assert sum(accepted) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("policy", "plain"), [("mad", "edm"), ("randp", "undefended")])
def test_a_baseline_moves_its_predictor_s_answers_and_keeps_the_labels(
    baselines: Smoke, smoke: Smoke, policy: str, plain: str, reached: Reached
) -> None:
    images = datasets.load("digits", "test").pixels[:64]
    with InProcessOracle(baselines.archive(policy), seed=3) as oracle, InProcessOracle(smoke.archive(plain)) as other:
        answers, clean = oracle(images), other(images)
    assert answers.labels.tolist() == clean.labels.tolist()
    assert answers.probabilities is not None
    assert clean.probabilities is not None
    moved = (answers.probabilities - clean.probabilities).abs().sum(1)
    reached("furthest move", moved.max(), above=0.3)
    assert float(moved.max()) <= 0.5 + 1e-5


def test_a_seed_repeats_what_a_rule_draws(baselines: Smoke) -> None:
    images = datasets.load("digits", "test").pixels[:8]
    served = []
    for seed in (1, 1, 2):
        with InProcessOracle(baselines.archive("randp"), seed=seed) as oracle:
            served.append(oracle(images).probabilities)
    assert torch.equal(served[0], served[1])
    assert not torch.equal(served[0], served[2])


@pytest.mark.parametrize("policy", NOISY)
def test_an_archive_holds_the_perturbation_and_the_shape_of_its_noise(noisy: Smoke, policy: str) -> None:
    with zipfile.ZipFile(noisy.archive(policy)) as packed:
        names = packed.namelist()
        handler = yaml.safe_load(packed.read("model-config.yaml"))["handler"]
    ending = archive.ENDINGS[handler["backend"]]
    graphs = {name for name in names if name.startswith("graphs/")}
    assert graphs == {f"graphs/meco{ending}", f"graphs/meco-perturbation{ending}"}
    assert handler["members"] == ["meco"]
    stated = recipes.read(RECIPE).family("policies", PolicyTable)[policy].perturb
    assert handler["perturb"] == {**(stated or {}), "graph": "meco-perturbation", "noise_shape": [1, 28, 28]}
    assert handler["key_env"] == (None if policy == "meco" else "TORCHWARDEN_KEY")


@pytest.mark.parametrize("policy", NOISY)
def test_unpacked_noise_serves_in_a_fresh_interpreter(noisy: Smoke, policy: str, tmp_path: Path) -> None:
    archive.prove(unpacked(noisy, policy, tmp_path))


def test_the_key_of_noise_is_not_inside_and_the_bytes_are_the_same_twice(noisy: Smoke, tmp_path: Path) -> None:
    key = noisy.key_file.read_text().strip()
    with zipfile.ZipFile(noisy.archive("meco-keyed")) as packed:
        for name in packed.namelist():
            assert key.encode() not in packed.read(name), name
            assert bytes.fromhex(key) not in packed.read(name), name
    assert built(noisy, "meco-keyed", tmp_path).read_bytes() == noisy.archive("meco-keyed").read_bytes()


def test_golden_answers_are_those_to_the_image_without_noise_and_under_draws_of_it(
    noisy: Smoke, tmp_path: Path, reached: Reached
) -> None:
    folder = unpacked(noisy, "meco", tmp_path)
    golden = json.loads((folder / "golden.json").read_text())
    image = np.frombuffer(base64.b64decode(golden["image"]), "<f4").reshape(1, 1, 28, 28)
    plain = archive.on_onnxruntime(folder / "graphs/meco.onnx")(image)["probabilities"]
    np.testing.assert_allclose(golden["accepted"][:1], plain, atol=1e-6)
    drawn = np.array(golden["accepted"][1:])
    assert len(np.unique(drawn, axis=0)) == archive.GOLDEN_DRAWS
    reached("golden draws with another label", (drawn.argmax(1) != plain.argmax()).sum(), below=0.5)
    with InProcessOracle(noisy.archive("meco"), seed=1) as oracle:
        noise = oracle(torch.from_numpy(image.copy()))
    reached("served draws with another label", noise.labels.tolist() != plain.argmax(1).tolist(), below=0.5)
    assert noise.probabilities is not None
    assert not np.array_equal(noise.probabilities, plain)


def test_the_proof_fails_on_a_perturbation_that_does_not_take_noise(noisy: Smoke, tmp_path: Path) -> None:
    folder = unpacked(noisy, "meco", tmp_path)
    shutil.copyfile(folder / "graphs/meco.onnx", folder / "graphs/meco-perturbation.onnx")
    with pytest.raises(ExportError, match=r"does not serve by itself:(.|\n)*graph 'meco-perturbation'"):
        archive.prove(folder)


def test_a_policy_may_take_another_checkpoint_s_perturbation(smoke_graphs: Smoke) -> None:
    other = {"graph": "meco-perturbation", "noise": "fresh"}
    victim = section(smoke_graphs, PolicyTable(predictor="victim", perturb=other))
    assert victim["members"] == ["victim"]
    assert victim["perturb"] == {**other, "noise_shape": [1, 28, 28]}
    assert archive.graphs_of(victim) == ["victim", "meco-perturbation"]
    routed = section(smoke_graphs, PolicyTable(predictor="edm", route={"hash": "projection"}, perturb=other))
    assert archive.graphs_of(routed) == ["edm-0", "edm-1", "edm-2", "hash", "meco-perturbation"]
    assert routed["key_env"] == "TORCHWARDEN_KEY"


def test_only_keyed_noise_asks_for_a_key(smoke_graphs: Smoke) -> None:
    keys = {
        noise: section(smoke_graphs, PolicyTable(predictor="meco", perturb={"noise": noise}))["key_env"]
        for noise in ("fresh", "keyed")
    }
    assert keys == {"fresh": None, "keyed": "TORCHWARDEN_KEY"}
    plain = section(smoke_graphs, PolicyTable(predictor="meco"))
    assert (plain["key_env"], plain["perturb"], plain["members"]) == (None, None, ["meco"])
    assert archive.graphs_of(plain) == ["meco"]


@pytest.mark.parametrize(
    ("predictor", "stated", "message"),
    [
        ("victim", {}, r"victim\.safetensors holds no perturbation 'victim-perturbation'; train one \(python -m train"),
        ("meco", {"graph": "meco"}, r"meco\.safetensors holds no perturbation 'meco'; train one"),
        ("meco", {"graph": "edm-perturbation"}, r"edm\.safetensors holds no perturbation 'edm-perturbation'"),
    ],
)
def test_a_checkpoint_without_a_perturbation_is_named(
    smoke_graphs: Smoke, predictor: str, stated: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=f"perturb: .*{message}"):
        section(smoke_graphs, PolicyTable(predictor=predictor, perturb=stated))


def test_a_missing_perturbation_says_how_to_make_it(smoke_graphs: Smoke, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nope\.safetensors: train it first"):
        section(smoke_graphs, PolicyTable(predictor="meco", perturb={"graph": "nope-perturbation"}))
    broken = Smoke(tmp_path, smoke_graphs.key_file)
    shutil.copytree(smoke_graphs.runs, broken.runs)
    shutil.copytree(smoke_graphs.build, broken.build)
    (broken.build / "smoke/meco-perturbation.onnx").unlink()
    with pytest.raises(ExportError, match=r"no graph at .*meco-perturbation\.onnx: export it first"):
        built(broken, "meco", tmp_path / "store")


@pytest.mark.parametrize("policy", GATED)
def test_an_archive_holds_the_gate_and_its_calibration(gated: Smoke, policy: str) -> None:
    with zipfile.ZipFile(gated.archive(policy)) as packed:
        names = packed.namelist()
        handler = yaml.safe_load(packed.read("model-config.yaml"))["handler"]
    table = recipes.read(RECIPE).family("policies", PolicyTable)[policy].gate
    assert table is not None
    assert "graphs/same.onnx" in names
    made = json.loads((gated.runs / f"smoke/{policy}.calibration.json").read_text())["calibration"]
    gate = {
        "graph": "same",
        "action": table.action,
        "form": "robust",
        "alpha": 0.8,
        "false_positive_rate": 0.01,
        "calibration": made,
    }
    work = {"work": table.work} if policy.endswith("-pow") else {}
    assert handler["gate"] == {**gate, **work}
    assert handler["key_env"] == ("TORCHWARDEN_KEY" if policy.endswith("-pow") else None)


@pytest.mark.parametrize("policy", GATED)
def test_a_gate_lets_the_golden_image_and_digits_pass_and_meets_noise(
    gated: Smoke, policy: str, tmp_path: Path, reached: Reached
) -> None:
    folder = unpacked(gated, policy, tmp_path)
    golden = json.loads((folder / "golden.json").read_text())
    image = np.frombuffer(base64.b64decode(golden["image"]), "<f4").reshape(1, 1, 28, 28)
    digits = datasets.load("digits", "test").pixels[:32]
    noise = torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with InProcessOracle(gated.archive(policy), seed=0) as oracle:
        assert oracle.pipeline(image.copy()).decisions == ("answer",)
        plain, strange = oracle(digits), oracle(noise)
        decisions = set(oracle.pipeline(noise.numpy()).decisions)
    reached("refused of 32 digits", (plain.labels == REFUSED).sum(), below=3.5)
    if policy == "same-observe":
        assert not (strange.labels == REFUSED).any()
    else:
        reached("answered of 32 noise images", (strange.labels != REFUSED).sum(), below=0.5)
    decision_of = {"reject": "reject", "pow": "proof-of-work", "observe": "observe"}
    assert decisions == {decision_of[policy.rpartition("-")[2]]}
    if policy.endswith("-pow"):
        with InProcessOracle(gated.archive(policy), seed=0, pay=True) as oracle:
            paid = oracle(noise)
        assert not (paid.labels == REFUSED).any()
        assert paid.work is not None
        assert float(paid.work.min()) >= 4


def test_the_proof_fails_where_the_gate_stops_the_golden_image(gated: Smoke, tmp_path: Path) -> None:
    folder = unpacked(gated, "same-reject", tmp_path)
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    threshold = config["handler"]["gate"]["calibration"]["thresholds"][0]
    threshold.update(score=-1e6, low=None)
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ExportError, match=r"golden image: the gate's decision is 'reject'"):
        archive.prove(folder)


def test_a_gate_s_archive_is_the_same_bytes_twice_and_holds_no_key(gated: Smoke, tmp_path: Path) -> None:
    key = gated.key_file.read_text().strip()
    with zipfile.ZipFile(gated.archive("same-pow")) as packed:
        for name in packed.namelist():
            assert key.encode() not in packed.read(name), name
            assert bytes.fromhex(key) not in packed.read(name), name
    assert built(gated, "same-pow", tmp_path).read_bytes() == gated.archive("same-pow").read_bytes()


REJECTS = GateTable("reject", "robust", 0.8, 0.01)


@pytest.mark.parametrize(
    ("policy", "table", "message"),
    [
        ("same-reject", PolicyTable("meco", gate=REJECTS), "of another predictor: expected '[0-9a-f]{64}', got"),
        ("same-reject", PolicyTable("victim", gate=replace(REJECTS, alpha=0.5)), "of another alpha: expected 0.5, got"),
        (
            "same-reject",
            PolicyTable("victim", gate=replace(REJECTS, false_positive_rate=0.001)),
            r"rate: expected one of \[0\.01\], the rates that 129 benign images are enough for, got 0\.001",
        ),
    ],
)
def test_a_gate_is_archived_with_no_calibration_but_its_own(
    gated: Smoke, policy: str, table: PolicyTable, message: str
) -> None:
    section(gated, PolicyTable("victim", gate=REJECTS), "same-reject")
    with pytest.raises(CalibrationError, match=message):
        section(gated, table, policy)


def test_a_missing_calibration_says_how_to_make_it(smoke_graphs: Smoke, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "smoke").mkdir(parents=True)
    for name in ("victim", "same"):
        shutil.copyfile(smoke_graphs.runs / f"smoke/{name}.safetensors", runs / f"smoke/{name}.safetensors")
    folders = ["--runs", str(runs), "--build", str(smoke_graphs.build), "--store", str(tmp_path / "store")]
    message = r"same-pow\.calibration\.json: .* found none; .*-m training\.calibration RECIPE --policies same-pow"
    with pytest.raises(SystemExit, match=message):
        archive.main([str(RECIPE), "--policies", "same-pow", *folders])
    assert not (tmp_path / "store").exists()
