"""One graph for a policy answers as the separate ones do, whichever members a batch goes to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from bench import fusing
from bench.fusing import Fused, FusingError
from evaluation.oracles import InProcessOracle
from tests.conftest import Smoke

Images = np.ndarray


@pytest.fixture(scope="module")
def edm(smoke: Smoke) -> Iterator[InProcessOracle]:
    with InProcessOracle(smoke.archive("edm")) as oracle:
        yield oracle


@pytest.fixture(scope="module")
def images() -> Images:
    return torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0)).numpy()


def test_every_batch_size_is_answered_by_the_same_members_alike(edm: InProcessOracle, images: Images) -> None:
    one = Fused(edm)
    members = edm.pipeline(images).members
    assert len(set(members.tolist())) > 1
    for rows in range(1, 34):
        outputs, expected = one(images[:rows]), edm.pipeline(images[:rows])
        assert (outputs["member"] == expected.members).all()
        np.testing.assert_allclose(outputs["probabilities"], expected.probabilities, rtol=0, atol=fusing.BOUND)
    assert fusing.parity(edm, one, images) <= fusing.BOUND


def test_members_without_rows_run_on_none(edm: InProcessOracle, images: Images) -> None:
    one, members = Fused(edm), edm.pipeline(images).members
    for member in np.unique(members):
        mine = images[members == member]
        outputs = one(mine)
        assert (outputs["member"] == member).all()
        np.testing.assert_allclose(
            outputs["probabilities"], edm.pipeline(mine).probabilities, rtol=0, atol=fusing.BOUND
        )


def test_the_table_is_no_part_of_the_graph(edm: InProcessOracle) -> None:
    model = fusing.fused(edm)
    assert [each.name for each in model.graph.input] == ["images", "table"]
    table = fusing.table(edm)
    values = [np.array(weight.int64_data) for weight in model.graph.initializer]
    raw = [weight.raw_data for weight in model.graph.initializer]
    assert not any(np.array_equal(value, table) for value in values)
    assert table.tobytes() not in raw


def test_another_table_sends_rows_to_other_members(edm: InProcessOracle, images: Images) -> None:
    one = Fused(edm)
    before = one(images)["member"]
    one._given["table"] = (fusing.table(edm) + 1) % len(edm.pipeline.policy.members)
    assert (one(images)["member"] == (before + 1) % len(edm.pipeline.policy.members)).all()
    with pytest.raises(FusingError, match="smoke-edm: expected one graph to answer 1 rows as the separate ones do"):
        fusing.parity(edm, one, images)


def test_a_gates_terms_are_outputs(gated: Smoke, images: Images) -> None:
    with InProcessOracle(gated.archive("same-reject")) as oracle:
        outputs = Fused(oracle)(images)
        gate = oracle.pipeline.policy.gate
        assert gate is not None
        expected = oracle.pipeline.graphs[gate.graph](images)
        for name in ("error", "auxiliary"):
            np.testing.assert_allclose(outputs[name], expected[name], rtol=0, atol=fusing.BOUND)


@pytest.mark.parametrize("policy", ["meco", "averaged", "label"])
def test_what_cannot_be_one_graph_is_an_error(smoke: Smoke, noisy: Smoke, policy: str) -> None:
    with (
        InProcessOracle(smoke.archive(policy)) as oracle,
        pytest.raises(FusingError, match=f"{policy}: expected ONNX graphs that route, answer or judge"),
    ):
        Fused(oracle)
