"""What the rooms' tests share: one small product (tests/product.py), and which tier a test belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import product
from tests.product import BASELINES, GATED, LIMITED, NOISY, POLICIES, RECIPE, Smoke

__all__ = ["BASELINES", "GATED", "LIMITED", "NOISY", "POLICIES", "RECIPE", "Smoke"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums in one order in every test, whatever ran before: a TorchScript backend sets the process's threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A key of this session's own, named in the environment as the README says."""
    path = tmp_path_factory.mktemp("secrets") / "torchwarden.key"
    path.touch(mode=0o600)
    path.write_text(product.KEY)
    before = os.environ.get("TORCHWARDEN_KEY_FILE")
    os.environ["TORCHWARDEN_KEY_FILE"] = str(path)
    yield path
    if before is None:
        del os.environ["TORCHWARDEN_KEY_FILE"]
    else:
        os.environ["TORCHWARDEN_KEY_FILE"] = before


@pytest.fixture(scope="session")
def smoke_runs(key_file: Path) -> Smoke:
    """The smoke recipe, trained."""
    return product.stage("trained", key_file, product.train)


@pytest.fixture(scope="session")
def smoke_graphs(smoke_runs: Smoke) -> Smoke:
    """The smoke recipe, trained and exported."""
    return product.stage("exported", smoke_runs.key_file, product.export, before=smoke_runs)


@pytest.fixture(scope="session")
def smoke(smoke_graphs: Smoke) -> Smoke:
    """The smoke recipe, trained, exported, calibrated and archived under every policy that tests name."""
    return product.stage("archived", smoke_graphs.key_file, product.archive, before=smoke_graphs)


@pytest.fixture(scope="session")
def baselines(smoke: Smoke) -> Smoke:
    """The same, for those who ask BASELINES."""
    return smoke


@pytest.fixture(scope="session")
def limited(smoke: Smoke) -> Smoke:
    """The same, for those who ask LIMITED."""
    return smoke


@pytest.fixture(scope="session")
def noisy(smoke: Smoke) -> Smoke:
    """The same, for those who ask NOISY."""
    return smoke


@pytest.fixture(scope="session")
def gated(smoke: Smoke) -> Smoke:
    """The same, for those who ask GATED."""
    return smoke
