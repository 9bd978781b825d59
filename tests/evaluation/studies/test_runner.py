"""What all studies share: registration and help, archives opened once, users' mistakes, and an unharmed report."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import recipes
from bench.costs.registry import COSTS
from evaluation import oracles, recordings
from evaluation.studies import study as studies
from evaluation.studies.registry import STUDIES
from evaluation.studies.runner import MISTAKES, carry_out, main
from evaluation.studies.study import Found, Option, Study, StudyError, Task
from report.schema import ROWS, Report, RoutingRow, read
from tests.evaluation import gated
from tests.evaluation.studies import command
from zoo.datasets import DatasetError

EVERY = {**STUDIES, **COSTS}
# policies of the synthetic recipe that a study takes, and options that make it quick
QUICK: dict[str, tuple[str, ...]] = {
    "utility": ("undefended", "edm"),
    "hashes": ("edm", "--images", "2", "--copies", "2"),
    "coherence": ("edm",),
    "averaging": ("undefended",),
    "detection": ("gate",),
    "false-positives": ("gate",),
    "reconstructions": ("gate",),
    "shifts": ("undefended", "gate"),
    "gates": ("gate", "--batches", "2", "--rounds", "1", "--seconds", "0.01"),
    "precision": ("gate", "--batches", "2", "--rounds", "1", "--seconds", "0.01"),
}
# what hand-made archives lack: facts of a training, TorchScript graphs, noise, the exporter's metadata
TRAINED = {
    "budget",
    "campaigns",
    "gate-scores",
    "marks",
    "quantised",
    "training",
    "gradients",
    "input-noise",
    "defenses",
    "ensembles",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Path:
    """Archives, and in `queries` what the recipe's attackers send."""
    folder = tmp_path_factory.mktemp("studies")
    recipe = recipes.read(gated.recipe(folder))
    for policy in ("undefended", "outlier-exposure"):
        gated.archive(folder, policy)
    gated.archive(folder, "gate", gate=gated.GATE)
    gated.ensemble(folder)
    recordings.recorded(Task(recipe, (), folder, folder).job)
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each archive was opened, by its policy."""
    found: Counter[str] = Counter()
    original = oracles.InProcessOracle.__init__

    def counting(self: oracles.InProcessOracle, archive: Path, **options: Any) -> None:
        found[archive.stem.removeprefix("made-up-")] += 1
        original(self, archive, **options)

    monkeypatch.setattr(oracles.InProcessOracle, "__init__", counting)
    return found


def row(policy: str, rows: int = 1) -> RoutingRow:
    return RoutingRow("made-up", policy, "noise", 0, rows)


def run(measure: Any, folder: Path, *words: str, **facts: Any) -> None:
    """The command line of a registry of one study, `made`, whose function is `measure`."""
    made = Study("made", "made here", measure, policies="any", sections=("routing",), **facts)
    recipe = str(gated.recipe(folder))
    places = ["--run", str(folder), "--store", str(folder)]
    main(studies.registry(made), "tests", ["made", recipe, "--policies", "one", *places, *words])


@pytest.mark.parametrize("name", EVERY)
def test_every_study_says_what_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    study = EVERY[name]
    assert study.name == name
    assert 10 < len(study.about) < 80
    assert not study.about.endswith(".")
    assert set(study.sections) <= set(ROWS)
    idea = sys.modules[study.function.__module__].__doc__
    registry, program = (STUDIES, "evaluation.studies") if name in STUDIES else (COSTS, "bench.costs")
    assert idea is not None
    assert f"python -m {program} {name} RECIPE --" in idea
    with pytest.raises(SystemExit, match="0"):
        main(registry, program, [name, "--help"])
    shown = capsys.readouterr().out
    assert idea.strip() in shown
    assert all(option.flag in shown for option in study.options)
    with pytest.raises(SystemExit, match="0"):
        main(registry, program, ["--help"])
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("name", EVERY)
def test_a_study_s_options_are_the_keywords_of_its_function(name: str) -> None:
    task, *own = inspect.signature(EVERY[name].function).parameters.values()
    assert task.name == "task"
    assert [parameter.name for parameter in own] == [option.name for option in EVERY[name].options]
    assert {parameter.kind for parameter in own} <= {inspect.Parameter.KEYWORD_ONLY}
    assert EVERY.keys() == QUICK.keys() | TRAINED, "a new study runs below, or has a test with trained networks"


@pytest.mark.parametrize("name", QUICK)
def test_every_study_opens_an_archive_once_and_fills_its_sections(
    name: str, store: Path, tmp_path: Path, opened: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.studies.averaging.IMAGES", 2)
    monkeypatch.setattr("evaluation.studies.false_positives.MEASURED_S", 0.01)
    policies = [word for word in QUICK[name] if word in ("undefended", "gate", "edm")]
    own = QUICK[name][len(policies) :]
    registry, program = (STUDIES, "evaluation.studies") if name in STUDIES else (COSTS, "bench.costs")
    places = ["--run", str(tmp_path), "--store", str(store)]
    (tmp_path / recordings.FOLDER).symlink_to(store / recordings.FOLDER)
    # named twice, and still opened once
    main(registry, program, [name, str(store / "made-up.toml"), *places, "--policies", *policies, policies[0], *own])
    assert set(policies) <= opened.keys()
    assert set(opened.values()) == {1}
    if not EVERY[name].sections:
        assert not (tmp_path / "report.json").exists()
        return
    report = read(tmp_path / "report.json")
    filled = {section for section in ROWS if getattr(report, section)}
    assert filled <= set(EVERY[name].sections)
    assert filled, "no row at all"


def test_an_archive_is_closed_before_the_next_is_opened(store: Path, tmp_path: Path) -> None:
    task = Task(recipes.read(store / "made-up.toml"), ("undefended", "gate"), tmp_path, store)
    (first, one), *rest = ((policy, oracle.folder) for policy, oracle in task.oracles())
    assert (first, [policy for policy, _ in rest]) == ("undefended", ["gate"])
    assert not one.exists()
    asked = task.oracles()
    _, oracle = next(asked)
    _, other = next(asked)
    assert not oracle.folder.exists()
    assert other.folder.exists()
    asked.close()  # type: ignore[attr-defined]  # a generator
    assert not other.folder.exists()


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda kind: kind.__name__)
def test_a_user_s_mistake_is_one_line(mistake: type[Exception], tmp_path: Path) -> None:
    def measure(task: Task) -> Iterator[Found]:
        raise mistake("no such thing")
        yield

    with pytest.raises(SystemExit) as left:
        run(measure, tmp_path)
    assert left.value.code == "tests made: no such thing"  # which Python prints on stderr, with exit code 1


def test_anything_else_is_a_traceback(tmp_path: Path) -> None:
    def measure(task: Task) -> Iterator[Found]:
        raise KeyError("a fault of ours")
        yield

    with pytest.raises(KeyError):
        run(measure, tmp_path)


def test_mistakes_of_the_command_line(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(STUDIES, "evaluation.studies", ["nothing"])
    shown = capsys.readouterr().err
    assert all(repr(name) in shown for name in STUDIES)
    for words, message in (
        (("--images", "0"), "argument --images: expected at least 1, got 0"),
        (("--copies", "x"), "argument --copies: expected a number, got 'x'"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command.study("hashes", "--policies", "edm", *words, run=tmp_path, store=store)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"evaluation.studies hashes: no recipe 'nothing': expected one of"):
        command.study("hashes", "--policies", "edm", run=tmp_path, store=store, recipe=Path("nothing"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", [StudyError("half way"), KeyError("a fault"), KeyboardInterrupt()])
def test_a_study_that_ends_half_way_leaves_the_report_as_it_was(fault: BaseException, tmp_path: Path) -> None:
    def whole(task: Task) -> Iterator[Found]:
        yield Found([row("one"), row("two")], settings={"made": 1})

    def broken(task: Task) -> Iterator[Found]:
        yield Found([row("one", rows=2)], says="one is done", settings={"made": 2})
        raise fault

    run(whole, tmp_path)
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises((SystemExit, type(fault))):
        run(broken, tmp_path)
    assert (tmp_path / "report.json").read_bytes() == before
    assert not list(tmp_path.glob(".report*"))


def test_a_study_s_rows_settings_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}

    def measure(task: Task, *, sizes: tuple[int, ...], kind: str | None, names: tuple[str, ...]) -> Iterator[Found]:
        seen.update(policies=task.policies, sizes=list(sizes), kind=kind, names=list(names))
        yield Found(settings={"a": 1})
        yield Found([row("one")], says="one")
        yield Found([row("two")], says="two", settings={"b": 2})

    options = (Option("sizes", (1, 2), "some", least=1), Option("kind", None, "one"), Option("names", (), "some"))
    run(measure, tmp_path, "--policies", "x", "y", "x", "--sizes", "3", options=options)
    assert seen == {"policies": ("x", "y"), "sizes": [3], "kind": None, "names": []}
    report: Report = read(tmp_path / "report.json")
    assert [found.policy for found in report.routing] == ["one", "two"]
    assert report.run.settings == {"a": 1, "b": 2}
    assert capsys.readouterr().out == "one\ntwo\n"
    run(measure, tmp_path, "--sizes", "4", "5", "--kind", "k", "--names", "a", "b", options=options)
    assert seen == {"policies": ("one",), "sizes": [4, 5], "kind": "k", "names": ["a", "b"]}


def test_a_row_of_a_section_that_was_not_declared_is_our_fault(store: Path, tmp_path: Path) -> None:
    def measure(task: Task) -> Iterator[Found]:
        yield Found([row("one")])

    made = Study("made", "made here", measure, policies="any", sections=("policies",))
    with pytest.raises(KeyError, match="RoutingRow"):
        carry_out(made, Task(recipes.read(store / "made-up.toml"), (), tmp_path, store))


def test_the_test_split_is_loaded_when_it_is_needed(store: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "other.toml"
    recipe.write_text('[dataset]\nname = "nothing"\n')
    task = Task(recipes.read(recipe), ("undefended",), tmp_path, store)
    with pytest.raises((recipes.RecipeError, DatasetError), match="nothing"):
        _ = task.test
    assert task.archive("undefended") == store / "other-undefended.mar"
