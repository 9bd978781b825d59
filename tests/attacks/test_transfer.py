"""The transfer set: refused rows, prefixes, soft targets, and the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attacks.oracle import REFUSED, Answers
from attacks.transfer import Collector, TransferSet


def exchange(labels: list[int], start: float = 0.0) -> tuple[torch.Tensor, Answers]:
    """One-pixel images numbered from `start`, one-hot probabilities, NaN where refused."""
    images = (torch.arange(len(labels)) + start).float().view(-1, 1, 1, 1)
    response = torch.tensor(labels)
    probabilities = torch.nn.functional.one_hot(response.clamp(min=0), 3).float()
    probabilities[response == REFUSED] = torch.nan
    return images, Answers(response, probabilities)


def collected() -> TransferSet:
    collector = Collector()
    collector.add(*exchange([0, REFUSED, 2]))
    collector.add(*exchange([REFUSED, 1], start=3))
    return collector.transfer_set()


def test_refused_rows_are_left_out_but_charged() -> None:
    transfer = collected()
    assert transfer.charged == 5
    assert transfer.places.tolist() == [0, 2, 4]
    assert transfer.labels.tolist() == [0, 2, 1]
    assert transfer.images.flatten().tolist() == [0, 2, 4]
    assert transfer.probabilities is not None
    assert not transfer.probabilities.isnan().any()


@pytest.mark.parametrize(
    ("queries", "places", "charged"), [(1, [0], 1), (3, [0, 2], 3), (4, [0, 2], 4), (9, [0, 2, 4], 5)]
)
def test_a_prefix_counts_charged_queries_not_rows(queries: int, places: list[int], charged: int) -> None:
    prefix = collected().first(queries)
    assert prefix.places.tolist() == places
    assert prefix.charged == charged


def test_a_split_keeps_every_row_once() -> None:
    collector = Collector()
    collector.add(*exchange([0, 1, 2] * 10))
    kept, held_out = collector.transfer_set().split(0.1, generator=torch.Generator().manual_seed(3))
    assert (len(kept), len(held_out)) == (27, 3)
    assert sorted(kept.places.tolist() + held_out.places.tolist()) == list(range(30))
    again, _ = collector.transfer_set().split(0.1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(kept.places, again.places)


def test_soft_targets_are_renormalised() -> None:
    served = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.2, 0.0], [0.0, 0.0, 0.0]])
    transfer = TransferSet(torch.zeros(3, 1, 1, 1), torch.tensor([0, 0, 2]), served, torch.arange(3), 3)
    expected = torch.tensor([[0.5, 0.3, 0.2], [0.75, 0.25, 0.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(transfer.soft_targets(), expected)


def test_a_label_only_service_has_no_soft_targets() -> None:
    transfer = TransferSet(torch.zeros(1, 1, 1, 1), torch.tensor([0]), None, torch.arange(1), 1)
    with pytest.raises(ValueError, match="returned labels only; train with labels='hard'"):
        transfer.soft_targets()


def paid(labels: list[int], work: list[float] | None, start: float = 0.0) -> tuple[torch.Tensor, Answers]:
    images, answers = exchange(labels, start)
    hashes = None if work is None else torch.tensor(work).double()
    return images, Answers(answers.labels, answers.probabilities, hashes)


def test_a_row_carries_what_was_paid_since_the_row_before(tmp_path: Path) -> None:
    collector = Collector()
    collector.add(*paid([0, REFUSED, 2], [1, 2, 4]))
    collector.add(*paid([REFUSED, 1], None))
    collector.add(*paid([REFUSED, 1, 0], [8, 16, 0]))
    transfer = collector.transfer_set()
    assert transfer.work is not None
    assert transfer.work.tolist() == [1, 6, 0, 24, 0]
    assert [transfer.first(queries).paid for queries in (1, 2, 3, 5, 6, 7, 9)] == [1, 1, 7, 7, 7, 31, 31]
    kept, held_out = transfer.split(0.4, generator=torch.Generator().manual_seed(3))
    assert kept.paid + held_out.paid == 31
    transfer.save(tmp_path / "paid.npz")
    assert TransferSet.load(tmp_path / "paid.npz").paid == 31
    collected().save(tmp_path / "free.npz")
    free = TransferSet.load(tmp_path / "free.npz")
    assert (free.work, free.paid) == (None, 0)


@pytest.mark.parametrize("last", [[0.5, 0.25], None])
def test_what_was_paid_for_forgotten_exchanges_is_not_forgotten(last: list[float] | None) -> None:
    collector = Collector(keep=2)
    collector.add(*paid([0, 1], [1, 2]))
    collector.add(*paid([REFUSED, 1], [4, 8]))
    collector.add(*paid([0, 1], last))
    transfer = collector.transfer_set()
    assert transfer.work is not None
    assert transfer.work.tolist() == ([15, 0] if last is None else [15.5, 0.25])


@pytest.mark.parametrize("with_probabilities", [True, False])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, with_probabilities: bool) -> None:
    full = collected()
    transfer = full if with_probabilities else TransferSet(full.images, full.labels, None, full.places, full.charged)
    transfer.save(tmp_path / "deep" / "knockoff.npz")
    loaded = TransferSet.load(tmp_path / "deep" / "knockoff.npz")
    assert loaded.charged == transfer.charged
    for name in ("images", "labels", "places"):
        assert torch.equal(getattr(loaded, name), getattr(transfer, name))
    if transfer.probabilities is None:
        assert loaded.probabilities is None
    else:
        assert loaded.probabilities is not None
        assert torch.equal(loaded.probabilities, transfer.probabilities)


def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "knockoff.npz"
    collected().save(path)
    before = path.read_bytes()
    # a tensor that requires grad cannot become an array: the failure comes in the middle of the save
    bad = TransferSet(torch.zeros(1, 1, 1, 1, requires_grad=True), torch.tensor([0]), None, torch.arange(1), 1)
    with pytest.raises(RuntimeError, match="requires grad"):
        bad.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["knockoff.npz"]


def test_nothing_asked_yet_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing was asked yet"):
        Collector().transfer_set()


def test_where_probabilities_stop_coming_labels_are_learnt() -> None:
    collector = Collector()
    images, answers = exchange([0, 1])
    collector.add(images, answers)
    collector.add(images, Answers(answers.labels))
    found = collector.transfer_set()
    targets = found.soft_targets()
    known = len(found) // 2
    assert targets[known:].equal(torch.nn.functional.one_hot(found.labels[known:], targets.shape[1]).float())
    assert found.probabilities is not None
    assert targets[:known].equal(found.probabilities[:known])
