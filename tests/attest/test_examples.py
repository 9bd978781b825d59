"""The example server, served and attested as docs/attest.md does it, against the same model in process."""

from __future__ import annotations

from pathlib import Path

import pytest

from attest.campaign.order import Options
from attest.examples import classifier, peers

pytestmark = pytest.mark.drill


def test_fastapi_is_attested_as_the_same_model_in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(peers.KEY, "sesame")
    models = tmp_path / "models"
    classifier.write(classifier.train(epochs=3), models)
    options = Options("digits", ("in-distribution",), epochs=2, recipes=("adamw",), seeds=(0,), workers=0)
    where = {"budget": 500, "models": models, "reports": tmp_path}
    found = peers.attest("fastapi", options, **where)  # type: ignore[arg-type]
    other = peers.expected(peers.PEERS["fastapi"], options, **where)  # type: ignore[arg-type]
    assert found.utility.accuracy > 0.8
    assert peers.furthest(found, other) == 0
    assert found.verdict.word == other.verdict.word


def test_the_pictures_lie_as_an_owner_has_them(tmp_path: Path) -> None:
    classifier.write_pictures(tmp_path / "images")
    assert len(list((tmp_path / "images/train").rglob("*.png"))) == 1297
    assert len(list((tmp_path / "images/test/7").glob("*.png"))) >= 40


def test_images_that_are_not_on_this_machine_are_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["classifier", "--dataset", "nosuch", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"attest\.examples\.classifier: .*nosuch"):
        classifier.main()
    assert not list(tmp_path.iterdir())
