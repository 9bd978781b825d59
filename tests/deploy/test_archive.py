"""Archives are checked whole before anything starts, and each refusal names the archive and the reason."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from deploy import archive
from deploy.errors import RefusedError
from tests.deploy import tiny


def test_reads_what_the_launcher_needs(tmp_path: Path) -> None:
    config = {"minWorkers": 2, "jobQueueSize": 50}
    path = tiny.build(tmp_path, "digits-edm", key_env="TORCHWARDEN_KEY", config=config)
    read = archive.read(path)
    assert read == archive.Archive(
        path=path,
        name="digits-edm",
        workers=2,
        threads=1,
        key_env="TORCHWARDEN_KEY",
        exact=True,
        image=tiny.pixels(0.75),
        accepted=((0.25, 0.75),),
        queue=50,
        response_seconds=10,
        shape=(1, 2, 2),
        classes=("dark", "bright"),
    )


def test_what_is_remembered_is_recalled(tmp_path: Path) -> None:
    read = [archive.read(tiny.build(tmp_path, name)) for name in ("a", "b")]
    archive.remember(tmp_path / "expected.json", read)
    assert archive.recall(tmp_path / "expected.json") == read


def test_selects_by_name_or_all_and_each_once(tmp_path: Path) -> None:
    for name in ("b", "a"):
        tiny.build(tmp_path, name)
    assert [found.name for found in archive.select(tmp_path)] == ["a", "b"]
    assert [found.name for found in archive.select(tmp_path, ["b", "b"])] == ["b"]
    with pytest.raises(RefusedError, match=r"no archive of that name in .*: c; there are a, b"):
        archive.select(tmp_path, ["a", "c"])


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=rf"no archives \(\*\.mar\) in {re.escape(str(tmp_path))}"):
        archive.select(tmp_path)


def test_a_flipped_byte_in_a_member_is_found(tmp_path: Path) -> None:
    path = tiny.build(tmp_path, "flipped")
    content = bytearray(path.read_bytes())
    content[content.index(b"class Brightness")] ^= 1
    path.write_bytes(content)
    with pytest.raises(RefusedError, match=r"archive .*flipped\.mar is not usable: checksum of handler\.py is wrong"):
        archive.read(path)


def test_a_runtime_that_is_not_the_servers_own_is_refused(tmp_path: Path) -> None:
    path = tiny.build(tmp_path, "elsewhere")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    members[archive.MANIFEST] = members[archive.MANIFEST].replace(b'"runtime": "python"', b'"runtime": "python3"')
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    assert path.read_bytes() != content
    with pytest.raises(RefusedError, match=r"runtime: expected 'python', the server's own, got 'python3'"):
        archive.read(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_archive_is_refused(tmp_path: Path, share: float) -> None:
    path = tiny.build(tmp_path, "short")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RefusedError, match=r"archive .*short\.mar is not usable: File is not a zip file"):
        archive.read(path)


@pytest.mark.parametrize("member", [archive.MANIFEST, archive.CONFIG, archive.GOLDEN])
def test_a_member_that_is_missing_is_named(tmp_path: Path, member: str) -> None:
    with pytest.raises(RefusedError, match=rf"partial\.mar is not usable: expected {re.escape(member)} in it"):
        archive.read(tiny.build(tmp_path, "partial", without=member))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"minWorkers": 0}, "model-config.yaml: minWorkers: expected at least 1, got 0"),
        ({"minWorkers": True}, "model-config.yaml: minWorkers: expected int, got True"),
        ({"maxWorkers": None}, "model-config.yaml: maxWorkers: expected int, got None"),
        ({"handler": None}, "model-config.yaml: handler: expected dict, got None"),
        ({"handler": {"response": {"rule": "soft"}}}, "handler: threads: expected int, got None"),
        ({"handler": {"threads": 1, "response": {}}}, "handler.response: rule: expected str, got None"),
        (
            {"handler": {"threads": 1, "key_env": "A B", "response": {"rule": "soft"}}},
            "key_env: expected .*got 'A B'",
        ),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(RefusedError, match=message):
        archive.read(tiny.build(tmp_path, "odd", config=config))


@pytest.mark.parametrize("accepted", [(), ((),), ((0.5, 0.5), (1.0,))])
def test_golden_rows_must_have_one_length(tmp_path: Path, accepted: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(RefusedError, match=r"golden\.json: accepted: expected rows of one length"):
        archive.read(tiny.build(tmp_path, "golden", accepted=accepted))


def test_a_name_must_fit_a_url(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="its name must match"):
        archive.read(tiny.build(tmp_path, "a,b"))


def test_the_budget_warns_above_the_cores(tmp_path: Path) -> None:
    served = [archive.read(tiny.build(tmp_path, name, config={"minWorkers": 2})) for name in ("a", "b")]
    assert archive.budget(served, 4) == "budget: workers 4, their threads 4, cores 4"
    assert "warning: more threads than cores" in archive.budget(served, 3)


HANDLER = {
    "threads": 1,
    "response": {"rule": "soft"},
    "input": {"channels": 3, "height": 4, "width": 5},
    "class_names": ["a", "b"],
}


def test_reads_what_probes_and_alerts_need(tmp_path: Path) -> None:
    section = {"principal_header": "X-Client", "members": ["edm-0", "edm-1"], "gate": {"false_positive_rate": 0.01}}
    read = archive.read(tiny.build(tmp_path, "a", config={"handler": HANDLER | section}))
    assert (read.version, read.principal_header, read.members, read.suspects) == ("1.0", "X-Client", 2, 0.01)
    archive.remember(tmp_path / "expected.json", [read])
    assert archive.recall(tmp_path / "expected.json") == [read]
    assert (read.shape, read.classes, read.probabilities) == ((3, 4, 5), ("a", "b"), True)
    plain = archive.read(tiny.build(tmp_path, "b"))
    assert (plain.principal_header, plain.members, plain.suspects) == ("Torchwarden-Principal", 1, None)


def test_a_policy_that_shows_labels_alone_has_no_probabilities(tmp_path: Path) -> None:
    section = HANDLER | {"response": {"rule": "label"}}
    assert not archive.read(tiny.build(tmp_path, "a", config={"handler": section})).probabilities


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"input": None}, "handler: input: expected dict, got None"),
        ({"input": {"channels": 1, "height": 0}}, "handler.input: height: expected at least 1, got 0"),
        ({"class_names": "ab"}, "handler: class_names: expected list, got 'ab'"),
    ],
)
def test_what_models_take_and_give_must_be_there(tmp_path: Path, section: dict[str, object], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        archive.read(tiny.build(tmp_path, "a", config={"handler": HANDLER | section}))


@pytest.mark.parametrize("header", ["", "a b", "a:b", "x\r\ny", 7, "1a"])
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: object) -> None:
    path = tiny.build(tmp_path, "a", config={"handler": HANDLER | {"principal_header": header}})
    with pytest.raises(RefusedError, match="principal_header: expected a header's name, got"):
        archive.read(path)
