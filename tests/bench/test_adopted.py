"""What the measurement of an adopted model is made of: real files, real programs, real steps, small."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime, timezone
from pathlib import Path

import pytest
import torch
from PIL import Image

import recipes
from bench.adopted import __main__ as command
from bench.adopted import adopting, owner, photographs, programs, reading
from bench.adopted.__main__ import report
from bench.adopted.epochs import epoch_seconds
from bench.adopted.programs import ProgramError
from bench.adopted.recipe import tiers
from bench.adopted.workplace import Workplace, room_for
from recipes.check import check
from report.rows.adopted import ProgramRow, ReadingRow
from report.rows.bench import DefenseCostRow
from report.schema import read
from training.black_box import black_box
from zoo.datasets import load
from zoo.stored import VARIABLE

RECIPE = """
[dataset]
name = "imagefolder:{images}"
size = 28
[victim]
architecture = "lenet5"
optimisation = {{ epochs = 2, batch_size = 4 }}
"""


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "maps"))
    monkeypatch.setattr(photographs, "DRAWN", 8)
    return photographs.write(tmp_path / "photographs" / "train", 40, seed=0).parent


def test_photographs_are_different_files_of_four_classes_and_several_sizes(images: Path) -> None:
    files = sorted(images.glob("train/*/*.jpg"))
    assert {file.parent.name for file in files} == set(photographs.CLASSES)
    assert len({hashlib.sha256(file.read_bytes()).digest() for file in files}) == 40
    pixels = {}
    for file in files:
        with Image.open(io.BytesIO(file.read_bytes())) as picture:
            pixels.setdefault((picture.size, hashlib.sha256(picture.tobytes()).digest()), []).append(file.parent.name)
    # eight pictures, five files of each, always in one class
    assert len(pixels) == 8
    assert all(len(names) == 5 and len(set(names)) == 1 for names in pixels.values())
    assert len({size for size, _ in pixels}) > 1
    assert len(load(f"imagefolder:{images}/train", "train", size=16, share=0.01)) >= 30


def test_a_program_is_timed_and_what_it_holds_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "CHECKOUT", tmp_path)
    (tmp_path / "holding.py").write_text(
        "import sys, time\nheld = b'x' * (100 * 10**6)\nprint('held')\ntime.sleep(1)\n"
    )
    ran = programs.run("holding", log=tmp_path / "log")
    assert 1 < ran.seconds < 20
    if Path("/proc/self/smaps_rollup").exists():
        assert set(ran.peak_mb) == {"resident", "proportional", "anonymous"}
        assert 100 < ran.peak_mb["anonymous"] <= ran.peak_mb["resident"] < 200
    assert (tmp_path / "log").read_text() == "held\n"
    (tmp_path / "failing.py").write_text("import sys\nprint('a reason')\nsys.exit(3)\n")
    with pytest.raises(ProgramError, match=r"-m failing: exit code 3\na reason"):
        programs.run("failing", log=tmp_path / "log")


def test_steps_are_read_and_computed_in_turn_and_epochs_are_timed(tmp_path: Path, images: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE.format(images=images), "utf-8")
    row = reading.steps(str(recipe), 3, rounds=2)
    assert (row.photographs, row.batch, row.steps, row.member) == (40, 4, 3, "lenet5 at 28")
    assert len(row.reading_ms_rounds) == len(row.computing_ms_rounds) == 2
    assert min(*row.reading_ms_rounds, *row.computing_ms_rounds, row.cold_ms) > 0
    programs.run("training.victim", recipe, "--runs", tmp_path / "runs", log=tmp_path / "log")
    seconds = epoch_seconds(tmp_path / "runs/small/tensorboard/victim")
    assert len(seconds) == 2
    assert min(seconds) >= 0
    with pytest.raises(ProgramError, match="expected the seconds of epochs"):
        epoch_seconds(tmp_path)


@pytest.mark.drill
def test_the_owner_s_network_is_adopted_in_both_forms(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small in that few pictures are tried; the network is the measurement's own."""
    monkeypatch.setattr("bench.adopted.workplace.FITTED", 48)
    monkeypatch.setattr(adopting, "ROUNDS", 1)
    place = Workplace(tmp_path / "place", 0)
    rows = list(adopting.measure(place))
    assert [row.what for row in rows] == ["adopt weights", "adopt graph"]
    assert all(row.seconds > 1 for row in rows)
    given = torch.rand(3, 3, owner.SIDE, owner.SIDE, generator=torch.Generator().manual_seed(0))
    answers = [black_box("victim", place.runs / name).answer(given) for name in ("adopt-weights", "adopt-graph")]
    assert answers[0].shape == answers[1].shape == (3, 4)
    recipe = tiers(place.folder / "adopt-weights.toml")
    assert check(str(recipe)) == []
    for tier in ("serving", "reading", "reading-whole", "reading-copies", "gate", "meco"):
        assert recipes.read(f"{recipe}@{tier}").name == f"adopt-weights-{tier}"


def test_rows_go_to_their_sections() -> None:
    program = ProgramRow("gate", "training.same", 1, (1.0,), {}, {})
    steps = ReadingRow("x", 1, 1, 1, (1.0,), (1.0,), 1.0)
    found = report([program, steps], datetime.now(timezone.utc), {"load before gate": 0.1})
    assert found.run.settings == {"load before gate": 0.1}
    assert (found.adopted_programs, found.adopted_reading, found.defense_costs) == ((program,), (steps,), ())


def test_too_small_a_disk_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"1000000 GB of disk are needed .*, [\d.]+ are free"):
        room_for(tmp_path, 10**15)


def test_rows_of_a_part_replace_their_like_and_stand_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(defense: str, ms: float) -> DefenseCostRow:
        return DefenseCostRow("r", 1, defense, "served", 1, ms, (ms,), (1.0,), None)

    def program(what: str) -> ProgramRow:
        return ProgramRow(what, "training.x", 1, (1.0,), {}, {})

    output = tmp_path / "results.json"
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setenv("TORCHWARDEN_KEY_FILE", "")
    for ms in (2.0, 3.0):
        rows = [program("edm"), cost("same-observe", ms), cost("edm", ms)]
        monkeypatch.setattr(command, "PARTS", {"serving": lambda place, rows=rows: iter(rows)})
        monkeypatch.setattr(command, "DISK", 1)
        command.measure(tmp_path, ["serving"], output)
    found = read(output)
    assert [(row.defense, row.ms) for row in found.defense_costs] == [("same-observe", 3.0), ("edm", 3.0)]
    assert [row.what for row in found.adopted_programs] == ["edm"]
    assert "load before serving" in found.run.settings
