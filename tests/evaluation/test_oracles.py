"""The two oracles: equal answers, honest refusals, and no archive that was packed from other code."""

from __future__ import annotations

import platform
import shutil
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import requests
import torch

from attacks.oracle import REFUSED
from defenses.pipeline import EVERY
from evaluation.oracles import HttpOracle, InProcessOracle, OracleError
from handlers import wire
from handlers.errors import NotFinite
from handlers.forms import Classes
from tests.answers import encode_answers, encode_error
from tests.conftest import POLICIES, Smoke
from tests.evaluation import gated
from tests.evaluation.stub import TOKEN, Stub
from tests.exact import assert_same, exact
from zoo import datasets

CLASSES = Classes(tuple(map(str, range(10))))


@cache
def some_images() -> torch.Tensor:
    return datasets.load("digits", "test").pixels[:40]


@pytest.fixture(scope="module")
def stub(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    archives = {f"smoke-{policy}": smoke.archive(policy) for policy in POLICIES}
    with Stub(archives, tmp_path_factory.mktemp("run")) as server:
        yield server


def over_http(stub: Stub, model: str, *, rows: int, content_type: str = wire.RAW, token: str = TOKEN) -> HttpOracle:
    def post(body: bytes, kind: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        answer = requests.post(f"{stub.url}/predictions/{model}", data=body, headers=headers, timeout=10)
        return answer.status_code, answer.content

    return HttpOracle(post, rows=rows, content_type=content_type)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("content_type", [wire.RAW, wire.JSON])
def test_both_oracles_give_equal_answers(smoke: Smoke, stub: Stub, policy: str, content_type: str) -> None:
    with InProcessOracle(smoke.archive(policy)) as oracle:
        inside = oracle(some_images())
    outside = over_http(stub, f"smoke-{policy}", rows=16, content_type=content_type)(some_images())
    assert torch.equal(inside.labels, outside.labels)
    if policy == "label":
        assert inside.probabilities is outside.probabilities is None
    else:
        assert inside.probabilities is not None
        assert outside.probabilities is not None
        assert inside.probabilities.shape == (len(some_images()), 10)
        same = exact(smoke.archive(policy), some_images().numpy())
        assert_same(outside.probabilities, inside.probabilities, exact=same)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the kernels that were looked at are x86's")
@pytest.mark.parametrize("policy", ["undefended", "edm", "averaged"])
def test_the_runtime_is_exact_where_this_was_seen(smoke: Smoke, policy: str) -> None:
    """Otherwise every comparison bit for bit would quietly become one up to rounding."""
    assert exact(smoke.archive(policy), some_images().numpy())


@pytest.mark.parametrize("policy", ["undefended", "edm", "averaged"])
def test_no_row_s_bits_depend_on_the_rows_next_to_it(smoke: Smoke, policy: str) -> None:
    images, same = some_images(), exact(smoke.archive(policy), some_images().numpy())
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    with InProcessOracle(smoke.archive(policy)) as oracle:
        together, shuffled = oracle(images).probabilities, oracle(images[order]).probabilities
        alone = [oracle(images[row : row + 1]).probabilities for row in range(len(images))]
    assert together is not None
    assert shuffled is not None
    assert_same(shuffled, together[order], exact=same)
    assert_same(torch.cat([each for each in alone if each is not None]), together, exact=same)


def test_a_refused_row_is_refused_and_its_neighbours_are_not(smoke: Smoke) -> None:
    images = some_images()[:3].clone()
    images[1, 0, 5, 5] = torch.nan
    with InProcessOracle(smoke.archive("undefended")) as oracle:
        answers, alone = oracle(images), oracle(images[1:2])
        good = oracle(some_images()[:3])
    assert answers.labels.tolist() == [good.labels[0], REFUSED, good.labels[2]]
    assert answers.probabilities is not None
    assert answers.probabilities.isnan().all(dim=1).tolist() == [False, True, False]
    assert alone.labels.tolist() == [REFUSED]


def test_a_request_of_refused_rows_next_to_good_requests(smoke: Smoke) -> None:
    images = some_images()[:4].clone()
    images[2:] = 2.0
    with InProcessOracle(smoke.archive("undefended")) as oracle:
        answers = HttpOracle(oracle.post, rows=2)(images)
    assert answers.refused.tolist() == [False, False, True, True]
    assert answers.probabilities is not None
    assert answers.probabilities.shape == (4, 10)


def test_images_are_sent_at_most_so_many_at_a_time() -> None:
    sent: list[int] = []

    def post(body: bytes, content_type: str) -> tuple[int, bytes]:
        rows = len(body) // (28 * 28 * 4)
        sent.append(rows)
        return 200, encode_answers(np.zeros(rows, np.int64), None, {}, classes=CLASSES)

    assert HttpOracle(post, rows=16)(some_images()).labels.tolist() == [0] * 40
    assert sent == [16, 16, 8]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, b"", "the service answered 503, expected"),
        (413, encode_error(NotFinite("rows")), "the service answered 413 not_finite: rows"),
    ],
)
def test_a_request_at_fault_as_a_whole_is_no_refusal(status: int, body: bytes, message: str) -> None:
    with pytest.raises(OracleError, match=message):
        HttpOracle(lambda *_: (status, body), rows=8)(some_images())


def test_a_wrong_token_is_no_refusal(stub: Stub) -> None:
    with pytest.raises(OracleError, match="the service answered 400, expected"):
        over_http(stub, "smoke-undefended", rows=8, token="wrong")(some_images())


def test_members_are_the_routers(smoke: Smoke) -> None:
    with InProcessOracle(smoke.archive("edm")) as oracle:
        members = oracle.members(some_images())
        assert members.tolist() == oracle.pipeline(some_images().numpy()).members.tolist()
    assert len(members.unique()) > 1


def test_an_average_is_nobody_s_own_answer(smoke: Smoke) -> None:
    with InProcessOracle(smoke.archive("averaged")) as oracle:
        assert oracle.members(some_images()).tolist() == [EVERY] * len(some_images())
        mean, everyone = oracle(some_images()).probabilities, oracle.everyone(some_images())
    assert mean is not None
    np.testing.assert_allclose(mean, everyone.mean(1), atol=1e-6)


def test_an_archive_packed_from_other_code_is_refused(smoke: Smoke, tmp_path: Path) -> None:
    changed = tmp_path / "smoke-undefended.mar"
    with zipfile.ZipFile(smoke.archive("undefended")) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data + b"\n" if name == "defenses/pipeline.py" else data)
    with pytest.raises(
        OracleError, match=r"packed from other code than this checkout \(defenses/pipeline\.py.*rebuild"
    ):
        InProcessOracle(changed)


def test_an_archive_without_a_file_of_ours_is_refused(smoke: Smoke, tmp_path: Path) -> None:
    changed = tmp_path / "smoke-undefended.mar"
    with zipfile.ZipFile(smoke.archive("undefended")) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            if name != "handlers/wire.py":
                new.writestr(name, old.read(name))
    with pytest.raises(OracleError, match=r"handlers/wire\.py differs, 1 in handlers/"):
        InProcessOracle(changed)


def test_archives_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(OracleError, match=r"no such archive; build it first \(make archive\)"):
        InProcessOracle(tmp_path / "smoke-edm.mar")
    (tmp_path / "smoke-edm.mar").write_bytes(b"PK, or not")
    with pytest.raises(OracleError, match="not an archive: File is not a zip file; build it again"):
        InProcessOracle(tmp_path / "smoke-edm.mar")


def test_nothing_is_left_in_the_temporary_folder(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with InProcessOracle(smoke.archive("undefended")):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    broken = shutil.copy(smoke.archive("undefended"), tmp_path / "broken.mar")
    with zipfile.ZipFile(broken, "a") as archive:
        archive.writestr("defenses/extra.py", "")
    with pytest.raises(OracleError, match=r"defenses/extra\.py differs"):
        InProcessOracle(Path(broken))
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mar"]


@pytest.mark.parametrize("then", ["label", "refuse"])
def test_an_account_is_counted_where_it_is_asked_for(tmp_path: Path, then: str) -> None:
    archive = gated.archive(tmp_path, "spent", gate=gated.GATE, budget={"level": 0.001, "then": then})
    strange = datasets.load("flower", "test", size=28, channels=1).pixels[:256]
    with InProcessOracle(archive) as oracle:
        free = oracle(strange)
    with InProcessOracle(archive, counted=True) as oracle:
        first, rest = oracle(strange), oracle(some_images())
    assert not free.refused.any()
    assert free.probabilities is not None
    assert free.probabilities.isfinite().all()
    assert rest.probabilities is None or not rest.probabilities.isfinite().any(), "its budget is spent for good"
    if then == "refuse":
        assert first.refused.all(), "a batch is treated as its account stands at the end of it"
        assert rest.refused.all()
    else:
        assert first.labels.equal(free.labels)
        assert not rest.refused.any()
    with InProcessOracle(archive, counted=True) as oracle:
        assert oracle(some_images()).probabilities is not None, "another oracle is another account"
