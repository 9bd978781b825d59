"""Curves from percentiles, and pictures of reconstructions."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import recipes
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies import reconstructions
from evaluation.studies.study import StudyError, Task
from report.figures import gates
from tests.data_sets import digits_test
from tests.evaluation import gated
from tests.report.synthetic import curve_row


def area(benign: float, attack: float) -> float:
    fpr, tpr = gates.roc(curve_row("benign (x)", benign), curve_row("attack", attack))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    return float(np.trapezoid(tpr, fpr))


def test_an_roc_from_percentiles() -> None:
    assert area(0, 20) == pytest.approx(1)
    assert area(20, 0) == pytest.approx(0)
    assert area(0, 0) == pytest.approx(0.5)
    # both even over ten, half of it apart: one minus half of the square of what they share
    assert area(0, 5) == pytest.approx(1 - 0.5**2 / 2, abs=0.01)


def test_histograms_take_any_score() -> None:
    for start in (-1e6, 0, 1e-9, 1e6):
        rows = [curve_row("benign (x)", 0), curve_row("attack", start)]
        assert "<!-- attack -->" in gates.histograms(rows, threshold=None)
    still = [curve_row(name, 0, percentiles=[1.0] * 101) for name in ("benign (x)", "attack")]
    assert "<svg" in gates.histograms(still, threshold=1.0)


def test_pictures_are_as_large_as_needed_and_always_the_same() -> None:
    grey = np.full((8, 1, 28, 28), 0.5, np.float32)
    colours = np.full((8, 3, 32, 32), 1.5, np.float32)  # clipped
    png = gates.pictures({"benign": (grey, grey * 0), "thief": (colours, colours)})
    assert png == gates.pictures({"benign": (grey, grey * 0), "thief": (colours, colours)})
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert shown.shape[1] > 300
    assert {0, 127, 128, 255} & set(shown.flatten().tolist()) >= {0, 255}


def test_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gated.archive(tmp_path, "undefended")
    gated.archive(tmp_path, "same", gate=gated.GATE)
    drawn: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def kept(kinds: dict[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
        drawn.update(kinds)
        return b"a picture"

    monkeypatch.setattr(gates, "pictures", kept)
    task = Task(recipes.read(gated.recipe(tmp_path)), ("same",), tmp_path / "run", tmp_path)
    (found,) = reconstructions.study(task)
    assert found.says == str(tmp_path / "run" / "reconstructions.png")
    assert (tmp_path / "run" / "reconstructions.png").read_bytes() == b"a picture"
    assert list(drawn) == ["benign (digits)", "knockoff (flower)", "steps, without its seeds"]
    for images, made in drawn.values():
        assert images.shape == (8, 1, 28, 28)
        assert np.allclose(made, gated.reconstructed(images), atol=1e-6)
    assert (drawn["benign (digits)"][0][-1] == digits_test().pixels[-1].numpy()).all()
    with pytest.raises(OracleError, match="made-up-undefended: expected a policy with a gate, got none"):
        list(reconstructions.study(dataclasses.replace(task, policies=("undefended",))))
    with pytest.raises(StudyError, match="expected one policy, whose gate is pictured, got same, undefended"):
        list(reconstructions.study(dataclasses.replace(task, policies=("same", "undefended"))))


def test_a_graph_that_returns_no_reconstruction(tmp_path: Path) -> None:
    with InProcessOracle(gated.archive(tmp_path, "same", gate=gated.GATE)) as oracle:
        oracle.pipeline.graphs = {"same": lambda images: {"error": images}}
        with pytest.raises(OracleError, match="graph 'same': expected an output `reconstruction`, got error"):
            reconstructions.made(oracle, np.zeros((1, 1, 28, 28), np.float32))
