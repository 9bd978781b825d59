"""DFMS-HL against a victim whose classes any thief can tell apart, and its parts by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks import clone, dfms_hl
from attacks.clone import Cloning
from attacks.dfms_hl import DfmsHl, Drawing, Memory, Painter, balanced_agreement, diversity, prepare, trained
from attacks.oracle import REFUSED, Answers, Ledger
from attacks.script import ScriptedThief
from attacks.service import Service
from attacks.thief import steal
from tests.attacks import victims
from tests.reached import Reached
from zoo import dcgan

SERVICE = Service(1, victims.SIZE, victims.CLASSES)
CLONING = Cloning("conv3", epochs=1, options={"width": 1})
SMALL = DfmsHl(
    "china", 400, proxies=128, filters=4, gan_epochs=1, gan_lr=2e-4, diverse_epochs=1, clone_epochs=1, batch=32
)
DRAWING = Drawing(
    proxy="china",
    root=None,
    channels=1,
    size=victims.SIZE,
    count=128,
    filters=4,
    latent=100,
    epochs=1,
    batch=64,
    lr=2e-4,
    seed=0,
)


def thief(parameters: DfmsHl = SMALL, *, seed: int = 0) -> ScriptedThief:
    return prepare(parameters, SERVICE, cloning=CLONING, seed=seed)


def asked(parameters: DfmsHl, oracle: object = victims.label_oracle, *, seed: int = 0) -> torch.Tensor:
    """All images that the thief asks about."""
    seen: list[torch.Tensor] = []

    def watched(images: torch.Tensor) -> Answers:
        seen.append(images)
        return oracle(images)  # type: ignore[operator]

    list(steal(thief(parameters, seed=seed), Ledger(watched, parameters.budget), rows=parameters.rows))
    return torch.cat(seen)


def test_a_clone_is_stolen_by_labels_alone(reached: Reached, seed: int) -> None:
    parameters = replace(SMALL, budget=1500, gan_epochs=3, gan_lr=1e-3, clone_epochs=12, replay=5)
    unseen = victims.images(1000, seed=5)
    agreements = []
    for number in range(2):  # one thief's luck is a tenth of all images
        stealing = thief(parameters, seed=2 * seed + number)
        assert stealing.own() is None
        assert stealing.clone() is None
        for _ in steal(stealing, Ledger(victims.label_oracle, parameters.budget), rows=64):
            pass
        stolen = stealing.clone()
        assert stolen is not None
        assert not stolen.network.training
        assert next(stolen.network.parameters()).device.type == "cpu"
        assert 0 < stolen.held_out < 1
        right = clone.predict(stolen.network, unseen) == victims.label_oracle(unseen).labels
        agreements.append(right.float().mean().item())
    reached("mean agreement of two", sum(agreements) / 2, above=0.45)


def test_every_image_is_charged_and_few_are_kept() -> None:
    ledger = Ledger(victims.label_oracle, SMALL.budget)
    stealing = thief()
    assert list(steal(stealing, ledger, rows=64))[-1] == SMALL.budget
    assert stealing.transfer_set().charged == ledger.queries == SMALL.budget


def test_it_asks_about_proxies_first_and_then_about_drawn_images(reached: Reached, seed: int) -> None:
    proxies, painter = trained(replace(DRAWING, seed=seed))
    images = asked(SMALL, seed=seed)
    assert len(images) == SMALL.budget
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.equal(images[:40], proxies[:40])
    generator = torch.Generator().manual_seed(seed + 1)
    drawn = painter.draw(40, generator=generator)
    assert torch.equal(images[40:80], dfms_hl.WARP(drawn, generator=generator).clamp(0, 1))
    reached("distance to a proxy", torch.cdist(images[40:].flatten(1), proxies.flatten(1)).min(), above=0.1)


def test_equal_seeds_ask_alike_and_probabilities_are_not_looked_at() -> None:
    before = torch.random.get_rng_state()
    first = asked(SMALL)
    assert torch.equal(before, torch.random.get_rng_state())

    def misleading(images: torch.Tensor) -> Answers:
        return Answers(victims.label_oracle(images).labels, torch.rand(len(images), victims.CLASSES))

    assert torch.equal(first, asked(SMALL, misleading))
    assert not torch.equal(first, asked(SMALL, seed=1))


def test_refused_rows_teach_nothing() -> None:
    def partly(images: torch.Tensor) -> Answers:
        labels = victims.label_oracle(images).labels
        return Answers(labels.where(images[:, 0, 0, 0] < 0.5, REFUSED))

    def never(images: torch.Tensor) -> Answers:
        return Answers(torch.full((len(images),), REFUSED))

    assert len(asked(SMALL, partly)) == SMALL.budget
    stealing = thief()
    list(steal(stealing, Ledger(never, SMALL.budget), rows=64))
    stolen = stealing.clone()
    assert stolen is not None
    assert stolen.held_out == 0


@pytest.mark.parametrize("budget", [1, 3, 20, 90])
def test_a_budget_too_small_for_all_steps_is_spent_all_the_same(budget: int) -> None:
    assert len(asked(replace(SMALL, budget=budget))) == budget


def test_colour_at_32() -> None:
    parameters = replace(SMALL, proxy="flower", budget=60, proxies=64)
    stealing = prepare(parameters, Service(3, 32, 10), cloning=Cloning("lenet5", epochs=1), seed=0)
    images = stealing.propose(64)
    assert images is not None
    assert images.shape == (12, 3, 32, 32)
    stealing.observe(images, Answers(torch.arange(12) % 10))
    stolen = stealing.clone()
    assert stolen is not None
    assert stolen.network(images).shape == (12, 10)


def test_a_clone_stays_as_it_was_taken() -> None:
    stealing = thief()
    exchanges = steal(stealing, Ledger(victims.label_oracle, SMALL.budget), rows=64)
    for queries in exchanges:
        if queries >= SMALL.budget // 2:
            break
    taken = stealing.clone()
    assert taken is not None
    before = [each.clone() for each in taken.network.parameters()]
    list(exchanges)
    assert all(torch.equal(*each) for each in zip(before, taken.network.parameters(), strict=True))
    last = stealing.clone()
    assert last is not None
    assert not torch.equal(before[0], next(last.network.parameters()))


def test_foresight_counts_from_the_first_lesson_on(reached: Reached, seed: int) -> None:
    def always_two(images: torch.Tensor) -> Answers:
        return Answers(torch.full((len(images),), 2))

    stealing = thief(replace(SMALL, clone_epochs=8), seed=seed)
    held_out = {}
    for queries in steal(stealing, Ledger(always_two, 200), rows=64):
        taken = stealing.clone()
        assert taken is not None
        held_out[queries] = taken.held_out
    # 80 proxies and drawn images, then the lesson, then 80 more, all foreseen
    assert held_out[80] == held_out[144] == 0
    reached("foreseen", held_out[160], above=0.99)


def test_thefts_share_a_gan_and_leave_it_as_it_was() -> None:
    drawn = trained(DRAWING)[1].draw(8, generator=torch.Generator().manual_seed(0))
    asked(SMALL)
    known = trained.cache_info().hits
    again = trained(DRAWING)[1].draw(8, generator=torch.Generator().manual_seed(0))
    assert trained.cache_info().hits == known + 1
    assert torch.equal(drawn, again)


def test_diversity_by_hand() -> None:
    assert diversity(torch.zeros(5, 4)).item() == pytest.approx(-math.log(4))
    logits = torch.tensor([[0.9, 0.1], [0.7, 0.3]]).log()  # their mean is 0.8, 0.2
    assert diversity(logits).item() == pytest.approx(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    # sure of one class each, yet of both: as diverse as two classes can be
    assert diversity(torch.tensor([[99.0, 0.0], [0.0, 99.0]])).item() == pytest.approx(-math.log(2))
    one = torch.tensor([[500.0, 0.0]], requires_grad=True)
    assert diversity(one).item() == 0
    diversity(one).backward()
    assert one.grad is not None
    assert one.grad.isfinite().all(), "a class that is never drawn breaks nothing"


class Biased(nn.Module):
    """The victim's logits, so that the test knows what classes mean; it labels all grey images as of
    class 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return victims.probabilities(images).log() + torch.tensor([8.0, 0.0, 0.0, 0.0])


def test_the_generator_learns_to_draw_all_classes_alike(reached: Reached, seed: int) -> None:
    proxies = torch.zeros(256, 1, victims.SIZE, victims.SIZE)
    proxies[:, :, :7, :7] = 1.0
    judge = Biased()

    def end(weight: float) -> float:
        painter = Painter(replace(DRAWING, batch=32, lr=3e-3, seed=seed))
        generator = torch.Generator().manual_seed(seed)
        for _ in range(8):
            for shown in painter.batches(proxies, generator=generator):
                painter.learn(shown, painter.paint(len(shown), generator=generator), judge, weight=weight)
        return diversity(judge(painter.draw(64, generator=generator))).item()

    reached("diversity loss without its weight", end(0.0), above=-0.2)
    reached("diversity loss", end(50.0), below=-1.0)  # -log 4 is the least there is


@pytest.mark.parametrize("weight", [0.0, 50.0])
def test_a_step_is_one_of_the_discriminator_and_then_one_of_the_generator(weight: float) -> None:
    painter = Painter(replace(DRAWING, batch=32))
    draws = torch.Generator().manual_seed(0)
    shown, judge = torch.rand(32, 1, victims.SIZE, victims.SIZE, generator=draws), Biased()
    latents = torch.randn(32, DRAWING.latent, generator=draws)
    discriminator, generator = copy.deepcopy((painter._discriminator, painter._generator))
    judged, drawing = (
        torch.optim.Adam(network.parameters(), DRAWING.lr, betas=(0.5, 0.999)) for network in (discriminator, generator)
    )
    painter.learn(shown, painter._generator(latents), judge, weight=weight)

    drawn = generator(latents)
    dcgan.discriminate(discriminator, shown, drawn).backward()
    judged.step()
    generator.zero_grad()
    (dcgan.deceive(discriminator, drawn) + weight * diversity(judge(drawn))).backward()
    drawing.step()
    for expected, learnt in ((discriminator, painter._discriminator), (generator, painter._generator)):
        for one, other in zip(expected.parameters(), learnt.parameters(), strict=True):
            torch.testing.assert_close(other, one)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [dfms_hl.rate(done, 40) for done in range(41)]
    assert rates[:4] == [0.25, 0.5, 0.75, pytest.approx((1 + math.cos(math.pi * 3 / 40)) / 2)]
    assert rates[20] == pytest.approx(0.5)
    assert rates[40] == 0
    assert dfms_hl.rate(0, 1) == 1


def test_rare_classes_count_as_much_as_frequent_ones() -> None:
    assert balanced_agreement(torch.tensor([0, 0, 0, 3]), torch.tensor([0, 0, 3, 3])) == pytest.approx((1 + 1 / 2) / 2)
    assert balanced_agreement(torch.tensor([7, 7, 7, 7]), torch.tensor([7, 7, 7, 2])) == pytest.approx(1 / 2)


def test_averages_follow_slowly_and_take_counters_over() -> None:
    network, average = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    network.weight.data.fill_(3.0)
    network.running_mean.fill_(1.0)
    network.num_batches_tracked.fill_(7)
    dfms_hl._follow(average, network, 0.9)
    assert average.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 3)
    assert average.running_mean.item() == pytest.approx(0.1)
    assert average.num_batches_tracked.item() == 7


def test_the_memory_forgets_the_oldest() -> None:
    memory = Memory(5, Service(1, 1, 10))
    none, _ = memory.some(3, generator=torch.Generator())
    assert none.shape == (0, 1, 1, 1)
    for first, last in ((0, 3), (3, 7), (7, 8)):
        labels = torch.arange(first, last)
        memory.add(labels.view(-1, 1, 1, 1).float(), labels)
    images, labels = memory.all()
    assert sorted(labels.tolist()) == [3, 4, 5, 6, 7]
    assert torch.equal(images.flatten(), labels.float())
    memory.add(torch.arange(10, 22).view(-1, 1, 1, 1).float(), torch.arange(10, 22))
    assert sorted(memory.all()[1].tolist()) == [17, 18, 19, 20, 21]
    images, labels = memory.some(40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(images.flatten(), labels.float())
    assert set(labels.tolist()) == {17, 18, 19, 20, 21}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "budget: expected at least 1, got 0"),
        ({"proxies": 1}, "proxies: expected at least 2 images, got 1"),
        ({"gan_lr": 0.0}, "gan_lr: expected above 0, got 0.0"),
        ({"weight": -1.0}, "weight: expected at least 0, got -1.0"),
        ({"proxy_share": 0.9}, r"validation_share: expected above 0 and together below 1, got \[0.9, "),
        ({"decays": (1.0,)}, r"decays: expected above 0 and below 1, got \(1.0,\)"),
        ({"clone_recipe": "sgd++"}, r"unknown clone recipe 'sgd\+\+'; expected one of sgd"),
    ],
)
def test_parameters_are_checked(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **wrong)  # type: ignore[arg-type]
