"""A graph is exported once for a checkpoint, and again where anything is not as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch

from export import graphs, made
from tests.product import RECIPE
from training import checkpoint
from training.checkpoint import Architecture

PLAN = Architecture("lenet5", {"classes": 10, "channels": 1, "size": 28, "mean": [0.5], "std": [0.5]})
FIRST, SECOND = ("victim.onnx", "victim.ts.pt"), ("other-0.onnx", "other-0.ts.pt", "other-1.onnx", "other-1.ts.pt")


class Place:
    """A recipe's checkpoints, and its graphs."""

    def __init__(self, folder: Path) -> None:
        self.runs, self.build = folder / "runs", folder / "build"
        self.graphs = self.build / "smoke"

    def trained(self, name: str, *, networks: int = 1, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        path = self.runs / f"smoke/{name}.safetensors"
        facts = {"classes": list("0123456789")}
        checkpoint.save(path, [PLAN.network().eval() for _ in range(networks)], [PLAN] * networks, facts)
        return path

    def exported(self) -> set[str]:
        """The files that an export has written now."""
        before = self.written()
        graphs.main([str(RECIPE), "--runs", str(self.runs), "--build", str(self.build)])
        return {name for name, at in self.written().items() if before.get(name) != at}

    def written(self) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in self.graphs.glob("[!.]*")}

    def made_of(self, name: str) -> str:
        proto = onnx.load(self.graphs / name)
        return {each.key: each.value for each in proto.metadata_props}["checkpoint"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made.maker.cache_clear()
    found = Place(tmp_path)
    found.trained("victim")
    assert found.exported() == {*FIRST}
    yield found
    made.maker.cache_clear()


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")


def test_only_what_is_new_or_of_another_checkpoint_is_exported(place: Place) -> None:
    assert place.exported() == set()
    place.trained("other", networks=2, seed=1)
    assert place.exported() == {*SECOND}
    assert place.exported() == set()
    again = place.trained("victim", seed=2)
    assert place.exported() == {*FIRST}
    assert place.made_of("victim.onnx") == hashlib.sha256(again.read_bytes()).hexdigest()
    assert place.exported() == set()


@pytest.mark.parametrize("name", FIRST)
def test_a_damaged_graph_is_made_again_with_the_bytes_that_it_had(place: Place, name: str) -> None:
    before = (place.graphs / name).read_bytes()
    for damaged in (before[:-10], bytes([before[0] ^ 1]) + before[1:], None):
        if damaged is None:
            (place.graphs / name).unlink()
        else:
            (place.graphs / name).write_bytes(damaged)
        assert name in place.exported()
        assert (place.graphs / name).read_bytes() == before


@pytest.mark.parametrize("listed", ["", "[]", '{"victim.onnx": {"sha256": "0"}}', None])
def test_what_no_list_vouches_for_is_made_again(place: Place, listed: str | None) -> None:
    if listed is None:
        (place.graphs / made.NAME).unlink()
    else:
        (place.graphs / made.NAME).write_text(listed)
    assert place.exported() == {*FIRST}
    assert place.exported() == set()


def test_another_exporter_makes_all_graphs_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    own = made.maker(made.CODE)
    monkeypatch.setattr(made, "CODE", (*made.CODE, "export/archive.py"))
    assert made.maker(made.CODE) != own
    assert place.exported() == {*FIRST}


def test_a_graph_that_is_made_again_is_checked_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (place.graphs / name).read_bytes() for name in FIRST}
    place.trained("victim", seed=3)
    monkeypatch.setattr(graphs, "BOUND", -1.0)
    monkeypatch.setattr(graphs, "ROUNDING", 0)
    with pytest.raises(SystemExit, match=r"victim\.onnx: probabilities differs from torch's by"):
        place.exported()
    assert {name: (place.graphs / name).read_bytes() for name in FIRST} == before
    monkeypatch.undo()
    assert place.exported() == {*FIRST}
