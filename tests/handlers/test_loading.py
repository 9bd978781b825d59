from __future__ import annotations

import itertools
import logging
import time
from pathlib import Path

import numpy as np
import pytest

from defenses.mark import commitment, secret
from handlers.backends import BACKENDS
from handlers.errors import KeyMissing, LoadError
from handlers.loading import load, open_toll
from tests.defenses.policies import FRESH, KEYED, routed, section
from tests.handlers.archives import ENVIRON, KEY, gate, write_archive, write_noisy_onnx, write_onnx


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_archive_answers(tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_archive(tmp_path / "edm", routed(backend=backend))
    with caplog.at_level(logging.INFO, "handlers"):
        pipeline = load(folder, environ=ENVIRON)
    answers = pipeline(np.random.default_rng(0).random((16, 1, 4, 5), dtype=np.float32))
    assert answers.probabilities is not None
    assert answers.probabilities.shape == (16, 3)
    assert len(set(answers.members.tolist())) > 1
    said = caplog.text
    assert "digits-edm runs on " in said
    assert KEY.hex() not in said


def test_both_backends_give_the_same_answers(tmp_path: Path) -> None:
    images = np.random.default_rng(1).random((16, 1, 4, 5), dtype=np.float32)
    onnx, script = (
        load(write_archive(tmp_path / name, routed(backend=name)), environ=ENVIRON)(images) for name in BACKENDS
    )
    assert onnx.members.tolist() == script.members.tolist()
    assert onnx.probabilities is not None
    assert script.probabilities is not None
    np.testing.assert_allclose(onnx.probabilities, script.probabilities, atol=1e-6)


def test_another_key_routes_otherwise(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "edm", routed())
    images = np.random.default_rng(1).random((32, 1, 4, 5), dtype=np.float32)
    one, other = (load(folder, environ={"TORCHWARDEN_KEY": key * 64})(images) for key in "ab")
    assert one.members.tolist() != other.members.tolist()


def test_a_policy_without_a_route_needs_no_key(tmp_path: Path) -> None:
    load(write_archive(tmp_path / "plain", section()), environ={})
    with pytest.raises(KeyMissing, match="no key: neither"):
        load(write_archive(tmp_path / "edm", routed()), environ={})


def test_marks_are_served_with_a_committed_key_alone(tmp_path: Path) -> None:
    mark = {"strength": 0.02, "parts": 2, "grid": 2, "commitments": [commitment(secret(KEY))]}
    folder = write_archive(tmp_path / "marked", routed(mark=mark))
    load(folder, environ=ENVIRON)
    with pytest.raises(
        LoadError, match=r"policy: mark: commitments: expected a key with one of .* archive again"
    ) as caught:
        load(folder, environ={"TORCHWARDEN_KEY": "a" * 64})
    assert "a" * 13 not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "mad", "epsilon": 0.5},
        {"rule": "adaptive_misinformation", "nu": 1000.0, "tau": 0.9},
    ],
)
def test_a_response_rule_s_graph_comes_with_the_archive(tmp_path: Path, backend: str, rule: dict[str, object]) -> None:
    folder = write_archive(tmp_path / "poisoned", section(backend=backend, response=rule))
    images = np.random.default_rng(1).random((16, 1, 4, 5), dtype=np.float32)
    pipeline = load(folder, environ={})
    shown, plain = pipeline(images).probabilities, pipeline.graphs["victim"](images)["probabilities"]
    assert shown is not None
    assert np.abs(shown - plain).sum(axis=1).max() > 0.1
    (name,) = pipeline.policy.consulted
    (path,) = (folder / "graphs").glob(f"{name}.*")
    path.unlink()
    with pytest.raises(LoadError, match=rf"graphs/{path.name}: the policy needs it and the archive has none"):
        load(folder, environ={})


def test_noise_is_fresh_but_where_a_seed_is_given(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "noisy", section(response={"rule": "randp", "epsilon": 0.5}))
    images = np.random.default_rng(1).random((4, 1, 4, 5), dtype=np.float32)
    shown = [load(folder, environ={}, seed=seed)(images).probabilities for seed in (1, 1, 2, None, None)]
    assert np.array_equal(shown[0], shown[1])
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(shown[1:], 2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("perturb", [FRESH, KEYED])
def test_a_perturbation_comes_with_the_archive_and_moves_its_answers(
    tmp_path: Path, backend: str, perturb: dict[str, object]
) -> None:
    changes = {"backend": backend, "perturb": perturb, "key_env": "TORCHWARDEN_KEY"}
    folder = write_archive(tmp_path / "noisy", section(**changes))
    images = np.random.default_rng(1).random((16, 1, 4, 5), dtype=np.float32)
    pipeline = load(folder, environ=ENVIRON, seed=1)
    shown, plain = pipeline(images).probabilities, pipeline.graphs["victim"](images)["probabilities"]
    assert shown is not None
    assert np.abs(shown - plain).sum(axis=1).max() > 0.1
    assert (pipeline.perturbed(images) - images).std() == pytest.approx(0.25, abs=0.05)
    (path,) = (folder / "graphs").glob("perturbation.*")
    path.unlink()
    with pytest.raises(LoadError, match=rf"graphs/{path.name}: the policy needs it and the archive has none"):
        load(folder, environ=ENVIRON)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gate_s_graph_comes_with_the_archive(tmp_path: Path, backend: str) -> None:
    folder = write_archive(tmp_path / "gated", section(backend=backend, gate=gate("reject")))
    pipeline = load(folder, environ={})
    images = np.stack([np.full((1, 4, 5), level, np.float32) for level in (0.5, 0.6, 0.75, 1.0)])
    answers = pipeline(images)
    assert answers.decisions == ("answer", "answer", "reject", "reject")
    assert answers.scores is not None
    np.testing.assert_allclose(answers.scores.score, [0, 0.2, 1.25, 5], atol=1e-5)
    (path,) = (folder / "graphs").glob("same.*")
    path.unlink()
    with pytest.raises(LoadError, match=rf"graphs/{path.name}: the policy needs it and the archive has none"):
        load(folder, environ={})


def test_a_policy_that_asks_for_work_needs_a_key_and_a_toll(tmp_path: Path) -> None:
    paid = section(gate=gate("proof-of-work"), key_env="TORCHWARDEN_KEY")
    with pytest.raises(KeyMissing, match="no key: neither"):
        load(write_archive(tmp_path / "paid", paid), environ={})
    policy = load(tmp_path / "paid", environ=ENVIRON).policy
    with pytest.raises(KeyMissing, match="no key: neither"):
        open_toll(policy, {"TORCHWARDEN_STATE": str(tmp_path)})
    with pytest.raises(LoadError, match=r"neither \$TORCHWARDEN_STATE"):
        open_toll(policy, ENVIRON)
    for action in ("observe", "reject"):
        free = load(write_archive(tmp_path / action, section(gate=gate(action))), environ={}).policy
        assert open_toll(free, {}) is None


def test_both_backends_draw_the_same_noise(tmp_path: Path) -> None:
    images = np.random.default_rng(1).random((16, 1, 4, 5), dtype=np.float32)
    for kind, perturb in (("fresh", FRESH), ("keyed", KEYED)):
        onnx, script = (
            load(write_archive(tmp_path / kind / name, routed(backend=name, perturb=perturb)), environ=ENVIRON, seed=5)
            for name in BACKENDS
        )
        np.testing.assert_allclose(onnx.perturbed(images), script.perturbed(images), atol=1e-6)


def test_perturbations_are_fresh_but_where_a_seed_is_given(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "noisy", section(perturb=FRESH))
    images = np.random.default_rng(1).random((4, 1, 4, 5), dtype=np.float32)

    def shown(seed: int | None) -> list[bytes]:
        pipeline = load(folder, environ={}, seed=seed)
        return [pipeline.perturbed(images).tobytes() for _ in range(2)]

    seeded, again, other, fresh, fresher = (shown(seed) for seed in (1, 1, 2, None, None))
    assert seeded == again
    assert len({*seeded, *other, *fresh, *fresher}) == 8


def test_keyed_noise_is_the_key_s_and_no_seed_s(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "noisy", section(perturb=KEYED, key_env="TORCHWARDEN_KEY"))
    images = np.random.default_rng(1).random((4, 1, 4, 5), dtype=np.float32)

    def shown(key: str, seed: int | None) -> bytes:
        return load(folder, environ={"TORCHWARDEN_KEY": key * 64}, seed=seed).perturbed(images).tobytes()

    assert len({shown("a", seed) for seed in (1, 2, None)}) == 1
    assert shown("b", 1) != shown("a", 1)
    with pytest.raises(KeyMissing, match="no key: neither"):
        load(folder, environ={})


def test_periods_are_those_of_the_wall_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    perturb = {**KEYED, "period": 3600}
    pipeline = load(write_archive(tmp_path / "noisy", routed(perturb=perturb)), environ=ENVIRON)
    images = np.random.default_rng(1).random((4, 1, 4, 5), dtype=np.float32)
    first = pipeline.perturbed(images).tobytes()
    assert pipeline.perturbed(images).tobytes() == first
    now[0] += 3600
    assert pipeline.perturbed(images).tobytes() != first
    now[0] -= 3600
    assert pipeline.perturbed(images).tobytes() == first


def test_a_perturbation_that_does_not_fit_its_policy_is_a_load_error(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "noisy", section(perturb=FRESH))
    path = folder / "graphs" / "perturbation.onnx"
    write_noisy_onnx(path, (1, 8, 8))
    with pytest.raises(LoadError, match=r"graph 'perturbation', asked for \(2, 1, 4, 5\) images: "):
        load(folder, environ={})
    write_onnx(path, "perturbation", (1, 4, 5), 20, "perturbed")
    with pytest.raises(LoadError, match=r"graph 'perturbation', asked for \(2, 1, 4, 5\) images: "):
        load(folder, environ={})
    other = write_archive(tmp_path / "other", section(perturb={**FRESH, "noise_shape": [7]}))
    with pytest.raises(LoadError, match=r"graph 'perturbation', asked for \(2, 1, 4, 5\) images: "):
        load(other, environ={})


def test_a_policy_that_cannot_be_read_is_a_load_error(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "plain", section())
    config = folder / "model-config.yaml"
    config.write_text("handler: {recipe: digits, colour: red}")
    with pytest.raises(LoadError, match=r"model-config.yaml: policy: unknown key 'colour'"):
        load(folder, environ={})
    for empty in ("minWorkers: 1", "", "[]"):
        config.write_text(empty)
        with pytest.raises(LoadError, match="expected a `handler:` section, which is the policy; found none"):
            load(folder, environ={})
    config.write_text("handler: {")
    with pytest.raises(LoadError, match=r"(?s)model-config.yaml: cannot be read: .*Build the archive again"):
        load(folder, environ={})
    config.unlink()
    with pytest.raises(LoadError, match=r"model-config.yaml: cannot be read: .*No such file"):
        load(folder, environ={})


def test_an_unknown_backend_is_a_load_error(tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "plain", section(backend="tensorrt"))
    with pytest.raises(LoadError, match="backend: expected one of onnxruntime, torchscript, got 'tensorrt'"):
        load(folder, environ={})


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_corrupt_and_a_missing_graph_are_load_errors(tmp_path: Path, backend: str) -> None:
    folder = write_archive(tmp_path / "plain", section(backend=backend))
    (graph,) = (folder / "graphs").iterdir()
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(LoadError, match=rf"(?s)graphs/{graph.name} cannot be opened by {backend}: .*Build the archive"):
        load(folder, environ={})
    graph.unlink()
    with pytest.raises(LoadError, match=rf"graphs/{graph.name}: the policy needs it and the archive has none"):
        load(folder, environ={})


@pytest.mark.parametrize(
    ("shape", "classes", "output", "message"),
    [
        (
            (1, 4, 5),
            4,
            "probabilities",
            r"graph 'victim', .*: probabilities: expected float32 \(2, 3\), got .* \(2, 4\)",
        ),
        (
            (1, 4, 5),
            3,
            "scores",
            r"graph 'victim', .*: expected an output named 'probabilities', .* has scores",
        ),
        ((1, 8, 8), 3, "probabilities", r"graph 'victim', asked for \(2, 1, 4, 5\) images: "),
    ],
)
def test_a_graph_that_does_not_fit_its_policy_is_a_load_error(
    tmp_path: Path, shape: tuple[int, ...], classes: int, output: str, message: str
) -> None:
    folder = write_archive(tmp_path / "plain", section())
    write_onnx(folder / "graphs" / "victim.onnx", "victim", shape, classes, output)
    with pytest.raises(LoadError, match=message):
        load(folder, environ={})


def test_a_graph_without_its_softmax_is_a_load_error(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    folder = write_archive(tmp_path / "plain", section())
    path = folder / "graphs" / "victim.onnx"
    model = onnx.load(path)
    softmax = model.graph.node[-1]
    model.graph.node.remove(softmax)
    model.graph.node.append(helper.make_node("Identity", ["logits"], ["probabilities"]))
    onnx.save(model, path)
    with pytest.raises(LoadError, match="graph 'victim': expected finite outputs and probabilities that sum to 1"):
        load(folder, environ={})
